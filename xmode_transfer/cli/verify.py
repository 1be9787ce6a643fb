"""`xmode-transfer verify`: verify deliveries key by key, repair missing objects, and sign receipts."""

import sys
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from xmode_transfer.cli import opening, terminal
from xmode_transfer.cli.opening import FILE, Opened, Shell
from xmode_transfer.model.errors import ExitCode, ReceiptRefused, XmodeError
from xmode_transfer.model.upkeep import DiscrepancyKind, Finding, Scope, fix
from xmode_transfer.web import states

if TYPE_CHECKING:
    from xmode_transfer.config import Customer
    from xmode_transfer.upkeep.receipts import ReceiptFile
    from xmode_transfer.upkeep.repair import Repaired
    from xmode_transfer.upkeep.verify import Verification

_HOW_TO_ATTEST = (
    "add the public keys that signed our manifests to service.yaml (receipts.public_keys), then run `list "
    "--adopt` again. What was never signed stays unattested; `verify` without --receipt proves it by the "
    "ledger"
)
_INDENT = 18
_SHOWN = 20


@click.command()
@click.option("--customer", "-c", "name", metavar="C", help="The customer.")
@opening.scope_options
@click.option("--deep", is_flag=True, help="Also read every object back, within the bandwidth limits.")
@click.option("--sample", metavar="N", type=click.IntRange(0), help="Check N keys' ACLs. Default: 1000.")
@click.option("--all", "every_acl", is_flag=True, help="Check the ACL of every key.")
@click.option("--repair", is_flag=True, help="Deliver missing objects again, if unchanged at the source.")
@opening.by_option
@click.option("--receipt", metavar="FILE", type=FILE, help="Write a signed receipt, or check one.")
@click.option("--public-key", metavar="FILE", type=FILE, multiple=True, help="Key to check a receipt with.")
@click.option("--new-key", metavar="FILE", type=FILE, help="Create a key that signs receipts, and FILE.pub.")
@opening.with_json
def command(
    shell: Shell,
    name: str | None,
    scope: Scope,
    deep: bool,
    sample: int | None,
    every_acl: bool,
    repair: bool,
    by: str | None,
    receipt: Path | None,
    public_key: tuple[Path, ...],
    new_key: Path | None,
    as_json: bool,
) -> int:
    """Verify deliveries: compare every key (size, S3's checksum, the owner's full control) and every manifest
    and table with the ledger. Report what was deleted or altered or has other rights, and who is responsible.

    --deep also reads the bytes back. --repair delivers deleted objects again; it overwrites nothing.
    --receipt writes a signed record of the result; without --customer it checks such a file, offline, with
    only our public key (docs/verify.md).

    \b
    xmode-transfer verify --customer acme
    xmode-transfer verify --customer acme --feed us-daily --period 2026-11-22 --deep --all
    xmode-transfer verify --customer acme --since 2026-11-01 --receipt acme-november.receipt
    xmode-transfer verify --customer acme --repair --by alice
    xmode-transfer verify --receipt acme-november.receipt --public-key xmode-receipts.pem.pub
    xmode-transfer verify --new-key /etc/xmode-transfer/receipts.pem
    """
    from xmode_transfer.cli import receipts
    from xmode_transfer.service import assembly
    from xmode_transfer.upkeep.listing import check_delivered, check_scope
    from xmode_transfer.upkeep.repair import repair as deliver_again
    from xmode_transfer.upkeep.verify import Verification

    if new_key is not None:
        return receipts.make_key(new_key, as_json=as_json)
    if name is None:
        if receipt is None:
            raise click.UsageError("give --customer to verify, or --receipt to check")
        return receipts.check(shell, receipt, public_key, as_json=as_json)
    if public_key:
        raise click.UsageError("--public-key only checks a --receipt, without --customer")
    if every_acl and sample is not None:
        raise click.UsageError("--all checks every ACL, --sample some of them: use either")
    acl_sample = None if every_acl else 1000 if sample is None else sample
    configuration = shell.configuration()
    customer = configuration.active_customer(name)
    with ExitStack() as stack:
        file = stack.enter_context(receipts.new_file(configuration, receipt)) if receipt is not None else None
        opened = stack.enter_context(shell.opened(configuration, as_json=as_json))
        ledger = opened.context.ledger
        check_scope(ledger, configuration, customer, scope.feed, [scope.period, scope.since, scope.until])
        if scope.period is not None:
            check_delivered(ledger, customer, scope.feed, scope.period)

        def verification() -> Verification:
            reader = assembly.reader(opened.context, customer)
            return Verification(opened.context, customer, scope, reader, deep=deep, acl_sample=acl_sample)

        # a verification of its own finds what is missing; the next one proves what was repaired
        repaired = None
        if repair:
            findings = (finding for _, finding in verification() if finding is not None)
            person = opening.requester(by)
            repaired = deliver_again(opened.context, configuration, customer, findings, by=person)
        return _run(opened, _Report(verification(), repaired, file, as_json))


def _run(opened: Opened, report: "_Report") -> int:
    from xmode_transfer.upkeep import receipts
    from xmode_transfer.upkeep.listing import not_attested, why_nothing
    from xmode_transfer.upkeep.verify import Verified

    context, file, verification = opened.context, report.file, report.verification
    customer, scope, verified = verification.customer, verification.scope, verification.verified
    started = context.clock.monotonic()
    found = not_attested(context, customer.name, scope.feed)
    report.not_attested = {place: why for place, why in found.items() if scope.covers(*place[:2])}
    signed = Verified()
    if file is not None:
        head = receipts.head(
            customer,
            context.vendor.principal_arn,
            scope,
            deep=verification.deep,
            acl_sample=verification.acl_sample,
            checked_at=context.clock.now(),
        )
        file.add(head)
    try:
        for checked, finding in verification:
            if finding is not None:
                with opened.progress.hidden():
                    report.finding(finding)
            known = checked.known
            if file is not None and (known.feed, known.period, known.revision) not in report.not_attested:
                file.add(receipts.entry(checked, finding))
                signed.count(checked)
    except XmodeError as error:
        with opened.progress.hidden():
            return report.cut_short(error)
    if file is not None and (signed.keys or not verified.keys):
        file.sign(signed.summary(context.clock.now()))
        report.is_signed = True
    if not verified.keys:
        report.why_nothing = why_nothing(context.ledger, customer, scope)
    with opened.progress.hidden():
        return report.done(context.clock.monotonic() - started)


@dataclass(slots=True)
class _Report:
    """Shows each finding as it comes, then the end. ``not_attested`` has the deliveries (feed, period,
    revision) that no receipt is signed for, and why."""

    verification: "Verification"
    repaired: "Repaired | None"
    file: "ReceiptFile | None"
    as_json: bool
    not_attested: dict[tuple[str, str, int], str] = field(default_factory=dict)
    is_signed: bool = False
    why_nothing: str | None = None
    _first: dict[DiscrepancyKind, Finding] = field(default_factory=dict)
    _document: terminal.JsonDocument = field(init=False)

    def __post_init__(self) -> None:
        self._document = terminal.JsonDocument(
            sys.stdout,
            "findings",
            customer=self._customer.name,
            destination=self._customer.destination.url,
            **terminal.to_json(self.verification.scope),
        )

    @property
    def _customer(self) -> "Customer":
        return self.verification.customer

    def finding(self, finding: Finding) -> None:
        self._first.setdefault(finding.kind, finding)
        if not self.as_json:
            terminal.say(finding.known.key, label=terminal.state(finding.kind, _INDENT))
            terminal.say(finding.message, indent=_INDENT)
            return
        known = finding.known
        self._document.row(
            {
                **terminal.picked(known, "key", "feed", "period", "revision", "size"),
                "discrepancy": finding.kind,
                **terminal.picked(finding, "message", "responsible"),
                "fix": self._fix(finding),
                "source": known.name or None,
            }
        )

    def cut_short(self, error: XmodeError) -> int:
        """End the report early; it says nothing about keys that were not checked."""
        if not self.as_json:
            terminal.say(f"stopped after {states.count(self.verification.verified.keys, 'key')}")
        if not self._document.begun:
            raise error
        outcomes = {ExitCode.INTERRUPTED: "interrupted", ExitCode.BLOCKED: "blocked"}
        outcome = outcomes.get(error.exit_code, "failed")
        self._document.end(outcome=outcome, complete=False, **self._counts(), error=error.log_context())
        return error.exit_code

    def done(self, seconds: float) -> int:
        code = self.verification.verified.exit_code
        if code == ExitCode.DONE and self.repaired is not None:
            code = self.repaired.exit_code
        if code == ExitCode.DONE and self.file is not None and not self.is_signed:
            code = ReceiptRefused.exit_code
        if self.as_json:
            self._end_document(seconds)
            return code
        if self.repaired is not None:
            _show_repaired(self.repaired)
        self._show_end(seconds)
        self._show_not_attested()
        if self.file is not None and self.is_signed:
            terminal.say(f"receipt {self.file.path}, signed with the key {self.file.key_id}")
        return code

    def _fix(self, finding: Finding) -> str:
        return fix(finding.kind, self._customer.name, self._customer.destination.bucket, finding.known.key)

    def _counts(self) -> dict[str, Any]:
        verified = self.verification.verified
        return {
            **terminal.picked(verified, "keys", "proven", "rewritten", "acl_checked"),
            **terminal.picked(verified, "unmanaged", "superseded", "withdrawn", "tables"),
            "bytes": verified.proven_bytes,
            "proofs": dict(sorted(verified.proofs.items())),
            "discrepancies": dict(sorted(verified.discrepancies.items())),
        }

    def _end_document(self, seconds: float) -> None:
        file = self.file if self.is_signed else None
        self._document.end(
            outcome=self.verification.verified.outcome,
            complete=True,
            **self._counts(),
            seconds=round(seconds, 3),
            reason=self.why_nothing,
            not_attested=[
                {"feed": feed, "period": period, "revision": revision, "reason": why}
                for (feed, period, revision), why in sorted(self.not_attested.items())
            ],
            receipt=file and {"file": file.path, "key_id": file.key_id},
            repair=self.repaired and _repair_document(self.repaired),
        )

    def _show_end(self, seconds: float) -> None:
        verified, url = self.verification.verified, self._customer.destination.url
        for kind, finding in self._first.items():
            terminal.say(f": {states.count(verified.discrepancies[kind], 'key')}", label=terminal.state(kind))
            terminal.responsible_for(kind.responsible, self._fix(finding))
        label = terminal.state(verified.outcome, 12)
        unmanaged = [f"{verified.unmanaged:,} unmanaged"] if verified.unmanaged else []
        if not verified.keys:
            terminal.say(f"{url}: {'; '.join([str(self.why_nothing), *unmanaged])}", label=label)
            return
        how = ", ".join(f"{count:,} by {proof}" for proof, count in sorted(verified.proofs.items()))
        proven = f"{verified.proven:,} of {states.count(verified.keys, 'key')} as delivered"
        facts = [f"{proven} ({how})" if how else proven, states.size(verified.proven_bytes)]
        facts.append(f"{states.count(verified.acl_checked, 'ACL')} checked")
        if verified.rewritten:
            facts.append(f"{verified.rewritten:,} rewritten by someone with the same bytes")
        if verified.superseded:
            facts.append(f"{verified.superseded:,} superseded: no manifest lists them (`list` does)")
        if verified.withdrawn:
            facts.append(f"{verified.withdrawn:,} withdrawn by a recall, and still there (`list` shows them)")
        if verified.tables:
            facts.append(f"{states.count(verified.tables, 'table')} compared")
        facts += [*unmanaged, states.duration(seconds)]
        terminal.say(f"{url}: {'; '.join(facts)}", label=label)

    def _show_not_attested(self) -> None:
        doubtful = sorted(self.not_attested.items())
        for (feed, period, revision), why in doubtful[:_SHOWN]:
            number = f" r{revision}" if revision > 1 else ""
            terminal.fact("not attested", f"{feed} {period}{number}: {why}", 0)
        terminal.more(len(doubtful), _SHOWN, "delivery")
        if doubtful and self.is_signed:
            terminal.say("the receipt omits these deliveries", indent=2)
        elif doubtful and self.file is not None:
            terminal.say(("no receipt was written: none of this is attested", "bold red"))
            terminal.fact("fix", _HOW_TO_ATTEST)


def _show_repaired(repaired: "Repaired") -> None:
    sent = f"{states.count(repaired.sent, 'key')} delivered again, {states.size(repaired.bytes)}"
    done = f"{sent} (operation {repaired.operation_id})" if repaired.operation_id else "nothing was missing"
    terminal.say(done, label=(f"{'repair':<{_INDENT}}", "bold cyan"))
    for left in repaired.left[:_SHOWN]:
        terminal.say(left.known.key, label=f"{'not repaired':<{_INDENT - 2}}", indent=2)
        terminal.say(f"{left.cause}: {left.message}", indent=_INDENT)
    terminal.more(len(repaired.left), _SHOWN, "key")
    if repaired.failure is not None:
        terminal.fact("ended early", repaired.failure.message)
        if repaired.failure.hint:
            terminal.fact("fix", repaired.failure.hint)


def _repair_document(repaired: "Repaired") -> dict[str, Any]:
    return {
        "operation": repaired.operation_id,
        **terminal.picked(repaired, "outcome", "sent", "bytes"),
        "left": [{"key": of.known.key, **terminal.picked(of, "cause", "message")} for of in repaired.left],
        **terminal.failure_fields(repaired.failure),
    }

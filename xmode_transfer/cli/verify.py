"""`xmode-transfer verify`: verify deliveries key by key, repair missing objects, and sign receipts."""

import sys
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from xmode_transfer.cli import opening, terminal
from xmode_transfer.cli.opening import FILE, Opened, Shell
from xmode_transfer.config import Customer
from xmode_transfer.model.errors import ConfigError, ExitCode, ReceiptRefused, XmodeError
from xmode_transfer.model.upkeep import DiscrepancyKind, Finding, Scope, fix
from xmode_transfer.upkeep import receipts as receipt_files
from xmode_transfer.web import states

if TYPE_CHECKING:
    from collections.abc import Mapping

    from xmode_transfer.config import Configuration
    from xmode_transfer.upkeep.receipts import ReceiptFile
    from xmode_transfer.upkeep.repair import Repaired
    from xmode_transfer.upkeep.verify import Verification, Verified

_HOW_TO_ATTEST = (
    "add the public keys that signed our manifests to service.yaml (receipts.public_keys), then run `list "
    "--adopt` again. What was never signed stays unattested; `verify` without --receipt proves it by the "
    "ledger"
)
_INDENT = 18
_SHOWN_LEFT = 20


@click.command()
@click.option("--customer", "-c", "name", metavar="C", help="The customer.")
@opening.feed_option
@opening.period_option
@opening.since_option
@opening.until_option
@click.option("--deep", is_flag=True, help="Also read every object back, within the bandwidth limits.")
@click.option(
    "--sample", metavar="N", type=click.IntRange(0), help="Check the ACLs of N keys. Default: 1000."
)
@click.option("--all", "every_acl", is_flag=True, help="Check the ACL of every key.")
@click.option("--repair", is_flag=True, help="Deliver missing objects again, if unchanged at the source.")
@opening.by_option
@click.option("--receipt", metavar="FILE", type=FILE, help="Write a signed receipt, or check one.")
@click.option(
    "--public-key",
    "public_keys",
    metavar="FILE",
    type=FILE,
    multiple=True,
    help="Public key for checking a receipt.",
)
@click.option("--new-key", metavar="FILE", type=FILE, help="Create a key that signs receipts, and FILE.pub.")
@opening.json_option
@click.pass_obj
def command(
    shell: Shell,
    name: str | None,
    feed: str | None,
    period: str | None,
    since: str | None,
    until: str | None,
    deep: bool,
    sample: int | None,
    every_acl: bool,
    repair: bool,
    by: str | None,
    receipt: Path | None,
    public_keys: tuple[Path, ...],
    new_key: Path | None,
    as_json: bool,
) -> int:
    """Verify deliveries: compare every key (size, S3's checksum, the owner's full control) and every manifest
    with the ledger. Reports what was deleted or altered or has other rights, and who is responsible.

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

    if new_key is not None:
        return receipts.make_key(new_key, as_json=as_json)
    if name is None:
        if receipt is None:
            raise click.UsageError("give --customer to verify, or --receipt to check")
        return receipts.check(shell, receipt, public_keys, as_json=as_json)
    if public_keys:
        raise click.UsageError("--public-key only checks a --receipt, without --customer")
    opening.check_periods(period, since, until)
    if every_acl and sample is not None:
        raise click.UsageError("--all checks every ACL, --sample some of them: use either")
    scope = Scope(feed, period, since, until)
    acl_sample = None if every_acl else 1000 if sample is None else sample
    from xmode_transfer.service import assembly
    from xmode_transfer.upkeep.listing import check_delivered, check_scope
    from xmode_transfer.upkeep.verify import Verification

    configuration = shell.configuration()
    customer = configuration.active_customer(name)
    with ExitStack() as stack:
        file = stack.enter_context(_receipt_file(configuration, receipt)) if receipt is not None else None
        opened = stack.enter_context(shell.opened(configuration, as_json=as_json))
        ledger = opened.context.ledger
        check_scope(ledger, configuration, customer, feed, [period, since, until])
        if period is not None:
            check_delivered(ledger, customer, feed, period)

        def verification() -> Verification:
            reader = assembly.reader(opened.context, customer)
            return Verification(opened.context, customer, scope, reader, deep=deep, acl_sample=acl_sample)

        report = _Report(customer, scope, as_json=as_json)
        if repair:
            report.repaired = _repair(opened, customer, verification(), opening.asking(by))
        return _run(opened, verification(), report, file)


def _run(opened: Opened, verification: "Verification", report: "_Report", file: "ReceiptFile | None") -> int:
    """Verifies, and reports and records each finding as it comes."""
    from xmode_transfer.upkeep.listing import not_attested, why_nothing
    from xmode_transfer.upkeep.verify import Verified

    context, verified = opened.context, verification.verified
    started = context.clock.monotonic()
    scope = verification.scope
    report.not_attested = {
        place: why
        for place, why in not_attested(context, verification.customer.name, scope.feed).items()
        if scope.covers(*place[:2])
    }
    signed = Verified()
    if file is not None:
        head = receipt_files.head(
            verification.customer,
            context.vendor.principal_arn,
            verification.scope,
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
                file.add(receipt_files.entry(checked, finding))
                signed.count(checked)
    except XmodeError as error:
        with opened.progress.hidden():
            return report.cut_short(verified, error)
    if file is not None and (signed.keys or not verified.keys):
        file.sign(signed.summary(context.clock.now()))
    elif file is not None:
        report.nothing_signed = True
    if not verified.keys:
        report.why_nothing = why_nothing(context.ledger, verification.customer, verification.scope)
    with opened.progress.hidden():
        return report.done(verified, context.clock.monotonic() - started, file)


def _repair(opened: Opened, customer: Customer, first: "Verification", by: str) -> "Repaired":
    """What is missing, by a verification of its own, is delivered again; the next one proves it."""
    from xmode_transfer.upkeep.repair import repair

    findings = (finding for _, finding in first if finding is not None)
    return repair(opened.context, opened.configuration, customer, findings, by=by)


def _receipt_file(configuration: "Configuration", path: Path) -> "ReceiptFile":
    from xmode_transfer.transfer.signing import configured_signer
    from xmode_transfer.upkeep.receipts import ReceiptFile

    signer = configured_signer(configuration.service.receipts)
    if signer is None:
        raise ConfigError(
            "receipts.key is not set in service.yaml: there is no key to sign with",
            hint="create a key with `xmode-transfer verify --new-key FILE`; it prints what to configure",
        )
    return ReceiptFile(path, signer)


class _Report:
    """Told key by key; ``done`` or ``cut_short`` comes last and answers the exit code."""

    def __init__(self, customer: Customer, scope: Scope, *, as_json: bool) -> None:
        self.repaired: Repaired | None = None
        self.why_nothing: str | None = None
        self.not_attested: Mapping[tuple[str, str, int], str] = {}
        """Deliveries (feed, period, revision) that no receipt is signed for, and why."""
        self.nothing_signed = False
        self._customer = customer
        self._as_json = as_json
        self._first: dict[DiscrepancyKind, Finding] = {}
        self._place = f"s3://{customer.destination.bucket}/{customer.destination.prefix}"
        self._document = terminal.JsonDocument(
            sys.stdout,
            "findings",
            customer=customer.name,
            destination=self._place,
            feed=scope.feed,
            period=scope.period,
            since=scope.since,
            until=scope.until,
        )

    def finding(self, finding: Finding) -> None:
        self._first.setdefault(finding.kind, finding)
        if self._as_json:
            self._document.row(self._row(finding))
            return
        terminal.say(finding.known.key, label=terminal.state(finding.kind, _INDENT))
        terminal.say(finding.message, indent=_INDENT)

    def cut_short(self, verified: "Verified", error: XmodeError) -> int:
        """Ends the report early; it says nothing about keys that were not checked."""
        if not self._as_json:
            terminal.say(f"stopped after {states.count(verified.keys, 'key')}")
            raise error
        if not self._document.begun:
            raise error
        word = "interrupted" if error.exit_code == ExitCode.INTERRUPTED else "failed"
        outcome = "blocked" if error.exit_code == ExitCode.BLOCKED else word
        self._document.end(
            outcome=outcome, complete=False, **self._counts(verified), error=error.log_context()
        )
        return error.exit_code

    def done(self, verified: "Verified", seconds: float, receipt: "ReceiptFile | None") -> int:
        repaired = self.repaired
        code = verified.exit_code
        if code == ExitCode.DONE and repaired is not None:
            code = repaired.exit_code
        if code == ExitCode.DONE and self.nothing_signed:
            code = ReceiptRefused.exit_code
        signed = receipt if not self.nothing_signed else None
        if self._as_json:
            self._document.end(
                outcome=verified.outcome,
                complete=True,
                **self._counts(verified),
                seconds=round(seconds, 3),
                reason=self.why_nothing,
                not_attested=[
                    {"feed": feed, "period": period, "revision": revision, "reason": why}
                    for (feed, period, revision), why in sorted(self.not_attested.items())
                ],
                receipt=signed and {"file": str(signed.path), "key_id": signed.key_id},
                repair=repaired and _repair_document(repaired),
            )
            return code
        if repaired is not None:
            self._tell_repaired(repaired)
        self._tell(verified, seconds)
        self._tell_not_attested(with_receipt=receipt is not None)
        if signed is not None:
            terminal.say(f"receipt {signed.path}, signed with the key {signed.key_id}")
        return code

    # --- For programs -----------------------------------------------------------------------------------

    def _row(self, finding: Finding) -> dict[str, Any]:
        known = finding.known
        return {
            "key": known.key,
            "flaw": str(finding.kind),
            "message": finding.message,
            "responsible": str(finding.responsible),
            "fix": self._fix(finding),
            **terminal.picked(known, "feed period revision"),
            "source": known.name or None,
            "size": known.size,
        }

    def _counts(self, verified: "Verified") -> dict[str, Any]:
        return {
            "keys": verified.keys,
            "proven": verified.proven,
            "bytes": verified.proven_bytes,
            "proofs": {str(proof): count for proof, count in sorted(verified.proofs.items())},
            **terminal.picked(verified, "rewritten acl_checked"),
            "flaws": {str(kind): count for kind, count in sorted(verified.discrepancies.items())},
            **terminal.picked(verified, "unmanaged superseded"),
        }

    def _fix(self, finding: Finding) -> str:
        return fix(finding.kind, self._customer.name, self._customer.destination.bucket, finding.known.key)

    # --- For people -------------------------------------------------------------------------------------

    def _tell(self, verified: "Verified", seconds: float) -> None:
        for kind, finding in self._first.items():
            terminal.say(f": {states.count(verified.discrepancies[kind], 'key')}", label=terminal.state(kind))
            terminal.responsible_for(kind.responsible, self._fix(finding))
        label = terminal.state(verified.outcome, 12)
        unmanaged = [f"{verified.unmanaged:,} unmanaged"] if verified.unmanaged else []
        if not verified.keys:
            terminal.say(f"{self._place}: {'; '.join([str(self.why_nothing), *unmanaged])}", label=label)
            return
        how = ", ".join(f"{count:,} by {proof}" for proof, count in sorted(verified.proofs.items()))
        proven = f"{verified.proven:,} of {states.count(verified.keys, 'key')} as delivered"
        facts = [f"{proven} ({how})" if how else proven, states.size(verified.proven_bytes)]
        facts.append(f"{states.count(verified.acl_checked, 'ACL')} checked")
        if verified.rewritten:
            facts.append(f"{verified.rewritten:,} rewritten by someone with the same bytes")
        if verified.superseded:
            facts.append(f"{verified.superseded:,} superseded: no manifest lists them (`list` does)")
        facts += [*unmanaged, states.duration(seconds)]
        terminal.say(f"{self._place}: {'; '.join(facts)}", label=label)

    def _tell_not_attested(self, *, with_receipt: bool) -> None:
        """Shows deliveries that were recovered from the bucket without our signature."""
        doubtful = sorted(self.not_attested.items())
        for (feed, period, revision), why in doubtful[:_SHOWN_LEFT]:
            number = f" r{revision}" if revision > 1 else ""
            terminal.fact("not attested", f"{feed} {period}{number}: {why}", 0)
        terminal.more(len(doubtful), _SHOWN_LEFT, "delivery")
        if doubtful and with_receipt and self.nothing_signed:
            terminal.say(("no receipt was written: none of this is attested", "bold red"))
            terminal.fact("fix", _HOW_TO_ATTEST)
        elif doubtful and with_receipt:
            terminal.say("the receipt omits these deliveries", indent=2)

    def _tell_repaired(self, repaired: "Repaired") -> None:
        told = "nothing was missing"
        if repaired.operation_id is not None:
            sent = f"{states.count(repaired.sent, 'key')} delivered again, {states.size(repaired.bytes)}"
            told = f"{sent} (operation {repaired.operation_id})"
        terminal.say(told, label=(f"{'repair':<{_INDENT}}", "bold cyan"))
        for left in repaired.left[:_SHOWN_LEFT]:
            terminal.say(left.known.key, label=f"{'not repaired':<{_INDENT - 2}}", indent=2)
            terminal.say(f"{left.cause}: {left.message}", indent=_INDENT)
        terminal.more(len(repaired.left), _SHOWN_LEFT, "key")
        if repaired.failure is not None:
            terminal.fact("ended early", repaired.failure.message)
            if repaired.failure.hint:
                terminal.fact("fix", repaired.failure.hint)


def _repair_document(repaired: "Repaired") -> dict[str, Any]:
    return {
        "act": repaired.operation_id,
        **terminal.picked(repaired, "outcome sent bytes"),
        "left": [
            {"key": left.known.key, "cause": left.cause, "message": left.message} for left in repaired.left
        ],
        **terminal.failure_fields(repaired.failure, request_id=False),
    }

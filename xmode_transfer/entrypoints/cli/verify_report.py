"""How a verification is told: a line for each key that is not as it was delivered, or one document."""

from typing import TYPE_CHECKING, Any, TextIO

import click

from xmode_transfer.domain.config import Customer
from xmode_transfer.domain.errors import ExitCode, Party, ReceiptRefused, XmodeError
from xmode_transfer.domain.verification import Finding, Flaw, Scope, fix
from xmode_transfer.entrypoints.cli import words
from xmode_transfer.entrypoints.cli.streaming import JsonDocument
from xmode_transfer.entrypoints.cli.terminal import style

if TYPE_CHECKING:
    from collections.abc import Mapping

    from xmode_transfer.adapters.receipt_files import ReceiptFile
    from xmode_transfer.services.repair import Repaired
    from xmode_transfer.services.verify import Verified

_COLOURS = {
    Flaw.MISSING: "red",
    Flaw.ALTERED: "red",
    Flaw.ACL_CHANGED: "yellow",
    Flaw.MANIFEST_DIFFERS: "red",
    Flaw.ELSEWHERE: "yellow",
    Flaw.UNREADABLE: "yellow",
    Flaw.UNCHECKED: "yellow",
}
_OUTCOMES = {"proven": "green", "nothing": "yellow", "differs": "red", "incomplete": "yellow"}
_WHO = {Party.US: "we", Party.CUSTOMER: "the customer", Party.AWS: "AWS, or the network to it"}
_HOW_TO_ATTEST = (
    "write the public keys that signed our manifests into service.yaml (receipts.public_keys), then `list "
    "--adopt` again. What was never signed stays so: `verify` without --receipt proves it against the ledger"
)
_INDENT = 18
_SHOWN_LEFT = 20


class Report:
    """Told key by key; ``done`` or ``broken_off`` comes last and answers the exit code."""

    def __init__(self, out: TextIO, customer: Customer, scope: Scope, *, as_json: bool) -> None:
        self.repaired: Repaired | None = None
        self.why_nothing: str | None = None
        self.not_attested: Mapping[tuple[str, str, int], str] = {}
        """Deliveries (feed, period, revision) that no receipt is signed for, and why."""
        self.nothing_signed = False
        self._out = out
        self._customer = customer
        self._as_json = as_json
        self._first: dict[Flaw, Finding] = {}
        self._place = f"s3://{customer.destination.bucket}/{customer.destination.prefix}"
        self._document = JsonDocument(
            out,
            "findings",
            customer=customer.name,
            destination=self._place,
            feed=scope.feed,
            period=scope.period,
            since=scope.since,
            until=scope.until,
        )

    def finding(self, finding: Finding) -> None:
        self._first.setdefault(finding.flaw, finding)
        if self._as_json:
            self._document.row(self._row(finding))
            return
        word = style(f"{finding.flaw:<{_INDENT}}", fg=_COLOURS[finding.flaw], bold=True)
        click.echo(f"{word}{finding.known.key}", file=self._out)
        click.echo(words.wrapped(finding.message, _INDENT), file=self._out)

    def broken_off(self, verified: "Verified", error: XmodeError) -> int:
        """It ended early: nothing is said of the keys that were not looked at."""
        if not self._as_json:
            click.echo(f"broken off after {words.count(verified.keys, 'key')}", file=self._out)
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
            click.echo(f"receipt {signed.path}, signed with the key {signed.key_id}", file=self._out)
        return code

    # --- For programs -----------------------------------------------------------------------------------

    def _row(self, finding: Finding) -> dict[str, Any]:
        known = finding.known
        return {
            "key": known.key,
            "flaw": str(finding.flaw),
            "message": finding.message,
            "party": str(finding.party),
            "fix": self._fix(finding),
            "feed": known.feed,
            "period": known.period,
            "revision": known.revision,
            "source": known.name or None,
            "size": known.size,
        }

    def _counts(self, verified: "Verified") -> dict[str, Any]:
        return {
            "keys": verified.keys,
            "proven": verified.proven,
            "bytes": verified.proven_bytes,
            "proofs": {str(proof): count for proof, count in sorted(verified.proofs.items())},
            "rewritten": verified.rewritten,
            "acl_checked": verified.acl_checked,
            "flaws": {str(flaw): count for flaw, count in sorted(verified.flaws.items())},
            "foreign": verified.foreign,
            "superseded": verified.superseded,
        }

    def _fix(self, finding: Finding) -> str:
        return fix(finding.flaw, self._customer.name, self._customer.destination.bucket, finding.known.key)

    # --- For people -------------------------------------------------------------------------------------

    def _tell(self, verified: "Verified", seconds: float) -> None:
        for flaw, finding in self._first.items():
            count = words.count(verified.flaws[flaw], "key")
            click.echo(f"\n{style(str(flaw), fg=_COLOURS[flaw], bold=True)}: {count}", file=self._out)
            click.echo(words.wrapped(_WHO[flaw.party], 2, "who must act"), file=self._out)
            click.echo(words.wrapped(self._fix(finding), 2, "what to do"), file=self._out)
        if self._first:
            click.echo(file=self._out)
        how = ", ".join(f"{count:,} by {proof}" for proof, count in sorted(verified.proofs.items()))
        outcome = style(f"{verified.outcome:<12}", fg=_OUTCOMES[verified.outcome], bold=True)
        if not verified.keys:
            foreign = f"; {verified.foreign:,} foreign" if verified.foreign else ""
            told = f"{outcome}{self._place}: {self.why_nothing}{foreign}"
            click.echo(words.folded(told), file=self._out)
            return
        proven = f"{verified.proven:,} of {words.count(verified.keys, 'key')} as delivered"
        facts = [proven + (f" ({how})" if how else ""), words.size(verified.proven_bytes)]
        facts.append(f"{verified.acl_checked:,} ACLs looked at")
        if verified.rewritten:
            facts.append(f"{verified.rewritten:,} put again by somebody with the same bytes")
        if verified.superseded:
            facts.append(f"{verified.superseded:,} superseded: no manifest names them (`list` does)")
        if verified.foreign:
            facts.append(f"{verified.foreign:,} foreign")
        facts.append(words.duration(seconds))
        click.echo(words.folded(f"{outcome}{self._place}: {'; '.join(facts)}"), file=self._out)

    def _tell_not_attested(self, *, with_receipt: bool) -> None:
        """What was taken back from the bucket without a signature of ours."""
        doubtful = sorted(self.not_attested.items())
        for (feed, period, revision), why in doubtful[:_SHOWN_LEFT]:
            number = f" r{revision}" if revision > 1 else ""
            told = f"{feed} {period}{number}: {why}"
            click.echo(words.wrapped(told, 0, "not attested"), file=self._out)
        if len(doubtful) > _SHOWN_LEFT:
            click.echo(f"  and {len(doubtful) - _SHOWN_LEFT:,} more: see --json", file=self._out)
        if not doubtful or not with_receipt:
            return
        if self.nothing_signed:
            told = "no receipt was written: nothing of this is attested"
            click.echo(style(told, fg="red", bold=True), file=self._out)
            click.echo(words.wrapped(_HOW_TO_ATTEST, 2, "what to do"), file=self._out)
        else:
            click.echo("  the receipt leaves these deliveries out", file=self._out)

    def _tell_repaired(self, repaired: "Repaired") -> None:
        told = f"{words.count(repaired.sent, 'key')} delivered again, {words.size(repaired.bytes)}"
        if repaired.act_id is None:
            told = "nothing was missing"
        word = style(f"{'repair':<{_INDENT}}", fg="cyan", bold=True)
        click.echo(f"{word}{told}" + (f" (act {repaired.act_id})" if repaired.act_id else ""), file=self._out)
        for left in repaired.left[:_SHOWN_LEFT]:
            click.echo(f"  not repaired    {left.known.key}", file=self._out)
            click.echo(words.wrapped(f"{left.cause}: {left.message}", _INDENT), file=self._out)
        if len(repaired.left) > _SHOWN_LEFT:
            more = len(repaired.left) - _SHOWN_LEFT
            click.echo(f"  and {more:,} more: see --json", file=self._out)
        if repaired.failure is not None:
            click.echo(words.wrapped(repaired.failure.message, 2, "ended early"), file=self._out)
            if repaired.failure.hint:
                click.echo(words.wrapped(repaired.failure.hint, 2, "what to do"), file=self._out)


def _repair_document(repaired: "Repaired") -> dict[str, Any]:
    failure = repaired.failure
    return {
        "act": repaired.act_id,
        "outcome": repaired.outcome,
        "sent": repaired.sent,
        "bytes": repaired.bytes,
        "left": [
            {"key": left.known.key, "cause": left.cause, "message": left.message} for left in repaired.left
        ],
        "cause": failure.cause if failure else None,
        "party": failure.party if failure else None,
        "message": failure.message if failure else None,
        "hint": failure.hint if failure else None,
    }

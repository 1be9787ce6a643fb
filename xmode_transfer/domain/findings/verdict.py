"""Findings without a cause of the catalogue, and what many findings come to."""

from collections.abc import Iterable

from xmode_transfer.domain.errors import ExitCode, Party
from xmode_transfer.domain.findings.records import Cause, Finding, Result, Severity


def passed(probe: str, message: str, *, request_id: str | None = None) -> Finding:
    """A probe that found what it should."""
    return Finding(probe, Result.OK, Cause.OK, None, Severity.INFO, message, None, request_id)


def unknown(probe: str, seen: str) -> Finding:
    """A probe that found nothing wrong, and that cannot see everything; ``seen`` says what it did."""
    return Finding(probe, Result.UNKNOWN, None, None, Severity.INFO, seen)


def skipped(probe: str, why: str) -> Finding:
    """A probe that was not done."""
    return Finding(probe, Result.SKIPPED, None, None, Severity.INFO, why)


def unanswered(probe: str, message: str, party: Party, request_id: str | None = None) -> Finding:
    """A probe that AWS, the network or our own side gave no answer to: nothing is known, and it is worth
    trying again."""
    return Finding(probe, Result.SKIPPED, None, party, Severity.ERROR, message, None, request_id)


def exit_code(findings: Iterable[Finding]) -> int:
    """0 when all is well (notes and warnings allowed), 4 when the customer must act, 3 when only we or AWS
    must."""
    acting = {
        item.party for item in findings if item.severity in (Severity.ERROR, Severity.CRITICAL) and item.party
    }
    if Party.CUSTOMER in acting:
        return ExitCode.BLOCKED
    return ExitCode.WILL_RETRY if acting else ExitCode.DONE


def outcome(findings: Iterable[Finding]) -> str:
    """One word for the whole: ``ok``, ``blocked`` (the customer must act) or ``failed`` (we or AWS must)."""
    return {ExitCode.DONE: "ok", ExitCode.BLOCKED: "blocked"}.get(exit_code(findings), "failed")

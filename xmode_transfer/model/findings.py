"""The words of an access check: severities, results, findings and fixes, and the report of them."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, NamedTuple

from xmode_transfer.model.errors import ExitCode, Responsible

OK = "ok"
"""The cause of a probe that found what it should."""


class Severity(StrEnum):
    """How grave a finding is. From ``error`` on, somebody must act."""

    INFO = "info"  # good to know
    WARNING = "warning"  # deliveries work, with a limit or a risk that whoever is responsible should know
    ERROR = "error"  # something that the service needs and the guide grants does not work
    CRITICAL = "critical"  # somebody else could misuse the role, or nothing works at all


class Result(StrEnum):
    """How a probe ended."""

    OK = "ok"
    DENIED = "denied"  # refused, and it should not be
    UNEXPECTED = "unexpected"  # allowed, or so, and it should not be
    UNKNOWN = "unknown"  # nothing was found as far as can be seen, and that is not all; the message says it
    SKIPPED = "skipped"  # not tried, or without an answer; the message says why


@dataclass(frozen=True, slots=True)
class Fix:
    """How a finding is fixed, ready to mail. ``statement`` is the exact policy statement, ``command`` a line
    for the AWS CLI in the customer's account, ``guide_step`` where the setup guide treats of it."""

    summary: str
    statement: dict[str, Any] | None = None
    command: str | None = None
    guide_step: str | None = None


@dataclass(frozen=True, slots=True)
class Finding:
    """One probe's answer. ``responsible`` is None where no action is needed. ``cause`` is ``ok`` or one of
    ``access.catalogue.Cause``; None where a probe was not done, or AWS gave no answer to it. ``message`` is
    one plain sentence. ``request_id`` and ``said`` are AWS's: its words, with the request that they
    answer."""

    probe: str
    result: Result
    cause: str | None
    responsible: Responsible | None
    severity: Severity
    message: str
    fix: Fix | None = None
    request_id: str | None = None
    said: str = ""


# --- Findings without a cause of the catalogue, and what many come to


def passed(probe: str, message: str, *, request_id: str | None = None) -> Finding:
    """A probe that found what it should."""
    return Finding(probe, Result.OK, OK, None, Severity.INFO, message, None, request_id)


def unknown(probe: str, seen: str) -> Finding:
    """A probe that found nothing wrong, and that cannot see everything; ``seen`` says what it did."""
    return Finding(probe, Result.UNKNOWN, None, None, Severity.INFO, seen)


def skipped(probe: str, why: str) -> Finding:
    """A probe that was not done."""
    return Finding(probe, Result.SKIPPED, None, None, Severity.INFO, why)


def unanswered(probe: str, message: str, responsible: Responsible, request_id: str | None = None) -> Finding:
    """A probe that AWS, the network or our own side gave no answer to: nothing is known, and it is worth
    trying again."""
    return Finding(probe, Result.SKIPPED, None, responsible, Severity.ERROR, message, None, request_id)


def exit_code(findings: Iterable[Finding]) -> int:
    """0 when all is well (notes and warnings allowed), 4 when the customer must act, 3 when only we or AWS
    must."""
    acting = {
        item.responsible
        for item in findings
        if item.severity in (Severity.ERROR, Severity.CRITICAL) and item.responsible
    }
    if Responsible.CUSTOMER in acting:
        return ExitCode.BLOCKED
    return ExitCode.WILL_RETRY if acting else ExitCode.DONE


def outcome(findings: Iterable[Finding]) -> str:
    """One word for the whole: ``ok``, ``blocked`` (the customer must act) or ``failed`` (we or AWS must)."""
    return {ExitCode.DONE: "ok", ExitCode.BLOCKED: "blocked"}.get(exit_code(findings), "failed")


# --- One check of one customer


class LeftoverKind(StrEnum):
    """What a check may not take away again."""

    OBJECT = "object"  # the role may not delete it
    UPLOAD = "upload"  # a multipart upload that the role may not abort; the next check goes on with it
    VERSION = "version"  # the bucket keeps the version below a delete marker


class Leftover(NamedTuple):
    """Something of the check's that stays in the customer's bucket. ``bytes`` is what the customer stores for
    it; ``id`` the upload's or the version's."""

    kind: LeftoverKind
    key: str
    bytes: int
    id: str | None = None


class Change(NamedTuple):
    """A probe that ended otherwise than the last time."""

    probe: str
    before: str
    now: str


UNSAFE = frozenset({"external_id_not_required", "external_id_any_value"})
"""A role that somebody else could have us misuse."""
DISPROVED_BY_SENDING = frozenset(
    {
        "vendor_policy_denies_assume",
        "sts_region_disabled",
        "role_refused",
        "bucket_missing",
        "bucket_other_owner",
        "put_denied",
        "acl_refused",
        "kms_denied",
    }
)
"""With one of these no object is sent: a run that sends one later shows that the cause is gone."""


@dataclass(frozen=True, slots=True)
class AccessReport:
    """What one check found. ``interrupted`` when it was stopped before its last probe."""

    customer: str
    checked_at: datetime
    findings: tuple[Finding, ...]
    left: tuple[Leftover, ...] = ()
    seconds: float = 0.0
    interrupted: bool = False

    @property
    def unsafe(self) -> bool:
        """Whether the role could be assumed without its external ID."""
        return any(item.cause in UNSAFE for item in self.findings)

    @property
    def outcome(self) -> str:
        """``ok``, ``blocked`` (the customer must act), ``failed`` (we or AWS must) or ``interrupted``."""
        return "interrupted" if self.interrupted else outcome(self.findings)

    @property
    def exit_code(self) -> int:
        return ExitCode.INTERRUPTED if self.interrupted else exit_code(self.findings)

    @property
    def causes(self) -> tuple[str, ...]:
        """The causes that were found, each once, in order; without ``ok``."""
        named = (item.cause for item in self.findings)
        return tuple(dict.fromkeys(cause for cause in named if cause not in (None, OK)))


def changes(before: AccessReport, now: AccessReport) -> tuple[Change, ...]:
    """What is otherwise than in the check before. Probes that were not done, or not answered, in either of
    the two say nothing."""
    earlier = _answers(before)
    later = _answers(now)
    return tuple(
        Change(probe, earlier[probe], word)
        for probe, word in later.items()
        if probe in earlier and earlier[probe] != word
    )


def _answers(report: AccessReport) -> Mapping[str, str]:
    """Each probe's causes in one word, several joined in order; ``unknown`` where not all can be seen."""
    words: dict[str, list[str]] = {}
    for item in report.findings:
        if item.result is not Result.SKIPPED:
            words.setdefault(item.probe, []).append(item.cause or item.result)
    return {probe: " ".join(sorted(set(causes))) for probe, causes in words.items()}

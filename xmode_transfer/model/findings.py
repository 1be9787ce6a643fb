"""The findings of an access check, and the report of them."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, NamedTuple

from xmode_transfer.model.errors import ExitCode, Responsible

OK = "ok"  # the cause of a probe that found what it should


class Severity(StrEnum):
    """The severity of a finding. From ``error`` on, it has to be fixed."""

    INFO = "info"  # good to know
    WARNING = "warning"  # deliveries work, with a limit or a risk
    ERROR = "error"  # a permission that the guide grants and the service needs does not work
    CRITICAL = "critical"  # a third party could misuse the role, or nothing works


class Result(StrEnum):
    OK = "ok"
    DENIED = "denied"  # denied, but should be allowed
    UNEXPECTED = "unexpected"  # allowed, for instance, but should not be
    UNKNOWN = "unknown"  # nothing was found in the part that is visible; the message names the part
    SKIPPED = "skipped"  # not tried, or without a response; the message has the reason


@dataclass(frozen=True, slots=True)
class Fix:
    """``statement`` is a policy statement, ``command`` a line for the AWS CLI in the customer's account."""

    summary: str
    statement: dict[str, Any] | None = None
    command: str | None = None
    guide_step: str | None = None


@dataclass(frozen=True, slots=True)
class Finding:
    """One probe's answer. ``responsible`` is None where no action is needed. ``cause`` is ``ok`` or one of
    ``access.catalogue.Cause``; None without a response. ``request_id`` and ``said`` are AWS's own."""

    probe: str
    result: Result
    cause: str | None
    responsible: Responsible | None
    severity: Severity
    message: str
    fix: Fix | None = None
    request_id: str | None = None
    said: str = ""


def passed(probe: str, message: str, *, request_id: str | None = None) -> Finding:
    return Finding(probe, Result.OK, OK, None, Severity.INFO, message, None, request_id)


def unknown(probe: str, seen: str) -> Finding:
    """Return that a probe found nothing in the part that it can see; ``seen`` names it."""
    return Finding(probe, Result.UNKNOWN, None, None, Severity.INFO, seen)


def skipped(probe: str, why: str) -> Finding:
    return Finding(probe, Result.SKIPPED, None, None, Severity.INFO, why)


def unanswered(probe: str, message: str, responsible: Responsible, request_id: str | None = None) -> Finding:
    """Return that a probe had no response, which is worth a retry."""
    return Finding(probe, Result.SKIPPED, None, responsible, Severity.ERROR, message, None, request_id)


def exit_code(findings: Iterable[Finding]) -> int:
    """Return 4 if the customer is responsible for an error, 3 if only we or AWS are, 0 without errors."""
    acting = {
        item.responsible
        for item in findings
        if item.severity in (Severity.ERROR, Severity.CRITICAL) and item.responsible
    }
    if Responsible.CUSTOMER in acting:
        return ExitCode.BLOCKED
    return ExitCode.WILL_RETRY if acting else ExitCode.DONE


def outcome(findings: Iterable[Finding]) -> str:
    """Return ``ok``, ``blocked`` (the customer is responsible) or ``failed`` (we or AWS are)."""
    return {ExitCode.DONE: "ok", ExitCode.BLOCKED: "blocked"}.get(exit_code(findings), "failed")


class LeftoverKind(StrEnum):
    """Something that a check may not delete again."""

    OBJECT = "object"  # the role may not delete it
    UPLOAD = "upload"  # a multipart upload that the role may not abort; the next check reuses it
    VERSION = "version"  # the bucket keeps the version below a delete marker


class Leftover(NamedTuple):
    """Something of a check that stays in the bucket. ``id`` is that of the upload or the version."""

    kind: LeftoverKind
    key: str
    bytes: int
    id: str | None = None


class Change(NamedTuple):
    """A probe with another result than last time."""

    probe: str
    before: str
    now: str


UNSAFE = frozenset({"external_id_not_required", "external_id_any_value"})
# Causes with which no object can be sent. A later run that sends one disproves them.
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


CHALLENGE_VALID = timedelta(days=7)
CHALLENGE_TRIES = 3


class Proof(StrEnum):
    """The state of the proof that a bucket belongs to whoever signed up."""

    NONE = "none"  # no token was put into this bucket
    OPEN = "open"  # the token can be returned
    USED_UP = "used_up"  # too many wrong tokens
    EXPIRED = "expired"
    PROVEN = "proven"


@dataclass(frozen=True, slots=True)
class Challenge:
    """A question that only the owner of a bucket can answer: what does the object ``key`` contain? We keep
    the SHA-256 of the answer, in hex. ``tries`` counts wrong answers; ``person`` asked."""

    customer: str
    bucket: str
    key: str
    token_sha256: str
    challenged_at: datetime
    person: str
    tries: int = 0
    confirmed_at: datetime | None = None
    confirmed_by: str | None = None

    @property
    def expires_at(self) -> datetime:
        return self.challenged_at + CHALLENGE_VALID

    def proof(self, bucket: str, now: datetime) -> Proof:
        """``bucket`` is the customer's today."""
        if self.bucket != bucket:
            return Proof.NONE
        if self.confirmed_at is not None:
            return Proof.PROVEN
        if self.tries >= CHALLENGE_TRIES:
            return Proof.USED_UP
        return Proof.OPEN if now < self.expires_at else Proof.EXPIRED


@dataclass(frozen=True, slots=True)
class AccessReport:
    """``interrupted``: the check was stopped before its last probe."""

    customer: str
    checked_at: datetime
    findings: tuple[Finding, ...]
    left: tuple[Leftover, ...] = ()
    seconds: float = 0.0
    interrupted: bool = False

    @property
    def unsafe(self) -> bool:
        """True if the role could be assumed without its external ID."""
        return any(item.cause in UNSAFE for item in self.findings)

    @property
    def outcome(self) -> str:
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
    """Return the differences between two checks. Probes that were skipped in either do not count."""
    earlier, later = _answers(before), _answers(now)
    return tuple(
        Change(probe, earlier[probe], word)
        for probe, word in later.items()
        if probe in earlier and earlier[probe] != word
    )


def _answers(report: AccessReport) -> Mapping[str, str]:
    """Return each probe's causes, or ``unknown``, as one text."""
    words: dict[str, list[str]] = {}
    for item in report.findings:
        if item.result is not Result.SKIPPED:
            words.setdefault(item.probe, []).append(item.cause or item.result)
    return {probe: " ".join(sorted(set(causes))) for probe, causes in words.items()}

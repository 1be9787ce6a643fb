"""One check of one customer's access, as it is reported and remembered."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import NamedTuple

from xmode_transfer.domain.errors import ExitCode
from xmode_transfer.domain.findings.records import Cause, Finding, Result
from xmode_transfer.domain.findings.verdict import exit_code, outcome


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


UNSAFE = frozenset({Cause.EXTERNAL_ID_NOT_REQUIRED, Cause.EXTERNAL_ID_ANY_VALUE})
"""A role that somebody else could have us misuse."""
DISPROVED_BY_SENDING = frozenset(
    {
        Cause.VENDOR_POLICY_DENIES_ASSUME,
        Cause.STS_REGION_DISABLED,
        Cause.ROLE_REFUSED,
        Cause.BUCKET_MISSING,
        Cause.BUCKET_OTHER_OWNER,
        Cause.PUT_DENIED,
        Cause.ACL_REFUSED,
        Cause.KMS_DENIED,
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
        return any(finding.cause in UNSAFE for finding in self.findings)

    @property
    def outcome(self) -> str:
        """``ok``, ``blocked`` (the customer must act), ``failed`` (we or AWS must) or ``interrupted``."""
        return "interrupted" if self.interrupted else outcome(self.findings)

    @property
    def exit_code(self) -> int:
        return ExitCode.INTERRUPTED if self.interrupted else exit_code(self.findings)

    @property
    def causes(self) -> tuple[Cause, ...]:
        """The causes that were found, each once, in order; without ``ok``."""
        named = (item.cause for item in self.findings)
        return tuple(dict.fromkeys(cause for cause in named if cause not in (None, Cause.OK)))


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
            words.setdefault(item.probe, []).append(str(item.cause or item.result))
    return {probe: " ".join(sorted(set(causes))) for probe, causes in words.items()}

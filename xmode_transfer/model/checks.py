"""Checks before release: what was found in a period at the source, and a person's decision about it."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import NamedTuple


class Check(StrEnum):
    """A check, by its name in the configuration where it has one (docs/checks.md)."""

    EMPTY_PERIOD = "empty_period"  # complete, but without a file
    EMPTY_FILE = "empty_file"  # 0 bytes, although its format cannot be empty
    FORMAT = "format"  # its first or last bytes are not those of its format
    TRUNCATED = "truncated"  # a compressed file that ends too early (``deep``)
    MIN_FILES = "min_files"
    MIN_BYTES = "min_bytes"
    CHANGE_FILES = "change.files"
    CHANGE_BYTES = "change.bytes"
    SCHEMA = "parquet.schema"
    HEADER = "csv.header"


class FailedCheck(NamedTuple):
    """``message`` has both figures, found and expected. ``file`` is the source's name; empty for a check of
    the whole period."""

    check: Check
    message: str
    file: str = ""


class Verdict(StrEnum):
    SOUND = "sound"
    WARNED = "warned"  # a check failed, and the feed's configuration only warns
    QUARANTINED = "quarantined"  # a check failed: nothing is sent unless a person releases it


@dataclass(frozen=True, slots=True)
class Judgement:
    """The verdict on a period as it was at the source with that ``fingerprint``; it is the same for all
    customers. In a drop folder each file is judged, and ``name`` is the file's; otherwise it is empty.
    ``shape`` has the schema or header of its files by format, which the next period is compared with.
    ``rules`` is the digest of the feed's ``checks``: with others, it is judged anew."""

    feed: str
    period: str
    name: str
    fingerprint: str
    verdict: Verdict
    files: int
    bytes: int
    failed: tuple[FailedCheck, ...]
    judged_at: datetime
    shape: Mapping[str, str] = field(default_factory=dict)
    rules: str = ""


class Decision(StrEnum):
    RELEASED = "released"  # delivered as it is
    REJECTED = "rejected"  # never delivered as it is


@dataclass(frozen=True, slots=True)
class Release:
    """A person's decision on what is quarantined, with the checks that failed. It holds for that
    ``fingerprint`` only, for one ``customer`` or for all (empty)."""

    feed: str
    period: str
    name: str
    fingerprint: str
    customer: str
    decision: Decision
    person: str
    reason: str
    decided_at: datetime
    failed: tuple[FailedCheck, ...]


def next_step(feed: str, period: str) -> str:
    """Return what to do about what is quarantined."""
    return (
        "correct the source, which is then judged anew; or, if it is right as it is: `xmode-transfer release "
        f"--feed {feed} --period {period} --reason TEXT`"
    )


REJECTED = "rejected"  # the failure cause of a delivery that a person has rejected


def in_force(decisions: Iterable[Release], customer: str, fingerprint: str, name: str = "") -> Release | None:
    """Return the last decision, of those in the order of their times, that concerns a customer."""
    found = None
    for item in decisions:
        if item.customer in ("", customer) and (item.name, item.fingerprint) == (name, fingerprint):
            found = item
    return found

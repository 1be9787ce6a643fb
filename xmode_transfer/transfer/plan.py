"""Compare the source files with the ledger and decide what to do with each name, with the reason.

Both sides are sorted by name and joined in one pass, so memory does not grow with the number of files.
"""

from collections.abc import Iterable, Iterator
from enum import StrEnum
from operator import attrgetter
from typing import NamedTuple

from xmode_transfer.model.keys import merge_join
from xmode_transfer.model.records import PlannedObject, Receipt, SourceFile, SourceProblem


class Known(NamedTuple):
    """A name in the ledger. ``current``: it belongs to the revision that is being planned; ``before`` is then
    its last receipt in any revision, if there is one."""

    object: PlannedObject
    receipt: Receipt | None
    current: bool
    before: Receipt | None = None


class Kind(StrEnum):
    """The difference between a source name and the ledger."""

    NEW = "new"  # never planned
    PENDING = "pending"  # planned, not delivered, source as planned
    MOVED_ON = "moved_on"  # planned, not delivered, source changed since
    DELIVERED = "delivered"  # has a receipt, source as delivered
    CHANGED = "changed"  # has a receipt, source differs from what was delivered
    GONE = "gone"  # planned or delivered, no longer at the source
    PROBLEM = "problem"  # can never be delivered as it is


class Difference(NamedTuple):
    """A name at the source and in the ledger. ``known`` to ``before`` are as in ``Known``, and empty for a
    new name."""

    kind: Kind
    name: str
    known: PlannedObject | None = None
    receipt: Receipt | None = None
    current: bool = False
    before: Receipt | None = None
    file: SourceFile | None = None
    problem: SourceProblem | None = None


_UNKNOWN: tuple[PlannedObject | None, Receipt | None, bool, Receipt | None] = (None, None, False, None)


class Action(StrEnum):
    """What a plan does with a name."""

    UPLOAD = "upload"
    SKIP = "skip"
    CONFLICT = "conflict"


class PlanEntry(NamedTuple):
    """One line of a plan, as ``run --dry-run`` shows it. ``size`` in bytes."""

    action: Action
    name: str
    size: int
    key: str
    reason: str


def same_state(file: SourceFile, known: PlannedObject) -> bool:
    """Returns whether the file is as planned, by size and time. A restored backup has other inodes."""
    return file.size == known.size and file.modified_ns == known.modified_ns


def known_of(
    current: Iterable[tuple[PlannedObject, Receipt | None]],
    delivered: Iterable[tuple[PlannedObject, Receipt]],
) -> Iterator[Known]:
    """Merges both streams by name. The revision that is being planned takes precedence over others."""
    for one, other in merge_join(current, delivered, _planned_name, _planned_name):
        if one is not None:
            yield Known(one[0], one[1], True, other[1] if other is not None else None)
        elif other is not None:
            yield Known(other[0], other[1], False)


def diff(files: Iterable[SourceFile | SourceProblem], known: Iterable[Known]) -> Iterator[Difference]:
    """Joins both sides by name. Raises ValueError if a side is out of order."""
    last_left = last_right = ""
    for item, pair in merge_join(files, known, attrgetter("name"), _planned_name):
        if item is not None:
            name = last_left = _ascending(last_left, item.name, "source")
        if pair is not None:
            name = last_right = _ascending(last_right, pair.object.name, "ledger")
        planned, receipt, current, before = pair or _UNKNOWN
        if isinstance(item, SourceProblem):
            yield Difference(Kind.PROBLEM, name, planned, receipt, current, before, None, item)
            continue
        if planned is None:
            kind = Kind.NEW
        elif item is None:
            kind = Kind.GONE
        elif receipt is None:
            kind = Kind.PENDING if same_state(item, planned) else Kind.MOVED_ON
        else:
            kind = Kind.DELIVERED if same_state(item, planned) else Kind.CHANGED
        yield Difference(kind, name, planned, receipt, current, before, item)


def _planned_name(known: tuple[PlannedObject, *tuple[object, ...]]) -> str:
    return known[0].name


def _ascending(last: str, name: str, side: str) -> str:
    if last and name <= last:
        raise ValueError(f"the {side} is out of order: {name!r} after {last!r}")
    return name

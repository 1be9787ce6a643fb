"""What is to be done for a delivery: source files against what the ledger knows, each decision with its
reason.

Both sides come sorted by name and are walked once side by side, so a million files need no memory.
"""

from collections.abc import Iterable, Iterator
from enum import StrEnum
from typing import NamedTuple

from xmode_transfer.domain.records import PlannedObject, Receipt, SourceFile, SourceProblem


class Known(NamedTuple):
    """What the ledger knows of a name. ``current`` is true when it belongs to the revision that is being
    planned; then ``before`` is its last receipt in any revision, if there is one."""

    object: PlannedObject
    receipt: Receipt | None
    current: bool
    before: Receipt | None = None


class Kind(StrEnum):
    """How a source name stands to what the ledger knows of it."""

    NEW = "new"  # never planned
    PENDING = "pending"  # planned, not delivered, source as planned
    MOVED_ON = "moved_on"  # planned, not delivered, source changed since
    DELIVERED = "delivered"  # has a receipt, source as delivered
    CHANGED = "changed"  # has a receipt, source differs from what was delivered
    GONE = "gone"  # planned or delivered, no longer at the source
    PROBLEM = "problem"  # can never be delivered as it is


class Difference(NamedTuple):
    """One name, side by side. ``file`` is None when gone, ``known`` when new, ``problem`` set for a
    problem."""

    kind: Kind
    name: str
    file: SourceFile | None = None
    known: PlannedObject | None = None
    receipt: Receipt | None = None
    problem: SourceProblem | None = None
    current: bool = False
    before: Receipt | None = None


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
    """Whether the file is what was planned: by size and time. Its inode is left out, since a restored backup
    has others."""
    return file.size == known.size and file.modified_ns == known.modified_ns


def known_of(
    current: Iterable[tuple[PlannedObject, Receipt | None]],
    delivered: Iterable[tuple[PlannedObject, Receipt]],
) -> Iterator[Known]:
    """Both of the ledger's streams as one, in the order of names: the revision that is being planned goes
    before what was delivered in others."""
    ours, others = iter(current), iter(delivered)
    one, other = next(ours, None), next(others, None)
    while one is not None or other is not None:
        if one is not None and (other is None or one[0].name <= other[0].name):
            before = None
            if other is not None and other[0].name == one[0].name:
                before = other[1]
                other = next(others, None)
            yield Known(one[0], one[1], True, before)
            one = next(ours, None)
        else:
            assert other is not None
            yield Known(other[0], other[1], False)
            other = next(others, None)


def diff(files: Iterable[SourceFile | SourceProblem], known: Iterable[Known]) -> Iterator[Difference]:
    """Walks both sides in the order of names. Raises ValueError when a side is out of order: a wrong plan is
    worse than none."""
    left, right = iter(files), iter(known)
    item, pair = next(left, None), next(right, None)
    last_left = last_right = ""
    while item is not None or pair is not None:
        if pair is None or (item is not None and item.name < pair.object.name):
            assert item is not None
            last_left = _ascending(last_left, item.name, "source")
            if isinstance(item, SourceProblem):
                yield Difference(Kind.PROBLEM, item.name, problem=item)
            else:
                yield Difference(Kind.NEW, item.name, item)
            item = next(left, None)
        elif item is None or pair.object.name < item.name:
            last_right = _ascending(last_right, pair.object.name, "ledger")
            yield Difference(Kind.GONE, *_side(pair))
            pair = next(right, None)
        else:
            last_left = _ascending(last_left, item.name, "source")
            last_right = _ascending(last_right, pair.object.name, "ledger")
            name, _, planned, receipt, _, current, before = _side(pair)
            if isinstance(item, SourceProblem):
                yield Difference(Kind.PROBLEM, name, None, planned, receipt, item, current, before)
            else:
                same = same_state(item, planned)
                if receipt is None:
                    kind = Kind.PENDING if same else Kind.MOVED_ON
                else:
                    kind = Kind.DELIVERED if same else Kind.CHANGED
                yield Difference(kind, name, item, planned, receipt, None, current, before)
            item, pair = next(left, None), next(right, None)


def _side(
    known: Known,
) -> tuple[str, None, PlannedObject, Receipt | None, None, bool, Receipt | None]:
    return known.object.name, None, known.object, known.receipt, None, known.current, known.before


def _ascending(last: str, name: str, side: str) -> str:
    if last and name <= last:
        raise ValueError(f"the {side} is out of order: {name!r} after {last!r}")
    return name

"""Compare the source files with the ledger in one pass: memory does not grow with the number of files."""

import hashlib
from collections.abc import Iterable, Iterator
from enum import StrEnum
from operator import attrgetter
from typing import NamedTuple

from xmode_transfer.model.keys import merge_join
from xmode_transfer.model.records import PlannedObject, Receipt, SourceFile, SourceProblem


class ScanTotals:
    """What a walk of the source saw of a period: its totals, and the fingerprint of its files in order."""

    def __init__(self, files: Iterable[SourceFile | SourceProblem] = ()) -> None:
        self.files = self.bytes = self.problems = 0
        self._sha256 = hashlib.sha256()
        for _ in self.seen(files):
            pass

    def seen(self, files: Iterable[SourceFile | SourceProblem]) -> Iterator[SourceFile | SourceProblem]:
        for file in files:
            if isinstance(file, SourceFile):
                self.files += 1
                self.bytes += file.size
                text = f"{file.name}\0{file.size}\0{file.modified_ns}\0{file.identity}\0"
            else:
                self.problems += 1
                text = f"{file.name}\0{file.code}\0"
            self._sha256.update(text.encode("utf-8", "surrogateescape"))
            yield file

    @property
    def fingerprint(self) -> str:
        return self._sha256.hexdigest()


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
    """``current``: the revision that is being planned has the name; ``before`` is then its last receipt in
    any other revision."""

    kind: Kind
    name: str
    known: PlannedObject | None = None
    receipt: Receipt | None = None
    current: bool = False
    before: Receipt | None = None
    file: SourceFile | None = None
    problem: SourceProblem | None = None


class Action(StrEnum):
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
    """Return whether the file is as planned, by size and time. A restored backup has other inodes."""
    return file.size == known.size and file.modified_ns == known.modified_ns


def diff(
    files: Iterable[SourceFile | SourceProblem],
    current: Iterable[tuple[PlannedObject, Receipt | None]],
    delivered: Iterable[tuple[PlannedObject, Receipt]],
) -> Iterator[Difference]:
    """Joins the source with the revision that is being planned, which takes precedence, and with what was
    delivered before. Raises ValueError if a side is out of order."""
    known = merge_join(current, delivered, lambda item: item[0].name, lambda item: item[0].name)
    last_left = last_right = ""
    for item, pair in merge_join(files, known, attrgetter("name"), _known_name):
        own, other = pair or (None, None)
        planned, receipt = own or other or (None, None)
        before = other[1] if own is not None and other is not None else None
        if item is not None:
            name = last_left = _ascending(last_left, item.name, "source")
        if planned is not None:
            name = last_right = _ascending(last_right, planned.name, "ledger")
        is_current = own is not None
        if isinstance(item, SourceProblem):
            yield Difference(Kind.PROBLEM, name, planned, receipt, is_current, before, None, item)
            continue
        if planned is None:
            kind = Kind.NEW
        elif item is None:
            kind = Kind.GONE
        elif receipt is None:
            kind = Kind.PENDING if same_state(item, planned) else Kind.MOVED_ON
        else:
            kind = Kind.DELIVERED if same_state(item, planned) else Kind.CHANGED
        yield Difference(kind, name, planned, receipt, is_current, before, item)


def _known_name(
    pair: tuple[tuple[PlannedObject, Receipt | None] | None, tuple[PlannedObject, Receipt] | None],
) -> str:
    known = pair[0] or pair[1]
    assert known is not None
    return known[0].name


def _ascending(last: str, name: str, side: str) -> str:
    if last and name <= last:
        raise ValueError(f"the {side} is out of order: {name!r} after {last!r}")
    return name

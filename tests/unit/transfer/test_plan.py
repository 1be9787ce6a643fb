"""The diff between source and ledger."""

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xmode_transfer.model.records import Checksum, PlannedObject, Receipt, SourceFile, SourceProblem
from xmode_transfer.transfer.plan import Kind, diff

AT = datetime(2026, 11, 22, tzinfo=UTC)


def file(name: str, size: int = 1, modified: int = 1) -> SourceFile:
    return SourceFile(name, size, modified, "inode")


def planned(name: str, size: int = 1, modified: int = 1) -> PlannedObject:
    return PlannedObject(name, f"p/{name}", size, modified, "other inode")


def receipt(name: str) -> Receipt:
    return Receipt(name, f"p/{name}", 1, Checksum("crc32", "AAAAAA=="), '"e"', AT)


@pytest.mark.parametrize(
    ("left", "right", "kind"),
    [
        (file("a"), None, Kind.NEW),
        (SourceProblem("a", "unreadable", "why"), None, Kind.PROBLEM),
        (SourceProblem("a", "unreadable", "why"), (planned("a"), receipt("a")), Kind.PROBLEM),
        (None, (planned("a"), None), Kind.GONE),
        (None, (planned("a"), receipt("a")), Kind.GONE),
        (file("a"), (planned("a"), None), Kind.PENDING),
        (file("a", size=2), (planned("a"), None), Kind.MOVED_ON),
        (file("a", modified=2), (planned("a"), None), Kind.MOVED_ON),
        (file("a"), (planned("a"), receipt("a")), Kind.DELIVERED),
        (file("a", size=2), (planned("a"), receipt("a")), Kind.CHANGED),
        (file("a", modified=0), (planned("a"), receipt("a")), Kind.CHANGED),
    ],
)
def test_the_difference_of_a_name(
    left: SourceFile | SourceProblem | None, right: tuple[PlannedObject, Receipt | None] | None, kind: Kind
) -> None:
    (difference,) = diff([left] if left else [], [right] if right else [], [])
    assert (difference.kind, difference.name) == (kind, "a")


names = st.lists(st.text(min_size=1, max_size=4), unique=True).map(sorted)


@given(names, names, names)
def test_every_name_comes_once_in_order_and_as_set_logic_says(
    at_source: list[str], in_plan: list[str], before: list[str]
) -> None:
    current = [(planned(n), None) for n in in_plan]
    delivered = [(planned(n), receipt(n)) for n in before]
    found = {d.name: d.kind for d in diff(map(file, at_source), current, delivered)}
    assert list(found) == sorted({*at_source, *in_plan, *before})
    for name, kind in found.items():
        if name not in at_source:
            assert kind is Kind.GONE
        elif name in in_plan:
            assert kind is Kind.PENDING  # the revision at hand goes before what others delivered
        else:
            assert kind is (Kind.DELIVERED if name in before else Kind.NEW)


def test_a_side_out_of_order_is_refused() -> None:
    with pytest.raises(ValueError, match="the source is out of order"):
        list(diff([file("b"), file("a")], [], []))
    with pytest.raises(ValueError, match="the ledger is out of order"):
        list(diff([], [(planned("b"), None), (planned("a"), None)], []))

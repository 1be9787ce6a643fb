import pytest

from tests.fakes import MemorySource
from xmode_transfer.model.errors import SourceChanged, SourceMissing, SourceUnreadable
from xmode_transfer.model.periods import Period, PeriodKind
from xmode_transfer.model.records import SourceProblem

DAY = Period.parse("2026-11-22", PeriodKind.DAY)
NEXT = Period.parse("2026-11-23", PeriodKind.DAY)


def scanned(source, name="a", period=None):
    return next(file for file in source.scan(period or Period.none()) if file.name == name)


def test_scan_is_in_code_point_order_with_problems_in_their_place():
    source = MemorySource(dict.fromkeys(["b", "😀", "～", "a/1", "a"], b"x"))
    source.add_problem("aa", "key_invalid", "no key can be made of it")
    assert [found.name for found in source.scan(Period.none())] == ["a", "a/1", "aa", "b", "～", "😀"]
    assert isinstance(list(source.scan(Period.none()))[2], SourceProblem)


def test_files_belong_to_their_periods():
    source = MemorySource({"1": b"x"}, period=DAY)
    source.write("2", b"yy", period=NEXT)
    assert [state.period for state in source.periods()] == [DAY, NEXT]
    assert [file.name for file in source.scan(DAY)] == ["1"]
    assert [file.size for file in source.scan(NEXT)] == [2]
    assert source.state(Period.none()) is None


def test_a_period_is_complete_until_told_otherwise():
    source = MemorySource({"1": b"x"}, period=DAY)
    assert source.state(DAY).complete
    source.set_state(DAY, complete=False, reason="no marker yet")
    source.set_state(NEXT, complete=True, marker="m1")
    assert (source.state(DAY).complete, source.state(DAY).reason) == (False, "no marker yet")
    assert [(state.period, state.marker) for state in source.periods()] == [(DAY, ""), (NEXT, "m1")]


def test_a_root_that_is_not_there():
    source = MemorySource({"a": b"x"})
    source.missing = True
    for use in (lambda: list(source.periods()), lambda: list(source.scan(Period.none()))):
        with pytest.raises(SourceMissing):
            use()


@pytest.mark.parametrize("change", ["write", "overwrite", "touch", "remove"])
def test_what_changed_since_the_scan_is_not_opened(change):
    source = MemorySource({"a": b"data"})
    file = scanned(source)
    if change in ("write", "overwrite"):
        getattr(source, change)("a", b"data")
    else:
        getattr(source, change)("a")
    with pytest.raises(SourceChanged):
        source.open(file)


def test_a_replaced_file_has_a_new_identity_and_an_overwritten_one_keeps_it():
    source = MemorySource({"a": b"data"})
    first = scanned(source)
    source.overwrite("a", b"DATA")
    second = scanned(source)
    source.write("a", b"DATA")
    third = scanned(source)
    assert first.identity == second.identity != third.identity
    assert first.modified_ns < second.modified_ns < third.modified_ns


def test_an_open_file_is_the_one_that_was_opened():
    source = MemorySource({"a": b"data"})
    with source.open(scanned(source)) as body:
        source.write("a", b"other")
        assert body.read_at(0, 4) == b"data"
        with pytest.raises(SourceChanged):
            body.check_unchanged()


def test_an_open_file_shows_what_is_written_into_it():
    source = MemorySource({"a": b"data"})
    with source.open(scanned(source)) as body:
        body.check_unchanged()
        source.overwrite("a", b"DA")
        assert body.read_at(0, 2) == b"DA"
        with pytest.raises(SourceChanged, match="shorter"):
            body.read_at(0, 4)
        buffer = bytearray(b"....")
        assert body.read_into(memoryview(buffer), 1) == 1
        assert buffer == b"A..."
        with pytest.raises(SourceChanged):
            body.check_unchanged()


def test_a_file_may_change_between_two_reads():
    source = MemorySource({"a": b"data"})
    reads = []

    def change(name, offset):
        reads.append((name, offset))
        if offset == 2:
            source.remove("a")

    source.on_read = change
    with source.open(scanned(source)) as body:
        assert body.read_at(0, 2) + body.read_at(2, 2) == b"data"
        with pytest.raises(SourceChanged):
            body.check_unchanged()
    assert reads == [("a", 0), ("a", 2)]


def test_a_closed_file_cannot_be_read():
    source = MemorySource({"a": b"data"})
    body = source.open(scanned(source))
    body.close()
    body.close()
    with pytest.raises(ValueError, match="closed"):
        body.read_at(0, 1)


def test_an_unreadable_file_is_listed_and_not_opened():
    source = MemorySource({"a": b"data"})
    source.make_unreadable("a")
    with pytest.raises(SourceUnreadable):
        source.open(scanned(source))


def test_a_file_that_vanishes_during_the_scan_is_left_out():
    source = MemorySource({"a": b"1", "b": b"2", "c": b"3"})
    scan = source.scan(Period.none())
    assert next(scan).name == "a"
    source.remove("b")
    assert [file.name for file in scan] == ["c"]

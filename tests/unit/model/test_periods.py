"""Periods, their labels, and the partitions that name them."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xmode_transfer.model.periods import (
    Partition,
    Period,
    PeriodKind,
    check_range,
    look_back_start,
    period_labelled,
)

TEMPLATES = {
    PeriodKind.HOUR: ["%Y/%m/%d/%H", "dt=%Y-%m-%d/h=%H", "%Y%m%d%H", "%Y/%j/%H"],
    PeriodKind.DAY: ["%Y/%m/%d", "dt=%Y-%m-%d", "%Y%m%d", "%Y/%j"],
    PeriodKind.WEEK: ["%G/W%V", "%G-%V"],
    PeriodKind.MONTH: ["%Y/%m", "month=%Y-%m"],
}
KINDS = [kind for kind in PeriodKind if kind is not PeriodKind.NONE]


def period_of(moment: datetime, kind: PeriodKind) -> Period:
    if kind is PeriodKind.WEEK:
        moment -= timedelta(days=moment.weekday())
    if kind is PeriodKind.MONTH:
        moment = moment.replace(day=1)
    hour = moment.hour if kind is PeriodKind.HOUR else 0
    return Period(moment.replace(hour=hour, minute=0, second=0, microsecond=0), kind)


moments = st.datetimes(datetime(1990, 1, 1), datetime(2090, 12, 31))  # noqa: DTZ001 - a path has no zone


@given(moments, st.sampled_from(KINDS), st.data())
def test_label_and_path_lead_back_to_the_period(
    moment: datetime, kind: PeriodKind, data: st.DataObject
) -> None:
    period = period_of(moment, kind)
    assert Period.parse(period.label, kind) == period
    template = data.draw(st.sampled_from(TEMPLATES[kind]))
    partition = Partition.parse(template, kind)
    assert partition.period(partition.path(period)) == period
    for depth, segment in enumerate(partition.path(period).split("/")):
        assert partition.segment_matches(depth, segment)


@given(moments, moments, st.sampled_from(KINDS))
def test_labels_sort_as_periods_do(one: datetime, other: datetime, kind: PeriodKind) -> None:
    a, b = period_of(one, kind), period_of(other, kind)
    assert (a < b) == (a.label < b.label)


@pytest.mark.parametrize(
    ("label", "kind", "word"),
    [
        ("2026-11-31", PeriodKind.DAY, "write it like 2026-11-22"),
        ("2026-1-2", PeriodKind.DAY, "did you mean 2026-01-02"),
        ("yesterday", PeriodKind.HOUR, "write it like 2026-11-22T05"),
        ("2026-W60", PeriodKind.WEEK, "write it like 2026-W47"),
        ("2026-11-22", PeriodKind.NONE, "leave --period out"),
    ],
)
def test_a_wrong_label_says_how_to_write_it(label: str, kind: PeriodKind, word: str) -> None:
    with pytest.raises(ValueError, match=word):
        Period.parse(label, kind)


@pytest.mark.parametrize(
    ("template", "kind", "word"),
    [
        ("%Y/%m", PeriodKind.DAY, "needs exactly"),
        ("%Y/%m/%d/%H", PeriodKind.DAY, "needs exactly"),
        ("/%Y/%m/%d", PeriodKind.DAY, "relative path"),
        ("%Y/../%m/%d", PeriodKind.DAY, "not allowed"),
        ("%Y/%B/%d", PeriodKind.DAY, "%B is not known"),
        ("%Y", PeriodKind.NONE, "has no partition"),
        ("%Y/%Y/%m/%d", PeriodKind.DAY, "only once"),
        ("%Y/%V", PeriodKind.WEEK, "%G %V"),
    ],
)
def test_a_partition_that_cannot_name_periods_is_refused(template: str, kind: PeriodKind, word: str) -> None:
    with pytest.raises(ValueError, match=word):
        Partition.parse(template, kind)


@pytest.mark.parametrize("path", ["2026/02/30", "2026/2/3", "2026/02/03/04", "latest", "", "２０２６/02/03"])
def test_a_directory_that_is_no_period_is_none(path: str) -> None:
    assert Partition.parse("%Y/%m/%d", PeriodKind.DAY).period(path) is None


@pytest.mark.parametrize(
    ("kind", "count", "start"),
    [
        (PeriodKind.HOUR, 3, "2026-03-01T09"),
        (PeriodKind.DAY, 31, "2026-01-29T00"),
        (PeriodKind.WEEK, 1, "2026-02-22T00"),
        (PeriodKind.MONTH, 14, "2025-01-01T00"),
    ],
)
def test_the_look_back_window(kind: PeriodKind, count: int, start: str) -> None:
    now = datetime(2026, 3, 1, 12, 34, tzinfo=UTC)
    assert look_back_start(kind, count, now).strftime("%Y-%m-%dT%H") == start


@pytest.mark.parametrize(
    ("label", "end"),
    [
        ("2026-11-22T23", datetime(2026, 11, 23)),  # noqa: DTZ001 - a period has no zone
        ("2026-02-28", datetime(2026, 3, 1)),  # noqa: DTZ001
        ("2026-W53", datetime(2027, 1, 4)),  # noqa: DTZ001
        ("2026-12", datetime(2027, 1, 1)),  # noqa: DTZ001
    ],
)
def test_a_label_tells_its_period_without_a_feed(label: str, end: datetime) -> None:
    period = period_labelled(label)
    assert period is not None
    assert (period.label, period.end) == (label, end)


def test_what_is_no_label_tells_no_period() -> None:
    assert period_labelled("none") == Period.none()
    assert [period_labelled(label) for label in ("", "2026", "2026-13", "2026-11-31", "yesterday")] == [
        None
    ] * 5


@pytest.mark.parametrize(
    ("since", "until"),
    [
        ("2026-11-22", "2026-11-21"),
        ("2026-11", "2026-10"),
        ("2026-W02", "2025-W52"),
        ("2026-11-22T05", "2026-11-22T04"),
    ],
)
def test_a_range_the_wrong_way_round_is_refused(since: str, until: str) -> None:
    with pytest.raises(ValueError, match=f"--since {since} comes after --until {until}.*swap the two"):
        check_range(since, until)
    check_range(until, since)
    check_range(since, since)


@pytest.mark.parametrize(
    ("since", "until"), [(None, "2026-11-21"), ("2026-11-22", None), ("2026-11-22", "2026-W02")]
)
def test_a_range_of_which_nothing_is_known_is_left_to_the_feed(since: str | None, until: str | None) -> None:
    check_range(since, until)


@pytest.mark.parametrize(
    ("template", "path", "is_before"),
    [
        ("%Y/%m/%d", "2025", True),
        ("%Y/%m/%d", "2026", False),
        ("%Y/%m/%d", "2026/10", True),
        ("%Y/%m/%d", "2026/11", False),
        ("%Y/%m/%d", "2026/11/21", True),
        ("%Y/%m/%d", "2026/11/22", False),
        ("%Y/%m/%d", "2027", False),
        ("%d/%m/%Y", "21", False),  # days of any month
        ("%d/%m/%Y", "21/11/2026", True),
        ("full/%Y%m%d", "full", False),
    ],
)
def test_what_lies_before_a_time_is_told_by_its_path(template: str, path: str, is_before: bool) -> None:
    start = datetime(2026, 11, 22)  # noqa: DTZ001 - a period has no zone
    assert Partition(template, PeriodKind.DAY).is_before(path, start) is is_before

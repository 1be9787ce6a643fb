from collections.abc import Callable
from datetime import datetime
from typing import Any

import pytest

from tests.fakes import MemoryClock
from xmode_transfer.model.periods import Period, PeriodKind
from xmode_transfer.model.records import SourceProblem
from xmode_transfer.sources.s3 import S3Source

NONE = Period.none()
DAY = Period.parse("2026-11-22", PeriodKind.DAY)
BY_DAY = {"period": "day", "partition": "%Y/%m/%d"}
MARKED = {**BY_DAY, "complete": {"marker": "_SUCCESS"}}


def labels(source: S3Source, since: datetime | None = None) -> list[str]:
    return [state.period.label for state in source.periods(since)]


def names(source: S3Source, period: Period = NONE) -> list[str]:
    return [found.name for found in source.scan(period)]


def test_only_what_names_a_period_is_one(bucket: Any) -> None:
    bucket.put(
        "in/2026/11/22/a",
        "in/2026/11/03/x/a",
        "in/2025/12/31/a",
        "in/2026/11/9/a",
        "in/2026/11/31/a",
        "in/2026/11/21",
        "in/latest/11/22/a",
        "2024/01/01/a",
        "into/2024/01/02/a",
    )
    assert labels(bucket.source(**MARKED)) == ["2025-12-31", "2026-11-03", "2026-11-22"]


def test_periods_whose_names_do_not_sort_as_their_times_still_come_oldest_first(bucket: Any) -> None:
    bucket.put("in/22/11/2026/a", "in/01/12/2026/a", "in/31/12/2025/a")
    source = bucket.source(period="day", partition="%d/%m/%Y")
    assert labels(source) == ["2025-12-31", "2026-11-22", "2026-12-01"]
    assert labels(source, datetime(2026, 12, 1)) == [  # noqa: DTZ001 - a period has no zone
        "2025-12-31",
        "2026-11-22",
        "2026-12-01",
    ]


def test_a_bucket_may_be_a_feed_as_a_whole(bucket: Any) -> None:
    bucket.put("2026/11/22/a")
    assert labels(bucket.source("", **MARKED)) == ["2026-11-22"]
    assert names(bucket.source("", **MARKED), DAY) == ["2026/11/22/a"]


def test_years_before_the_window_cost_no_requests(bucket: Any) -> None:
    bucket.put(*(f"in/{year}/{month:02}/01/a" for year in (2024, 2025) for month in range(1, 13)))
    bucket.put("in/2026/10/31/a", "in/2026/11/01/a", "in/2026/11/22/a", "in/2026/11/22/_SUCCESS")
    source = bucket.source(**MARKED)
    bucket.asked.clear()
    states = list(source.periods(datetime(2026, 11, 20)))  # noqa: DTZ001 - a period has no zone
    assert [(state.period.label, state.complete) for state in states] == [
        ("2026-11-01", False),
        ("2026-11-22", True),
    ]
    assert states[0].reason == "not scanned: it is older than the requested periods"
    assert len(bucket.asked) == 4  # years, months of 2026, days of November, one marker


def test_a_marker(bucket: Any) -> None:
    bucket.put("in/2026/11/22/a", "in/2026/11/22/_SUCCESS_OF_A_STEP", "in/2026/11/22/x/_SUCCESS")
    source = bucket.source(**MARKED)
    state = source.state(DAY)
    assert (state.complete, state.reason, state.marker) == (False, "no _SUCCESS yet", "")
    bucket.put("in/2026/11/22/_SUCCESS", data=b"1")
    first = source.state(DAY)
    assert (first.complete, first.reason) == (True, "_SUCCESS is there")
    bucket.put("in/2026/11/22/_SUCCESS", data=b"2")
    assert source.state(DAY).marker not in ("", first.marker)
    assert names(source, DAY) == [
        "2026/11/22/_SUCCESS_OF_A_STEP",
        "2026/11/22/a",
        "2026/11/22/x/_SUCCESS",
    ]


@pytest.mark.parametrize(
    ("keys", "seconds_later", "complete", "reason"),
    [
        (["a.csv"], 0, True, "nothing has changed for "),
        (["a.csv"], -7000, False, "newest file changed "),
        (["a.txt"], 0, False, "no file yet that the feed includes"),
        (["x/"], 0, False, "no file yet"),
        (["_temporary/a.csv"], 0, False, "no file yet"),
    ],
)
def test_a_period_settles(
    bucket: Any,
    clock: MemoryClock,
    keys: list[str],
    seconds_later: int,
    complete: bool,
    reason: str,
) -> None:
    bucket.put(*(f"in/2026/11/22/{key}" for key in keys))
    clock.set(datetime.fromtimestamp(clock.now().timestamp() + seconds_later, clock.now().tzinfo))
    source = bucket.source(
        **BY_DAY, complete={"settle_seconds": 600}, include=["*.csv"], exclude=["_temporary"]
    )
    (state,) = source.periods()
    assert state.complete is complete
    assert state.reason.startswith(reason)
    assert state.marker == ""


def test_a_drop_folder_waits_for_its_newest_files_alone(bucket: Any, clock: MemoryClock) -> None:
    source = bucket.source(complete={"settle_seconds": 60}, include=["*.csv"])
    (state,) = source.periods()
    assert (state.complete, state.reason) == (False, "no file yet")
    bucket.put("in/a.txt")
    assert source.state(NONE).reason == "no file yet that the feed includes"
    bucket.put("in/x/a.csv")
    assert source.state(NONE).complete
    assert names(source) == ["x/a.csv"]
    clock.set(datetime.fromtimestamp(clock.now().timestamp() - 7200, clock.now().tzinfo))
    state = source.state(NONE)
    assert not state.complete
    assert "nearest to complete" in state.reason
    assert names(source) == []
    clock.set(datetime.fromtimestamp(clock.now().timestamp() - 2 * 86_400, clock.now().tzinfo))
    assert source.state(NONE).complete
    assert [(found.name, found.code) for found in source.scan(NONE)] == [("x/a.csv", "dated_ahead")]


def test_an_illegal_key_is_reported(bucket: Any) -> None:
    bucket.put("in/a\tb", "in/a b", "in/delete\x7f", "in/fine é")
    found = list(bucket.source().scan(NONE))
    assert [item.name for item in found] == ["a\tb", "a b", "delete\x7f", "fine é"]
    told = [(item.name, item.code) for item in found if isinstance(item, SourceProblem)]
    assert told == [("a\tb", "name_control_character"), ("delete\x7f", "name_control_character")]


def test_a_listing_goes_on_over_pages(bucket: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = sorted(f"{number:03}" for number in range(25))
    bucket.put(*(f"in/{name}" for name in expected))

    def small_pages(params: dict[str, Any], **_: Any) -> dict[str, Any]:
        return {**params, "MaxKeys": 10}

    bucket.client.meta.events.register("provide-client-params.s3.ListObjectsV2", small_pages)
    bucket.asked.clear()
    assert names(bucket.source()) == expected
    assert len([name for name, _ in bucket.asked if name == "ListObjectsV2"]) == 3


def test_only_the_listing_right_is_used_until_a_file_is_opened(
    bucket: Any, source_of: Callable[..., S3Source]
) -> None:
    bucket.put("in/2026/11/22/a", "in/2026/11/22/_SUCCESS")
    source = bucket.source(**MARKED)
    bucket.asked.clear()
    list(source.periods())
    list(source.scan(DAY))
    assert {name for name, _ in bucket.asked} == {"ListObjectsV2"}

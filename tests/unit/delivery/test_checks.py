"""The decisions: both sides of each limit, with 30 spoilt periods and 20 sound ones."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xmode_transfer.config import Checks
from xmode_transfer.delivery import checks
from xmode_transfer.delivery.checks import Failures, Shapes, Totals, of_period, of_same_kind, summary, verdict
from xmode_transfer.model.checks import Check, FailedCheck, Verdict
from xmode_transfer.model.periods import Period, PeriodKind

USUAL = [(f"2026-11-{day:02}", 100, 1_000_000) for day in range(1, 15)]
CHANGE = {"change": {"files": "30%", "bytes": "50%"}}
ODD = [("2026-11-02", 10, 10), ("2026-11-03", 11, 11), ("2026-11-04", 500, 500), ("2026-11-05", 13, 13)]


def failures(
    rules: dict[str, Any], totals: Totals, history: list[tuple[str, int, int]], *, had_files: bool = True
) -> list[FailedCheck]:
    return list(of_period(Checks.model_validate(rules), totals, history, had_files=had_files))


SPOILT: list[tuple[dict[str, Any], Totals, list[tuple[str, int, int]], set[Check]]] = [
    ({}, Totals(0, 0), [], {Check.EMPTY_PERIOD}),
    ({}, Totals(0, 0), USUAL, {Check.EMPTY_PERIOD}),
    ({"min_files": 10, **CHANGE}, Totals(0, 0), USUAL, {Check.EMPTY_PERIOD}),
    ({"empty_period": "quarantine"}, Totals(0, 0), [], {Check.EMPTY_PERIOD}),
    ({"min_files": 10}, Totals(9, 1), [], {Check.MIN_FILES}),
    ({"min_files": 10}, Totals(1, 10**12), USUAL, {Check.MIN_FILES}),
    ({"min_files": 1}, Totals(0, 0, problems=2), [], {Check.MIN_FILES}),
    ({"min_bytes": "1GB"}, Totals(1, 999_999_999), [], {Check.MIN_BYTES}),
    ({"min_bytes": 1}, Totals(3, 0), [], {Check.MIN_BYTES}),
    ({"min_bytes": "1kB", "min_files": 2}, Totals(1, 999), [], {Check.MIN_FILES, Check.MIN_BYTES}),
    (CHANGE, Totals(69, 1_000_000), USUAL, {Check.CHANGE_FILES}),
    (CHANGE, Totals(131, 1_000_000), USUAL, {Check.CHANGE_FILES}),
    (CHANGE, Totals(100, 499_999), USUAL, {Check.CHANGE_BYTES}),
    (CHANGE, Totals(100, 1_500_001), USUAL, {Check.CHANGE_BYTES}),
    (CHANGE, Totals(100, 0), USUAL, {Check.CHANGE_BYTES}),
    (CHANGE, Totals(1, 1), USUAL, {Check.CHANGE_FILES, Check.CHANGE_BYTES}),
    (CHANGE, Totals(1, 1), USUAL[:3], {Check.CHANGE_FILES, Check.CHANGE_BYTES}),
    (CHANGE, Totals(0, 0, problems=1), USUAL, {Check.CHANGE_FILES, Check.CHANGE_BYTES}),
    ({"change": {"files": "30%"}}, Totals(10_000, 1), USUAL, {Check.CHANGE_FILES}),
    ({"change": {"bytes": "200%"}}, Totals(1, 3_000_001), USUAL, {Check.CHANGE_BYTES}),
    ({"change": {"files": "12.5%"}}, Totals(113, 1), USUAL, {Check.CHANGE_FILES}),
    ({"change": {"files": "12.5%"}}, Totals(87, 1), USUAL, {Check.CHANGE_FILES}),
    ({"change": {"files": "50%"}}, Totals(500, 1), ODD, {Check.CHANGE_FILES}),
    ({"change": {"files": "50%"}}, Totals(5, 1), ODD, {Check.CHANGE_FILES}),
]
SOUND: list[tuple[dict[str, Any], Totals, list[tuple[str, int, int]]]] = [
    ({}, Totals(1, 0), []),
    ({}, Totals(41, 5), USUAL),
    ({}, Totals(0, 0, problems=1), USUAL),
    ({"empty_period": "deliver"}, Totals(0, 0), USUAL),
    ({"empty_period": "deliver", "min_files": 10, **CHANGE}, Totals(0, 0), USUAL),
    ({"min_files": 10}, Totals(10, 0), []),
    ({"min_files": 10}, Totals(11, 0), []),
    ({"min_bytes": "1GB"}, Totals(1, 10**9), []),
    (CHANGE, Totals(70, 1_000_000), USUAL),
    (CHANGE, Totals(130, 1_000_000), USUAL),
    (CHANGE, Totals(100, 500_000), USUAL),
    (CHANGE, Totals(100, 1_500_000), USUAL),
    (CHANGE, Totals(1, 1), USUAL[:2]),
    (CHANGE, Totals(1, 1), []),
    (CHANGE, Totals(7, 7), [(label, 0, 0) for label, _, _ in USUAL]),
    ({"change": {"files": "30%"}}, Totals(100, 1), USUAL),
    ({"change": {"bytes": "50%"}}, Totals(1, 1_000_000), USUAL),
    ({"change": {"files": "50%"}}, Totals(18, 1), ODD),
    ({"change": {"files": "50%"}}, Totals(6, 1), ODD),
    ({"change": {"bytes": "200%"}}, Totals(1, 3_000_000), USUAL),
]


@pytest.mark.parametrize(("rules", "totals", "history", "expected"), SPOILT)
def test_a_spoilt_period_is_found(
    rules: dict[str, Any], totals: Totals, history: list[tuple[str, int, int]], expected: set[Check]
) -> None:
    found = failures(rules, totals, history)
    assert {item.check for item in found} == expected
    assert len(found) == len(expected)


@pytest.mark.parametrize(("rules", "totals", "history"), SOUND)
def test_a_sound_period_is_let_out(
    rules: dict[str, Any], totals: Totals, history: list[tuple[str, int, int]]
) -> None:
    assert failures(rules, totals, history) == []


def test_the_first_empty_period_of_a_feed_is_let_out() -> None:
    assert failures({}, Totals(0, 0), [], had_files=False) == []
    (failed,) = failures({"min_files": 1}, Totals(0, 0), [], had_files=False)
    assert failed.check is Check.MIN_FILES


@pytest.mark.parametrize(
    ("rules", "totals", "history", "message"),
    [
        (
            CHANGE,
            Totals(41, 1_000_000),
            [(label, 120, 1_000_000) for label, _, _ in USUAL],
            "41 files; the median of the last 14 periods is 120: 66 % less, 30 % are allowed (change.files)",
        ),
        (
            CHANGE,
            Totals(100, 1_500_001),
            USUAL[:3],
            (
                "1,500,001 bytes; the median of the last 3 periods is 1,000,000: 50.01 % more, "
                "50 % are allowed (change.bytes)"
            ),
        ),
        (
            {"change": {"files": "12.5%"}},
            Totals(1, 1),
            ODD,
            "1 file; the median of the last 4 periods is 12: 92 % less, 12.5 % are allowed (change.files)",
        ),
        ({"min_files": 10}, Totals(1, 1), [], "1 file; at least 10 are expected (min_files)"),
        (
            {"min_bytes": "1GB"},
            Totals(1, 10**6),
            [],
            "1,000,000 bytes; at least 1,000,000,000 are expected (min_bytes)",
        ),
        (
            {},
            Totals(0, 0),
            [],
            "0 files, although the period is complete; at least 1 is expected (empty_period)",
        ),
    ],
)
def test_a_message_has_both_figures(
    rules: dict[str, Any], totals: Totals, history: list[tuple[str, int, int]], message: str
) -> None:
    (failed,) = failures(rules, totals, history)
    assert failed.message == message


@given(st.integers(0, 10**6), st.lists(st.integers(0, 10**6), max_size=20), st.integers(1, 300))
def test_a_change_is_allowed_or_not_in_both_directions(found: int, earlier: list[int], percent: int) -> None:
    history = [(f"2026-11-{number:02}", files, 0) for number, files in enumerate(earlier, 1)]
    failed = failures({"change": {"files": f"{percent}%"}}, Totals(found, 1, problems=1), history)
    usual = sorted(earlier)
    if len(earlier) < 3:
        assert failed == []
        return
    twice = usual[(len(usual) - 1) // 2] + usual[len(usual) // 2]  # the median's
    assert bool(failed) == (twice > 0 and abs(2 * found - twice) * 100 > percent * twice)


def labels(kind: PeriodKind, label: str, history: list[str], against: int = 3) -> list[str]:
    items = [(item, 1, 1) for item in history]
    return [found for found, _, _ in of_same_kind(Period.parse(label, kind), items, against)]


def test_a_day_is_compared_with_days_of_its_kind() -> None:
    week = [f"2026-11-{day:02}" for day in range(29, 15, -1)]  # the 29th is a Sunday
    assert labels(PeriodKind.DAY, "2026-11-30", week) == ["2026-11-27", "2026-11-26", "2026-11-25"]
    assert labels(PeriodKind.DAY, "2026-12-05", week) == ["2026-11-29", "2026-11-28", "2026-11-22"]
    hours = [f"2026-11-{day:02}T{hour:02}" for day in range(29, 20, -1) for hour in (6, 5)]
    assert labels(PeriodKind.HOUR, "2026-11-30T05", hours) == [
        "2026-11-27T05",
        "2026-11-26T05",
        "2026-11-25T05",
    ]
    months = ["2026-10", "2026-09", "2026-08", "2026-07"]
    assert labels(PeriodKind.MONTH, "2026-11", months) == months[:3]
    assert labels(PeriodKind.WEEK, "2026-W48", ["2026-W47", "2026-10", "2026-W46"]) == [
        "2026-W47",
        "2026-W46",
    ]


@pytest.mark.parametrize("against", [3, 14, 100])
def test_enough_periods_are_looked_at(against: int) -> None:
    for kind, label in ((PeriodKind.DAY, "2026-11-29"), (PeriodKind.HOUR, "2026-11-29T23")):
        period = Period.parse(label, kind)
        history = [(period.step(-n).label, 1, 1) for n in range(1, checks.needed_history(kind, against) + 1)]
        assert len(of_same_kind(period, history, against)) == against


def columns(*names: str, required: tuple[str, ...] = (), kind: str = "INT64") -> str:
    return json.dumps([[name, kind, name not in required] for name in names])


AB = columns("a", "b")


@pytest.mark.parametrize(
    ("rule", "known", "shapes", "bad"),
    [
        ("same", None, [AB, AB, AB], []),
        ("same", AB, [AB], []),
        ("same", AB, [columns("a", "b", "c")], [0]),
        ("same", AB, [columns("b", "a")], [0]),
        ("same", AB, [AB, columns("a")], [1]),
        ("same", None, [AB, columns("a", "b", kind="DOUBLE"), AB], [1]),
        ("same", None, [AB, columns("a", "b", required=("b",))], [1]),
        ("compatible", AB, [AB, columns("a", "b", "c")], []),
        ("compatible", AB, [columns("a", "x", "b"), AB], []),
        ("compatible", None, [columns("a", "b", "c"), AB, columns("a", "b", "d")], []),
        ("compatible", AB, [columns("a", "b", "c", required=("c",))], [0]),
        ("compatible", AB, [columns("a")], [0]),
        ("compatible", AB, [columns("b", "a")], [0]),
        ("compatible", AB, [columns("a", "b", kind="DOUBLE")], [0]),
        ("compatible", AB, [columns("a", "b", required=("a",))], [0]),
        ("compatible", None, [AB, columns("c")], [1]),
    ],
)
def test_schemas_are_compared(rule: str, known: str | None, shapes: list[str], bad: list[int]) -> None:
    rules = Checks.model_validate({"parquet": {"schema": rule}})
    comparing = Shapes(rules, {"parquet": (known, "2026-11-21")} if known else {})
    found = [comparing.add(f"{number}.parquet", "parquet", shape) for number, shape in enumerate(shapes)]
    assert [number for number, failed in enumerate(found) if failed is not None] == bad
    assert {failed.check for failed in found if failed} <= {Check.SCHEMA}


def test_what_a_later_period_is_compared_with_is_what_all_files_have() -> None:
    rules = Checks.model_validate({"parquet": {"schema": "compatible"}})
    comparing = Shapes(rules, {"parquet": (AB, "2026-11-21")})
    for number, shape in enumerate(
        (columns("a", "b", "c", "d"), columns("a", "b", "c"), columns("a", "b", "c"))
    ):
        assert comparing.add(f"{number}.parquet", "parquet", shape) is None
    assert comparing.found == {"parquet": columns("a", "b", "c")}


def test_a_message_names_the_columns() -> None:
    rules = Checks.model_validate({"parquet": {"schema": "same"}})
    before = json.dumps([["a", "INT64", True], ["b", "INT64", True], ["c", "BYTE_ARRAY String", False]])
    now = json.dumps(
        [
            ["a", "INT32", True],
            ["c", "BYTE_ARRAY String", False],
            ["d", "DOUBLE", True],
            ["e", "INT64", False],
        ]
    )
    failed = Shapes(rules, {"parquet": (before, "2026-11-21")}).add("x.parquet", "parquet", now)
    assert failed == FailedCheck(
        Check.SCHEMA,
        "4 columns; period 2026-11-21 has 3: added d DOUBLE, added e INT64 not null, without b INT64, "
        "a INT32 was INT64",
        "x.parquet",
    )
    order = Shapes(rules, {"parquet": (AB, "2026-11-21")}).add("x.parquet", "parquet", columns("b", "a"))
    assert order is not None
    assert order.message == "2 columns; period 2026-11-21 has 2: in another order"


def test_headers_are_compared_by_format() -> None:
    rules = Checks.model_validate({"csv": {"header": "same"}})
    comparing = Shapes(rules, {"csv": ("id,name", "2026-11-21")})
    assert comparing.add("a.csv", "csv", "id,name") is None
    assert comparing.add("a.tsv", "tsv", "id\tname") is None
    failed = comparing.add("b.csv", "csv", "id;name")
    assert failed is not None
    assert failed.message == "its first line is 'id;name'; that of period 2026-11-21 is 'id,name'"
    other = comparing.add("b.tsv", "tsv", "x" * 300)
    assert other is not None
    assert other.message == f"its first line is '{'x' * 200}...'; that of a.tsv is 'id\\tname'"


def test_many_failures_are_few_lines() -> None:
    found = Failures()
    for number in range(3):
        found.add(FailedCheck(Check.EMPTY_FILE, "0 bytes", f"{number}.gz"))
    for number in range(1000):
        found.add(FailedCheck(Check.FORMAT, f"begins with {number}", f"{number}.zip"))
    listed = found.listed()
    assert listed[0] == FailedCheck(Check.EMPTY_FILE, "0 bytes; 2 other files too", "0.gz")
    assert len(listed) == 51
    assert listed[-1].message == "as many fail that not all are listed; 950 other files too"
    assert summary(listed) == "0.gz: 0 bytes; 2 other files too (and 50 more failed checks)"
    assert summary([FailedCheck(Check.MIN_FILES, "1 file")]) == "1 file"


def test_a_verdict_may_only_warn() -> None:
    failed = [FailedCheck(Check.MIN_FILES, "1 file")]
    assert verdict(Checks(), failed) is Verdict.QUARANTINED
    assert verdict(Checks(on_failure="warn"), failed) is Verdict.WARNED  # type: ignore[arg-type]
    assert verdict(Checks(), []) is Verdict.SOUND

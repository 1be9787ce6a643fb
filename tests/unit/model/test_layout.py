"""Layouts: the keys that templates give, the mistakes that they are refused for, and what holds for all."""

from datetime import UTC, datetime, timedelta
from string import ascii_letters

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from xmode_transfer.model.keys import IllegalName, manifest_key
from xmode_transfer.model.layout import Layout, partition_values
from xmode_transfer.model.periods import Period, PeriodKind, label_format

PARTITIONS = {
    PeriodKind.HOUR: "%Y/%m/%d/%H",
    PeriodKind.DAY: "%Y/%m/%d",
    PeriodKind.WEEK: "%G/W%V",
    PeriodKind.MONTH: "%Y/%m",
    PeriodKind.NONE: None,
}
DAY = Period(datetime(2026, 11, 22), PeriodKind.DAY)  # noqa: DTZ001 - a period has no zone


def layout(template: str | None, kind: PeriodKind = PeriodKind.DAY, partition: str | None = "") -> Layout:
    directory = PARTITIONS[kind] if partition == "" else partition
    of = {"feed": "us-daily", "customer": "acme", "prefix": "xmode/"}
    return Layout.of(template, kind, partition=directory, **of)


@pytest.mark.parametrize(
    ("template", "revision", "key"),
    [
        (None, 1, "2026/11/22/eu/a.csv.gz"),
        (None, 2, "2026/11/22/_r2/eu/a.csv.gz"),
        ("{feed}/dt={period:%Y-%m-%d}/{path}", 1, "dt=2026-11-22/eu/a.csv.gz"),
        ("{feed}/dt={period:%Y-%m-%d}/{path}", 13, "dt=2026-11-22/_r13/eu/a.csv.gz"),
        ("{feed}/dt={period}/{name}", 2, "dt=2026-11-22/_r2/a.csv.gz"),
        ("{feed}/y={period:%Y}/m={period:%m}/d={period:%d}/{name}", 1, "y=2026/m=11/d=22/a.csv.gz"),
        ("{feed}/{customer}/{period:%Y%m%d}_{stem}-x{suffix}", 2, "acme/_r2/20261122_a.csv-x.gz"),
        ("{feed}/{stem}/{period}{suffix}", 2, "_r2/a.csv/2026-11-22.gz"),
    ],
)
def test_a_template_gives_a_key(template: str | None, revision: int, key: str) -> None:
    assert layout(template).key("2026/11/22/eu/a.csv.gz", DAY, revision) == f"xmode/us-daily/{key}"


@pytest.mark.parametrize(
    ("template", "reason"),
    [
        ("dt={period}/{name}", "begins with {feed}/"),
        ("{feed}/dt={period}/x", "must name the file"),
        ("{feed}/{period}{suffix}", "must name the file"),
        ("{feed}/{name}", "needs %Y %m %d or %Y %j"),
        ("{feed}/{period:%Y-%m}/{name}", "needs %Y %m %d or %Y %j"),
        ("{feed}/{period:%Y-%m-%d-%s}/{name}", "%s is not known"),
        ("{feed}/{date}/{name}", "{date} is not known"),
        ("{feed}/{period}/{name:x}", "only {period} has a format"),
        ("{feed}/{period}/{name", "a brace has no partner"),
        ("{feed}/{period}/%Y/{name}", "a % directive belongs into a field"),
        ("{feed}/{period}/../{name}", "are not allowed"),
        ("{feed}//{period}/{name}", "are not allowed"),
        ("{feed}/_delta_log/{period}/{name}", "are for ours"),
        ("{feed}/{period}/_r2/{name}", "is for corrections"),
        ("{feed}/d={period}/D={period}/{name}", "names a partition column twice"),
    ],
)
def test_a_template_that_cannot_be_is_refused(template: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        layout(template)


def test_a_drop_folder_has_no_period_to_name() -> None:
    with pytest.raises(ValueError, match="has no period to name"):
        layout("{feed}/{period}/{name}", PeriodKind.NONE)
    assert layout("{feed}/in/{name}", PeriodKind.NONE).key("eu/a", Period.none()) == "xmode/us-daily/in/a"


def test_a_key_may_have_1024_bytes_and_no_more() -> None:
    drops = layout("{feed}/x-{path}", PeriodKind.NONE)
    free = 1024 - len("xmode/us-daily/x-")
    assert len(drops.key("é" * (free // 2), Period.none()).encode()) in (1023, 1024)
    with pytest.raises(IllegalName, match="1025 bytes"):
        drops.key("a" * (free + 1), Period.none())


def test_the_partition_columns_come_from_the_directories() -> None:
    hive = layout("{feed}/dt={period:%Y-%m-%d}/{path}")
    assert hive.columns == ("dt",)
    key = hive.key("2026/11/22/k=v/a", DAY, 2)
    assert partition_values(key, hive.columns) == {"dt": "2026-11-22"}
    assert layout("{feed}/{stem}/d={period}{suffix}").columns == ()


SEGMENT = st.text(st.characters(exclude_categories=("Cs", "Cc")), min_size=1, max_size=6)
NAMES = st.lists(
    SEGMENT | st.sampled_from(["..", ".", "_r2", "_manifests", "_delta_log", "a.csv", "a", "%Y", "{path}"]),
    min_size=1,
    max_size=4,
).map("/".join)
TEXT = st.text(st.sampled_from(ascii_letters + "=-_./"), max_size=4)
KINDS = st.sampled_from(list(PeriodKind))


@st.composite
def layouts(draw: st.DrawFn) -> Layout:
    kind = draw(KINDS)
    period = [] if kind is PeriodKind.NONE else [f"{{period:{label_format(kind)}}}"]
    fields = st.sampled_from(["{path}", "{name}", "{stem}", "{suffix}", "{customer}", "/", *period])
    parts = draw(st.lists(fields | TEXT, max_size=5))
    try:
        return layout("{feed}/" + "".join(draw(st.permutations([*period, *parts, "{name}"]))), kind)
    except ValueError:
        assume(False)
        raise


def periods(kind: PeriodKind) -> st.SearchStrategy[Period]:
    moments = st.datetimes(datetime(2000, 1, 1), datetime(2099, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001
    return moments.map(lambda moment: Period.around(moment, kind))


@given(layouts() | st.builds(layout, st.none(), KINDS), NAMES, st.integers(1, 99), st.data())
def test_no_template_and_no_name_leaves_the_prefix(
    found: Layout, name: str, revision: int, data: st.DataObject
) -> None:
    period = data.draw(periods(found.kind))
    try:
        key = found.key(f"{found.directory and period.start.strftime(found.directory) + '/'}{name}", period)
        corrected = found.key(
            f"{found.directory and period.start.strftime(found.directory) + '/'}{name}", period, revision
        )
    except IllegalName:
        return
    for one in (key, corrected):
        below = one.removeprefix("xmode/us-daily/")
        assert one != below
        assert not {"", ".", ".."} & set(below.split("/"))
        assert below.split("/")[0] != "_manifests"
        assert one != manifest_key("xmode/", "us-daily", period.label, revision)
        assert one.startswith(found.period_prefix(period))
        told = found.period_of(below)
        assert told in (period, None) or not found.directory_of(period).startswith("period=")
        if f"period={period.label}" != found.directory_of(period):
            assert told == period
    assert (key == corrected) == (revision == 1)


@given(layouts(), NAMES, NAMES, st.integers(1, 3), st.integers(1, 3))
def test_only_one_revision_of_two_names_can_meet(
    found: Layout, one: str, other: str, first: int, second: int
) -> None:
    """Names that meet do so in each revision: a plan that compares the keys of a revision finds them."""
    assume(one != other)
    period = (
        Period.none()
        if found.kind is PeriodKind.NONE
        else Period.around(datetime(2026, 11, 22, tzinfo=UTC) + timedelta(), found.kind)
    )
    try:
        keys = found.key(one, period, first), found.key(other, period, second)
    except IllegalName:
        return
    if found.keeps_paths:
        assert keys[0] != keys[1]
    if first != second:
        assert keys[0] != keys[1]


def test_reserved_directories_take_no_file() -> None:
    table = Layout.of(None, PeriodKind.NONE, feed="f", partition=None, reserved=["_delta_log"])
    with pytest.raises(IllegalName, match="_delta_log/ at the top of a feed"):
        table.key("_delta_log/x.json", Period.none())
    assert table.key("a/_delta_log/x.json", Period.none()) == "f/a/_delta_log/x.json"

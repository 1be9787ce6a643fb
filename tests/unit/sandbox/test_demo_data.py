"""The demo's data is real, differs from day to day, and is the same each time for the same date."""

import csv
import gzip
from datetime import date
from pathlib import Path

import pytest

from xmode_transfer.sandbox import demo_data

TODAY = date(2026, 11, 23)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, demo_data.Written]:
    root = tmp_path_factory.mktemp("data")
    return root, demo_data.write(root, TODAY)


def test_there_are_a_few_hundred_files_as_counted(data: tuple[Path, demo_data.Written]) -> None:
    root, written = data
    found = [path for path in root.rglob("*") if path.is_file() and path.name != demo_data.MARKER]
    assert written.files == len(found)
    assert written.size == sum(path.stat().st_size for path in found)
    assert 300 <= written.files <= 500
    assert 5e6 < written.size < 20e6


def test_the_last_days_are_there_and_complete(data: tuple[Path, demo_data.Written]) -> None:
    days = data[0] / demo_data.DAILY / "2026" / "11"
    assert sorted(day.name for day in days.iterdir()) == ["18", "19", "20", "21", "22"]
    assert all((day / demo_data.MARKER).is_file() for day in days.iterdir())


def test_a_file_holds_the_places_of_one_region_and_clock(data: tuple[Path, demo_data.Written]) -> None:
    path = data[0] / demo_data.DAILY / "2026/11/22/america/utc-minus-0500.csv.gz"
    rows = list(csv.DictReader(gzip.decompress(path.read_bytes()).decode().splitlines()))
    assert {row["utc_offset"] for row in rows} == {"-05:00"}
    new_york = {row["time"]: row for row in rows if row["place"] == "New York"}
    assert len(new_york) == 48
    assert new_york["12:00"]["country"] == "United States"
    assert float(new_york["12:00"]["latitude"]) == pytest.approx(40.71, abs=0.01)
    assert (new_york["12:00"]["utc"], new_york["20:30"]["utc"]) == ("17:00", "01:30")


def test_a_year_has_a_row_for_each_place_and_day(data: tuple[Path, demo_data.Written]) -> None:
    path = data[0] / demo_data.DROPS / "clocks-2026-america.csv"
    rows = list(csv.DictReader(path.read_text(encoding="utf-8").splitlines()))
    new_york = {row["date"]: row["utc_offset"] for row in rows if row["place"] == "New York"}
    assert len(new_york) == 365
    assert (new_york["2026-03-07"], new_york["2026-03-08"]) == ("-05:00", "-04:00")


def test_parquet_files_hold_the_clock_of_each_place(tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    assert demo_data.write_offsets(tmp_path, TODAY)
    days = sorted((tmp_path / demo_data.OFFSETS / "2026" / "11").iterdir())
    assert [day.name for day in days] == ["18", "19", "20", "21", "22"]
    table = parquet.read_table(days[-1] / "offsets.parquet")
    rows = dict(zip(table["place"].to_pylist(), table["utc_offset_minutes"].to_pylist(), strict=True))
    assert len(rows) == len(demo_data.places())
    assert rows["America/New_York"] == -300


def test_each_day_differs_and_the_same_day_does_not(
    data: tuple[Path, demo_data.Written], tmp_path: Path
) -> None:
    root, written = data
    assert demo_data.write(tmp_path, TODAY) == written
    for name in ("europe/utc-plus-0100.csv.gz", "pacific/utc-plus-1200.csv.gz"):
        day = root / demo_data.DAILY / "2026/11"
        assert (day / "22" / name).read_bytes() != (day / "21" / name).read_bytes()
        again = tmp_path / demo_data.DAILY / "2026/11/22" / name
        assert again.read_bytes() == (day / "22" / name).read_bytes()


@pytest.mark.parametrize(
    ("text", "latitude", "longitude"),
    [
        ("+404251-0740023", 40.7142, -74.0064),
        ("-1525+02817", -15.4167, 28.2833),
    ],
)
def test_coordinates(text: str, latitude: float, longitude: float) -> None:
    assert demo_data.parse_coordinates(text) == (latitude, longitude)


@pytest.mark.parametrize("text", ["", "+404251-0740023 "])
def test_coordinates_of_another_form_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is not like"):
        demo_data.parse_coordinates(text)

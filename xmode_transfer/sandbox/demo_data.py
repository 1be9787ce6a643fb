"""Writes the feeds of the demo: the clocks of the world's time zones.

Places, coordinates and clocks come from the IANA time zone database in the tzdata package. The same date
always gives the same rows.

    places-daily/2026/11/22/america/utc-minus-0500.csv.gz    each half hour, there and in UTC
    places-daily/2026/11/22/_SUCCESS                         written last
    drops/clocks-2026-america.csv                            the clock of each day of the year
    offsets/2026/11/22/offsets.parquet                       the clock of each place, with pyarrow alone
"""

import gzip
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from functools import cache
from importlib import import_module
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

DAILY, DROPS, OFFSETS = "places-daily", "drops", "offsets"
DAYS = 5
MARKER = "_SUCCESS"
STEP_MINUTES = 30
PLACE_COLUMNS = "place,country,latitude,longitude,utc_offset,date"
_ISO_6709 = re.compile(r"([+-])(\d{2})(\d{2})(\d{2})?([+-])(\d{3})(\d{2})(\d{2})?")

FEEDS: dict[str, dict[str, Any]] = {
    DAILY: {
        "period": "day",
        "partition": "%Y/%m/%d",
        "include": ["*.csv.gz"],
        "complete": {"marker": MARKER},
    },
    DROPS: {"period": "none", "include": ["*.csv"], "complete": {"settle_seconds": 0}},
}
"""The feeds as the configuration has them, without ``source``."""
OFFSETS_FEED: dict[str, Any] = {
    "period": "day",
    "partition": "%Y/%m/%d",
    "include": ["*.parquet"],
    "complete": {"marker": MARKER},
    "layout": "{feed}/dt={period:%Y-%m-%d}/{path}",
    "table": "delta",
}
"""A feed of Parquet files, which is a Delta table too."""


@dataclass(frozen=True, slots=True)
class Place:
    """A place that gives a time zone its name. North and east are positive degrees."""

    zone: str
    country: str
    latitude: float
    longitude: float

    @property
    def region(self) -> str:
        return self.zone.partition("/")[0].lower()


class Written(NamedTuple):
    """The number of files of both feeds, without markers, and their size in bytes."""

    files: int
    size: int


def write(root: Path, today: date) -> Written:
    """Write both feeds below ``root``: the five days before ``today``, and this year's drops."""
    sizes = [_write_day(root / DAILY, today - timedelta(days=back)) for back in range(DAYS, 0, -1)]
    sizes.append(_write_drops(root / DROPS, today.year))
    return Written(sum(len(size) for size in sizes), sum(sum(size) for size in sizes))


def write_offsets(root: Path, today: date) -> bool:
    """Write the feed of Parquet files; False without pyarrow."""
    if find_spec("pyarrow") is None:
        return False
    pyarrow, parquet = import_module("pyarrow"), import_module("pyarrow.parquet")
    for day in (today - timedelta(days=back) for back in range(DAYS, 0, -1)):
        directory = root / OFFSETS / day.strftime("%Y/%m/%d")
        directory.mkdir(parents=True)
        columns = {
            "place": [place.zone for place in places()],
            "country": [place.country for place in places()],
            "utc_offset_minutes": [_offset_minutes(place, day) for place in places()],
        }
        parquet.write_table(pyarrow.table(columns), directory / "offsets.parquet")
        (directory / MARKER).touch()
    return True


@cache
def places() -> tuple[Place, ...]:
    """Return the places in tzdata's zone.tab, by name."""
    zoneinfo = files("tzdata") / "zoneinfo"
    countries = dict(_rows((zoneinfo / "iso3166.tab").read_text(encoding="utf-8")))
    found = []
    for code, coordinates, zone, *_ in _rows((zoneinfo / "zone.tab").read_text(encoding="utf-8")):
        latitude, longitude = parse_coordinates(coordinates)
        found.append(Place(zone, countries[code], latitude, longitude))
    return tuple(sorted(found, key=lambda place: place.zone))


def parse_coordinates(text: str) -> tuple[float, float]:
    """Return the degrees of an ISO 6709 text, as zone.tab has it: ``+404251-0740023``."""
    match = _ISO_6709.fullmatch(text)
    if match is None:
        raise ValueError(f"{text!r} is not like +DDMM-DDDMM or +DDMMSS-DDDMMSS")

    def angle(sign: str, whole: str, minutes: str, seconds: str | None) -> float:
        value = int(whole) + int(minutes) / 60 + int(seconds or 0) / 3600
        return round(-value if sign == "-" else value, 4)

    groups = match.groups()
    return angle(*groups[:4]), angle(*groups[4:])


@cache
def _clock(zone: str) -> ZoneInfo:
    """Return a zone of the tzdata package: the machine's database may be another version."""
    with (files("tzdata") / "zoneinfo" / zone).open("rb") as file:
        return ZoneInfo.from_file(file, key=zone)


def _offset_minutes(place: Place, day: date) -> int:
    offset = datetime.combine(day, time(12), _clock(place.zone)).utcoffset()
    assert offset is not None
    return round(offset.total_seconds() / 60)


def _write_day(root: Path, day: date) -> list[int]:
    by_file: dict[str, list[str]] = defaultdict(list)
    for place in places():
        offset = _offset_minutes(place, day)
        sign = "minus" if offset < 0 else "plus"
        name = f"{place.region}/utc-{sign}-{_clock_time(abs(offset)).replace(':', '')}.csv.gz"
        start = f"{_place(place)},{_signed(offset)},{day}"
        by_file[name] += [
            f"{start},{_clock_time(minutes)},{_clock_time((minutes - offset) % (24 * 60))}"
            for minutes in range(0, 24 * 60, STEP_MINUTES)
        ]
    directory = root / day.strftime("%Y/%m/%d")
    columns = f"{PLACE_COLUMNS},time,utc"
    sizes = [_write(directory / name, columns, rows) for name, rows in sorted(by_file.items())]
    (directory / MARKER).touch()  # last, because it completes the day
    return sizes


def _write_drops(root: Path, year: int) -> list[int]:
    by_region: dict[str, list[Place]] = defaultdict(list)
    for place in places():
        by_region[place.region].append(place)
    first = date(year, 1, 1)
    days = [first + timedelta(days=number) for number in range((date(year + 1, 1, 1) - first).days)]
    sizes = []
    for region, members in sorted(by_region.items()):
        rows = (
            f"{_place(place)},{_signed(_offset_minutes(place, day))},{day}"
            for place in members
            for day in days
        )
        sizes.append(_write(root / f"clocks-{year}-{region}.csv", PLACE_COLUMNS, rows))
    return sizes


def _write(path: Path, columns: str, rows: Iterable[str]) -> int:
    """Write one file, compressed if it ends in .gz, and return its size."""
    path.parent.mkdir(parents=True, exist_ok=True)
    content = "".join(f"{row}\n" for row in (columns, *rows)).encode()
    if path.suffix == ".gz":
        content = gzip.compress(content, compresslevel=1, mtime=0)  # the same rows are the same bytes
    return path.write_bytes(content)


def _place(place: Place) -> str:
    country = f'"{place.country}"' if "," in place.country else place.country
    return f"{place.zone.rpartition('/')[2].replace('_', ' ')},{country},{place.latitude},{place.longitude}"


@cache
def _signed(offset: int) -> str:
    return f"{'-' if offset < 0 else '+'}{_clock_time(abs(offset))}"


@cache
def _clock_time(minutes: int) -> str:
    return f"{minutes // 60:02d}:{minutes % 60:02d}"


def _rows(table: str) -> Iterator[list[str]]:
    """Return the rows of a tzdata table, which separates columns by tabs."""
    return (line.split("\t") for line in table.splitlines() if line and not line.startswith("#"))

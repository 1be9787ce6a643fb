"""The contract of the port ``Source``, run against every place that a feed's files may lie in."""

import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path
from typing import Any, Protocol

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from moto.server import ThreadedMotoServer

from tests.fakes import MemoryClock, MemorySource
from tests.forms import examples
from xmode_transfer.config import Feed, Marker
from xmode_transfer.model.errors import SourceChanged, SourceMissing
from xmode_transfer.model.periods import Period, PeriodKind
from xmode_transfer.model.records import SourceFile
from xmode_transfer.sources.interface import Source
from xmode_transfer.sources.local import LocalSource
from xmode_transfer.sources.s3 import S3Source
from xmode_transfer.sources.s3_bucket import own_client
from xmode_transfer.telemetry import SystemClock

NOW = datetime(2026, 11, 24, 6, 30, tzinfo=UTC)
OLD = Period.parse("2026-02-03", PeriodKind.DAY)
DAY = Period.parse("2026-11-22", PeriodKind.DAY)
NEXT = Period.parse("2026-11-23", PeriodKind.DAY)
NONE = Period.none()
MARKER = "_SUCCESS"


class Place(Protocol):
    """A feed by day whose periods are complete when declared so, and what its producer does to it."""

    source: Source

    def put(self, period: Period, path: str, data: bytes) -> str:
        """Another file under that path in the period, put there whole; the name that a scan gives it."""
        ...

    def overwrite(self, name: str, data: bytes) -> None:
        """Other bytes in the same file."""
        ...

    def remove(self, name: str) -> None: ...

    def declare(self, period: Period) -> None:
        """Says, once more or for the first time, that the period is complete."""
        ...

    def make_missing(self) -> None:
        """The root is gone."""
        ...


class LocalPlace:
    """A directory on disk. Each write gets a time of its own, as writes that are further apart than the
    file system's clock is fine would have."""

    def __init__(self, root: Path, kind: PeriodKind) -> None:
        self.root = root
        self.clock = MemoryClock(NOW)
        self.partition = "%Y/%m/%d" if kind is PeriodKind.DAY else None
        complete = {"marker": MARKER} if self.partition else {"settle_seconds": 60}
        self.feed = Feed.model_validate(
            {
                "name": "daily",
                "source": str(root),
                "period": kind,
                "partition": self.partition,
                "complete": complete,
                "exclude": [],
            }
        )
        self.source: Source = LocalSource(self.feed, self.clock)
        self._writes = 0
        root.mkdir()

    def put(self, period: Period, path: str, data: bytes) -> str:
        name = f"{period.start.strftime(self.partition)}/{path}" if self.partition else path
        target = self.root / name
        target.parent.mkdir(parents=True, exist_ok=True)
        fresh = self.root.parent / "fresh"
        fresh.write_bytes(data)
        self._set_time(fresh)
        fresh.replace(target)
        return name

    def overwrite(self, name: str, data: bytes) -> None:
        with (self.root / name).open("r+b") as file:
            file.truncate(0)
            file.write(data)
        self._set_time(self.root / name)

    def remove(self, name: str) -> None:
        (self.root / name).unlink()

    def declare(self, period: Period) -> None:
        if isinstance(self.feed.complete, Marker):
            self.put(period, self.feed.complete.marker, b"")

    def make_missing(self) -> None:
        self.root.rename(self.root.with_name("elsewhere"))

    def _set_time(self, path: Path) -> None:
        self._writes += 1
        changed = int((NOW - timedelta(hours=1)).timestamp()) * 10**9 + self._writes
        os.utime(path, ns=(changed, changed))


class S3Place:
    """A prefix of a bucket in moto, one second of which has many writes in it."""

    def __init__(self, client: Any, bucket: str, kind: PeriodKind) -> None:
        self.client = client
        self.bucket = bucket
        self.partition = "%Y/%m/%d" if kind is PeriodKind.DAY else None
        feed = Feed.model_validate(
            {
                "name": "daily",
                "source": f"s3://{bucket}/exports/daily/",
                "period": kind,
                "partition": self.partition,
                "complete": {"marker": MARKER} if self.partition else {"settle_seconds": 60},
                "exclude": [],
            }
        )
        clock = MemoryClock(SystemClock().now() + timedelta(hours=1))
        self.source: Source = S3Source(feed, clock, lambda: client)
        self._declared = 0
        client.create_bucket(Bucket=bucket)

    def put(self, period: Period, path: str, data: bytes) -> str:
        name = f"{period.start.strftime(self.partition)}/{path}" if self.partition else path
        self.client.put_object(Bucket=self.bucket, Key=f"exports/daily/{name}", Body=data)
        return name

    def overwrite(self, name: str, data: bytes) -> None:
        self.client.put_object(Bucket=self.bucket, Key=f"exports/daily/{name}", Body=data)

    def remove(self, name: str) -> None:
        self.client.delete_object(Bucket=self.bucket, Key=f"exports/daily/{name}")

    def declare(self, period: Period) -> None:
        self._declared += 1
        self.put(period, MARKER, str(self._declared).encode())

    def make_missing(self) -> None:
        for row in self.client.list_objects_v2(Bucket=self.bucket).get("Contents", ()):
            self.client.delete_object(Bucket=self.bucket, Key=row["Key"])
        self.client.delete_bucket(Bucket=self.bucket)


class MemoryPlace:
    def __init__(self) -> None:
        self.memory = MemorySource()
        self.source: Source = self.memory
        self._declared: dict[Period, int] = {}

    def put(self, period: Period, path: str, data: bytes) -> str:
        name = path if period == NONE else f"{period.start:%Y/%m/%d}/{path}"
        self.memory.write(name, data, period=period)
        if period != NONE and period not in self._declared:
            self.memory.set_state(period, complete=False)
        return name

    def overwrite(self, name: str, data: bytes) -> None:
        self.memory.overwrite(name, data)

    def remove(self, name: str) -> None:
        self.memory.remove(name)

    def declare(self, period: Period) -> None:
        self._declared[period] = self._declared.get(period, 0) + 1
        self.memory.set_state(period, complete=True, marker=str(self._declared[period]))

    def make_missing(self) -> None:
        self.memory.missing = True


def _local(request: pytest.FixtureRequest, kind: PeriodKind) -> Place:
    return LocalPlace(request.getfixturevalue("tmp_path_factory").mktemp("source") / "root", kind)


@pytest.fixture(scope="module")
def moto_url() -> Iterator[str]:
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


_buckets = count()


@pytest.fixture
def s3_client(moto_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", moto_url)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
    client = own_client()
    yield client
    client.close()


def _s3(request: pytest.FixtureRequest, kind: PeriodKind) -> Place:
    return S3Place(request.getfixturevalue("s3_client"), f"source-{next(_buckets)}", kind)


def _memory(request: pytest.FixtureRequest, kind: PeriodKind) -> Place:
    return MemoryPlace()


PLACES: dict[str, Callable[[pytest.FixtureRequest, PeriodKind], Place]] = {
    "local": _local,
    "s3": _s3,
    "memory": _memory,
}


@pytest.fixture(params=PLACES)
def places(request: pytest.FixtureRequest) -> Callable[[PeriodKind], Place]:
    """Makes fresh places of one kind."""
    return lambda kind: PLACES[request.param](request, kind)


@pytest.fixture
def place(places: Callable[[PeriodKind], Place]) -> Place:
    return places(PeriodKind.DAY)


@pytest.fixture
def folder(places: Callable[[PeriodKind], Place]) -> Place:
    """A drop folder."""
    return places(PeriodKind.NONE)


def the_file(place: Place, name: str, period: Period = DAY) -> SourceFile:
    found = [found for found in place.source.scan(period) if found.name == name]
    assert len(found) == 1
    assert isinstance(found[0], SourceFile)
    return found[0]


# --- Periods -------------------------------------------------------------------------------------------


def test_periods_come_oldest_first_with_their_state(place: Place) -> None:
    place.put(NEXT, "a", b"1")
    place.put(OLD, "a", b"1")
    place.put(DAY, "a", b"1")
    place.declare(OLD)
    place.declare(DAY)
    states = list(place.source.periods())
    assert [(state.period, state.complete) for state in states] == [(OLD, True), (DAY, True), (NEXT, False)]
    assert all(state.reason for state in states)
    assert [place.source.state(state.period) for state in states] == states


def test_a_period_that_is_not_there_has_no_state(place: Place) -> None:
    place.put(DAY, "a", b"1")
    assert place.source.state(NEXT) is None


def test_a_source_without_a_period(place: Place) -> None:
    assert list(place.source.periods()) == []


def test_the_marker_changes_when_the_period_is_declared_anew(place: Place) -> None:
    place.put(DAY, "a", b"1")
    place.declare(DAY)
    first = place.source.state(DAY)
    assert first == place.source.state(DAY)
    place.declare(DAY)
    second = place.source.state(DAY)
    assert first is not None
    assert second is not None
    assert first.marker
    assert second.marker not in ("", first.marker)


def test_periods_before_a_time_are_not_scanned(place: Place, folder: Place) -> None:
    for period in (OLD, DAY, NEXT):
        place.put(period, "a", b"1")
        place.declare(period)
    *older, day, following = place.source.periods(DAY.start)
    assert [(state.period, state.complete) for state in (day, following)] == [(DAY, True), (NEXT, True)]
    assert all(state.period == OLD and not state.complete for state in older)
    assert all("not scanned" in state.reason for state in older)
    folder.put(NONE, "a", b"1")
    assert [state.complete for state in folder.source.periods(DAY.start)] == [True]


def test_a_drop_folder_has_one_period(folder: Place) -> None:
    folder.put(NONE, "a.csv", b"1")
    (state,) = folder.source.periods()
    assert (state.period, state.complete) == (NONE, True)
    assert folder.source.state(NONE) == state


def test_a_root_that_is_not_there(place: Place) -> None:
    place.put(DAY, "a", b"1")
    place.make_missing()
    with pytest.raises(SourceMissing) as raised:
        list(place.source.periods())
    assert raised.value.hint
    with pytest.raises(SourceMissing):
        list(place.source.scan(DAY))


# --- Scan ----------------------------------------------------------------------------------------------


def test_a_scan_is_in_the_order_of_code_points(place: Place) -> None:
    paths = ["a-b", "a/b", "a/b.c/d", "a0", "B", "b", "é", "～", "😀", "a/b-c", "a.b/c", "z/y/x/w", "_x"]
    names = [place.put(DAY, path, path.encode()) for path in paths]
    found = list(place.source.scan(DAY))
    assert [file.name for file in found] == sorted(names)
    assert [file.name for file in found] == sorted(names, key=str.encode)
    assert [file.size for file in found if isinstance(file, SourceFile)] == [
        len(name.split("/", 3)[3].encode()) for name in sorted(names)
    ]


def test_a_scan_keeps_to_its_period_and_leaves_the_marker_out(place: Place) -> None:
    name = place.put(DAY, "a", b"1")
    place.put(NEXT, "b", b"1")
    place.declare(DAY)
    assert [found.name for found in place.source.scan(DAY)] == [name]


@pytest.mark.parametrize("kind", [PeriodKind.DAY, PeriodKind.NONE])
def test_any_names_are_scanned_in_order(places: Callable[[PeriodKind], Place], kind: PeriodKind) -> None:
    segment = st.text(alphabet="ab-/.0é～😀", min_size=1, max_size=6)
    period = DAY if kind is PeriodKind.DAY else NONE

    @settings(max_examples=examples(10), deadline=None, suppress_health_check=list(HealthCheck))
    @given(st.sets(segment, max_size=12))
    def check(paths: set[str]) -> None:
        place = places(kind)
        names = []
        for path in sorted(paths):
            parts = path.split("/")
            if any(part.strip(".") == "" for part in parts) or any(
                "/".join(parts[:n]) in paths for n in range(1, len(parts))
            ):
                continue
            names.append(place.put(period, path, b"x"))
        if names:
            assert [found.name for found in place.source.scan(period)] == sorted(names)

    check()


# --- Open ----------------------------------------------------------------------------------------------


def test_an_open_file_answers_exactly_what_is_asked(place: Place) -> None:
    data = bytes(range(256)) * 40
    with place.source.open(the_file(place, place.put(DAY, "a", data))) as opened:
        assert opened.size == len(data)
        assert opened.read_at(0, len(data)) == data
        assert opened.read_at(1000, 17) == data[1000:1017]
        assert opened.read_at(len(data), 0) == b""
        buffer = bytearray(b"-" * 100)
        assert opened.read_into(memoryview(buffer), 10_200) == 40
        assert bytes(buffer) == data[10_200:] + b"-" * 60
        assert opened.read_into(memoryview(buffer), len(data)) == 0
        assert opened.read_into(memoryview(buffer)[:3], 5) == 3
        assert bytes(buffer[:3]) == data[5:8]
        opened.check_unchanged()


def test_more_than_there_is_cannot_be_read(place: Place) -> None:
    file = the_file(place, place.put(DAY, "a", b"12345"))
    with place.source.open(file) as opened, pytest.raises(SourceChanged):
        opened.read_at(3, 3)


def test_an_empty_file(place: Place) -> None:
    file = the_file(place, place.put(DAY, "a", b""))
    assert file.size == 0
    with place.source.open(file) as opened:
        assert opened.read_at(0, 0) == b""
        assert opened.read_into(memoryview(bytearray(5)), 0) == 0
        opened.check_unchanged()


def test_threads_share_an_open_file(place: Place) -> None:
    data = os.urandom(400_000)
    start = threading.Barrier(4)
    with place.source.open(the_file(place, place.put(DAY, "a", data))) as opened:

        def read(part: int) -> bytes:
            start.wait()
            return b"".join(opened.read_at(part * 100_000 + at, 1000) for at in range(0, 100_000, 1000))

        with ThreadPoolExecutor(4) as pool:
            assert b"".join(pool.map(read, range(4))) == data


def test_close_may_be_called_again(place: Place) -> None:
    opened = place.source.open(the_file(place, place.put(DAY, "a", b"12345")))
    opened.close()
    opened.close()


Change = Callable[[Place, str], object]
CHANGES: dict[str, Change] = {
    "other bytes of the same length": lambda place, name: place.overwrite(name, b"54321"),
    "shorter": lambda place, name: place.overwrite(name, b"123"),
    "longer": lambda place, name: place.overwrite(name, b"1234567"),
    "replaced": lambda place, name: place.put(DAY, name.split("/")[-1], b"abcde"),
    "removed": lambda place, name: place.remove(name),
}


@pytest.mark.parametrize("change", CHANGES)
def test_what_has_changed_since_the_scan_is_not_opened(place: Place, change: str) -> None:
    name = place.put(DAY, "a", b"12345")
    place.put(DAY, "b", b"stays")
    file = the_file(place, name)
    CHANGES[change](place, name)
    with pytest.raises(SourceChanged) as raised:
        place.source.open(file)
    assert name in str(raised.value)


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_while_it_is_open_is_an_error(place: Place, change: str) -> None:
    name = place.put(DAY, "a", b"12345")
    with place.source.open(the_file(place, name)) as opened:
        opened.check_unchanged()
        CHANGES[change](place, name)
        with pytest.raises(SourceChanged):
            opened.check_unchanged()


def test_the_same_bytes_written_again_are_told_or_are_the_same(place: Place) -> None:
    name = place.put(DAY, "a", b"12345")
    file = the_file(place, name)
    place.overwrite(name, b"12345")
    with suppress(SourceChanged), place.source.open(file) as opened:
        assert opened.read_at(0, 5) == b"12345"


@pytest.mark.parametrize("change", ["replaced", "removed"])
def test_a_file_replaced_while_it_is_open_is_never_read_half_and_half(place: Place, change: str) -> None:
    name = place.put(DAY, "a", b"12345")
    with place.source.open(the_file(place, name)) as opened:
        first = opened.read_at(0, 2)
        CHANGES[change](place, name)
        with suppress(SourceChanged):  # as good: nothing of the other file was seen
            assert first + opened.read_at(2, 3) == b"12345"


def test_a_file_that_becomes_shorter_is_not_read_past_its_end(place: Place) -> None:
    name = place.put(DAY, "a", b"12345")
    with place.source.open(the_file(place, name)) as opened:
        place.overwrite(name, b"123")
        with pytest.raises(SourceChanged):
            opened.read_at(0, 5)


def test_the_same_file_can_be_scanned_and_opened_after_a_change(place: Place) -> None:
    name = place.put(DAY, "a", b"12345")
    before = the_file(place, name)
    place.overwrite(name, b"abcde")
    after = the_file(place, name)
    assert after != before
    with place.source.open(after) as opened:
        assert opened.read_at(0, 5) == b"abcde"
        opened.check_unchanged()

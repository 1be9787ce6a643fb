"""A feed's files in a dict, on a file system that changes when told to."""

import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime

from xmode_transfer.model.errors import SourceChanged, SourceMissing, SourceUnreadable
from xmode_transfer.model.periods import Period
from xmode_transfer.model.records import SourceFile, SourceProblem
from xmode_transfer.sources.interface import PeriodState

_FIRST_MODIFIED_NS = 1_700_000_000_000_000_000
_SECOND_NS = 1_000_000_000


@dataclass(slots=True)
class _Inode:
    number: int
    modified_ns: int
    data: bytes


class MemorySource:
    """Implements ``Source``. A file belongs to the period it was written for (``Period.none()``
    unless told), and a period is complete unless ``set_state`` says otherwise. Thread-safe.

    ``on_read`` is called before each read of an open file with its name and the offset: it may change files.
    """

    def __init__(self, files: Mapping[str, bytes] | None = None, *, period: Period | None = None) -> None:
        self.on_read: Callable[[str, int], None] | None = None
        self.missing = False
        self._lock = threading.RLock()
        self._default = period or Period.none()
        self._periods: dict[str, Period] = {}
        self._files: dict[str, _Inode] = {}
        self._problems: dict[str, SourceProblem] = {}
        self._unreadable: set[str] = set()
        self._states: dict[Period, PeriodState] = {}
        self._ticks = 0
        for name, data in (files or {}).items():
            self.write(name, data)

    # What the world does to the files.

    def write(self, name: str, data: bytes, *, period: Period | None = None) -> None:
        """A new file under the name, put in place by rename: who has the old one open goes on reading the
        old one."""
        with self._lock:
            self._ticks += 1
            self._files[name] = _Inode(self._ticks, self._now_ns(), bytes(data))
            self._periods[name] = period or self._periods.get(name, self._default)

    def overwrite(self, name: str, data: bytes) -> None:
        """Other bytes in the same file: who has it open sees them. Raises KeyError when there is none."""
        with self._lock:
            self._ticks += 1
            inode = self._files[name]
            inode.data, inode.modified_ns = bytes(data), self._now_ns()

    def touch(self, name: str) -> None:
        """A new time on the same bytes. Raises KeyError when there is none."""
        with self._lock:
            self.overwrite(name, self._files[name].data)

    def remove(self, name: str) -> None:
        """Raises KeyError when there is none."""
        with self._lock:
            del self._files[name]
            del self._periods[name]

    def make_unreadable(self, name: str) -> None:
        """The file stays listed, and opening it fails."""
        with self._lock:
            self._unreadable.add(name)

    def add_problem(self, name: str, code: str, message: str, *, period: Period | None = None) -> None:
        """A file that a scan reports as one that can never be delivered."""
        with self._lock:
            self._problems[name] = SourceProblem(name, code, message)
            self._periods[name] = period or self._default

    def set_state(
        self, period: Period, *, complete: bool, reason: str = "as it was told", marker: str = ""
    ) -> None:
        with self._lock:
            self._states[period] = PeriodState(period, complete, reason, marker)

    # The port.

    def periods(self, since: datetime | None = None) -> Iterator[PeriodState]:
        with self._lock:
            self._check_root()
            found = sorted({*self._periods.values(), *self._states})
        for period in found:
            state = self.state(period)
            if state is not None and since is not None and period != Period.none() and period.start < since:
                state = PeriodState(period, False, "not scanned: it is older than the requested periods")
            if state is not None:
                yield state

    def state(self, period: Period) -> PeriodState | None:
        with self._lock:
            self._check_root()
            told = self._states.get(period)
            if told is not None:
                return told
            if period in self._periods.values():
                return PeriodState(period, complete=True, reason="every file is there")
            return None

    def scan(self, period: Period) -> Iterator[SourceFile | SourceProblem]:
        with self._lock:
            self._check_root()
            names = sorted(name for name, of in self._periods.items() if of == period)
        for name in names:
            with self._lock:
                found = self._problems.get(name) or self._stat(name)
            if found is not None:  # a file that has vanished since is not there to be scanned
                yield found

    def open(self, file: SourceFile) -> "MemoryOpenFile":
        with self._lock:
            if self._stat(file.name) != file:
                raise _changed(file.name, "between the scan and its opening")
            if file.name in self._unreadable:
                raise SourceUnreadable(
                    f"{file.name} cannot be read: permission denied",
                    hint="Give the service's user the right",
                )
            return MemoryOpenFile(self, file, self._files[file.name])

    def _now_ns(self) -> int:
        return _FIRST_MODIFIED_NS + self._ticks * _SECOND_NS

    def _stat(self, name: str) -> SourceFile | None:
        inode = self._files.get(name)
        if inode is None:
            return None
        return SourceFile(name, len(inode.data), inode.modified_ns, f"inode-{inode.number}")

    def _check_root(self) -> None:
        if self.missing:
            raise SourceMissing("the feed's root is not there", hint="Mount it, or correct the feed's source")


class MemoryOpenFile:
    """Implements ``OpenFile``: holds on to the file that was opened, whatever its name leads to now."""

    def __init__(self, source: MemorySource, file: SourceFile, inode: _Inode) -> None:
        self.size = file.size
        self.closed = False
        self._source = source
        self._file = file
        self._inode = inode

    def read_at(self, offset: int, length: int) -> bytes:
        data = self._data(offset)[offset : offset + length]
        if len(data) < length:
            raise _changed(self._file.name, "while it was read: it has become shorter")
        return data

    def read_range(self, offset: int, length: int) -> bytes:
        return self.read_at(offset, length)

    def read_into(self, buffer: memoryview, offset: int) -> int:
        data = self._data(offset)[offset : offset + len(buffer)]
        buffer[: len(data)] = data
        return len(data)

    def check_unchanged(self) -> None:
        with self._source._lock:
            if self._source._stat(self._file.name) != self._file:
                raise _changed(self._file.name, "while it was read")

    def close(self) -> None:
        self.closed = True

    def __enter__(self) -> "MemoryOpenFile":
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _data(self, offset: int) -> bytes:
        if self.closed:
            raise ValueError(f"{self._file.name} is closed")
        if self._source.on_read is not None:
            self._source.on_read(self._file.name, offset)
        with self._source._lock:
            return self._inode.data


def _changed(name: str, when: str) -> SourceChanged:
    return SourceChanged(
        f"{name} changed {when}", hint="It is delivered once its producer has finished with it"
    )

"""One directory's names in order, in memory that does not grow with their number.

``os.scandir`` answers in the file system's order. The names are sorted in runs; when there is more than one,
they are written to a temporary file without a name (gone with its descriptor, however the process ends) and
read back merged.
"""

import os
import tempfile
from bisect import bisect_right
from collections.abc import Iterator
from typing import IO

from xmode_transfer.model.errors import SourceUnreadable
from xmode_transfer.model.selection import Selection

RUN_LENGTH = 100_000
"""Names in one run: about 15 MB while they are sorted."""
_BLOCK_BYTES = 64 * 1024
_ALL_BLOCKS_BYTES = 4 * 1024 * 1024
_LEAST_BLOCK_BYTES = 4096


class SortedNames:
    """The names in an open directory that ``selection`` takes, in code-point order of the paths that they
    lead to: directories, and links to directories, end in ``/``. Iterates once; ``close`` frees the disk.

    ``directory`` is relative to the period. Raises OSError when the directory cannot be listed to its
    end, and SourceUnreadable when there is no disk space to sort its names in.
    """

    def __init__(
        self, descriptor: int, directory: str, selection: Selection, run_length: int = RUN_LENGTH
    ) -> None:
        self._spill: _Spill | None = None
        try:
            first: list[str] = []
            for run in _sorted_runs(descriptor, directory, selection, run_length):
                if not first:
                    first = run
                    continue
                if self._spill is None:
                    self._spill = _Spill()
                    self._spill.write(first)
                self._spill.write(run)
        except BaseException:
            self.close()
            raise
        self._names = iter(first) if self._spill is None else self._spill.merged()

    def __iter__(self) -> Iterator[str]:
        return self._names

    def close(self) -> None:
        if self._spill is not None:
            self._spill.close()


def _sorted_runs(descriptor: int, directory: str, selection: Selection, length: int) -> Iterator[list[str]]:
    takes, leaves_out = selection.chooser(directory), selection.leaves_out
    run: list[str] = []
    with os.scandir(descriptor) as entries:
        for entry in entries:
            name = entry.name
            try:
                is_directory = entry.is_dir()  # asks the disk about links only
            except OSError:  # a link in a loop, or to where we may not look: judged as a file
                is_directory = False
            if not is_directory:
                if takes(name):
                    run.append(name)
            elif not leaves_out(directory + name):
                run.append(name + "/")
            if len(run) >= length:
                run.sort()
                yield run
                run = []
    if run:
        run.sort()
        yield run


class _Run:
    """Where a run lies on disk and how far it has been read; ``names`` is the block at hand."""

    __slots__ = ("end", "names", "offset", "tail")

    def __init__(self, offset: int, end: int) -> None:
        self.offset = offset
        self.end = end
        self.tail = b""
        self.names: list[str] = []


class _Spill:
    """Sorted runs in one unnamed temporary file."""

    def __init__(self) -> None:
        self._runs: list[_Run] = []
        self._offset = 0
        try:
            self._file: IO[bytes] = tempfile.TemporaryFile(buffering=0, prefix="xmode-names-")  # noqa: SIM115
        except OSError as error:
            raise _no_room(error) from error

    def close(self) -> None:
        self._file.close()

    def write(self, names: list[str]) -> None:
        # NUL is the one character that no file's name can hold; surrogateescape keeps names that are no
        # UTF-8.
        data = memoryview(("\0".join(names) + "\0").encode("utf-8", "surrogateescape"))
        begin = self._offset
        try:
            while data:
                written = os.pwrite(self._file.fileno(), data, self._offset)
                self._offset += written
                data = data[written:]
        except OSError as error:
            raise _no_room(error) from error
        self._runs.append(_Run(begin, self._offset))

    def merged(self) -> Iterator[str]:
        """All names in order. Works on blocks: names up to the least of the blocks' last ones are all at
        hand, and sorting those pieces, each in order already, is quicker than a heap that is asked for
        each name."""
        block_bytes = max(_LEAST_BLOCK_BYTES, min(_BLOCK_BYTES, _ALL_BLOCKS_BYTES // len(self._runs)))
        live = self._runs
        while live := [run for run in live if run.names or self._refill(run, block_bytes)]:
            bound = min(run.names[-1] for run in live)
            batch: list[str] = []
            for run in live:
                cut = bisect_right(run.names, bound)
                batch += run.names[:cut]
                del run.names[:cut]
            batch.sort()
            yield from batch

    def _refill(self, run: _Run, block_bytes: int) -> bool:
        while run.offset < run.end:
            block = os.pread(self._file.fileno(), min(block_bytes, run.end - run.offset), run.offset)
            if not block:
                raise SourceUnreadable("the temporary file with a directory's names has lost its end")
            run.offset += len(block)
            whole, found, tail = block.rpartition(b"\0")
            if not found:
                run.tail += block
                continue
            run.names = (run.tail + whole).decode("utf-8", "surrogateescape").split("\0")
            run.tail = tail
            return True
        return False


def _no_room(error: OSError) -> SourceUnreadable:
    return SourceUnreadable(
        f"a directory of many files could not be sorted: {error.strerror or error}",
        hint=f"its names are sorted in {tempfile.gettempdir()}, which needs room for them; "
        "TMPDIR names another place",
    )

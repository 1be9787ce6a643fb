"""Chunks put on disk and opened like a source file: a long manifest must not lie in memory."""

import os
import tempfile
from collections.abc import Iterable


class SpooledFile:
    """An unnamed temporary file, gone when it is closed or the process ends."""

    def __init__(self, chunks: Iterable[bytes]) -> None:
        self._file = tempfile.TemporaryFile(prefix="xmode-spool-", buffering=1024 * 1024)  # noqa: SIM115 - closed by close()
        try:
            for chunk in chunks:
                self._file.write(chunk)
            self._file.flush()
        except BaseException:
            self._file.close()
            raise
        self.size = os.fstat(self._file.fileno()).st_size

    def read_at(self, offset: int, length: int) -> bytes:
        return os.pread(self._file.fileno(), length, offset)

    def read_into(self, buffer: memoryview, offset: int) -> int:
        return os.preadv(self._file.fileno(), [buffer], offset)

    def check_unchanged(self) -> None:
        """Nobody else can reach an unnamed file."""

    def fileno(self) -> int:
        return self._file.fileno()

    def close(self) -> None:
        self._file.close()

    def __enter__(self) -> "SpooledFile":
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

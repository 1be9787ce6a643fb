"""The body of an upload: an open file of a source."""

from typing import Protocol


class OpenFile(Protocol):
    """An open source file: one descriptor, so that a file replaced by rename is never read half and half."""

    size: int

    def read_at(self, offset: int, length: int) -> bytes:
        """Exactly ``length`` bytes from ``offset``, or SourceChanged when the file has become shorter.
        Safe to call from several threads at once."""
        ...

    def read_into(self, buffer: memoryview, offset: int) -> int:
        """Fills ``buffer`` from ``offset`` as far as the file goes; returns the number of bytes.
        Thread-safe."""
        ...

    def check_unchanged(self) -> None:
        """Raises SourceChanged unless the file still is, by size, time and identity, what the scan saw, and
        the path still leads to it."""
        ...

    def close(self) -> None:
        """Idempotent."""
        ...

    def __enter__(self) -> "OpenFile": ...

    def __exit__(self, *exc: object) -> None: ...

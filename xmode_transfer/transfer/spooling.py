"""Spool what is about to be put into a temporary file, and prove it when it was put."""

import os
import tempfile
from collections.abc import Iterable, Iterator

from xmode_transfer.aws.checksums import OpenFile
from xmode_transfer.aws.stores import ObjectStore
from xmode_transfer.model.errors import Unavailable
from xmode_transfer.model.records import SourceFile
from xmode_transfer.sources.local import LocalFile

_CHUNK_BYTES = 1024 * 1024


def prove(store: ObjectStore, key: str, size: int) -> None:
    """Proves an object by a HEAD. Raises Unavailable if it is missing."""
    info = store.head(key)
    if info is None or info.size != size:
        raise Unavailable(
            f"{key} was acknowledged, but does not exist",
            hint="no action is needed: the next attempt puts it again",
        )


def chunks_of(body: OpenFile) -> Iterator[bytes]:
    for offset in range(0, body.size, _CHUNK_BYTES):
        yield body.read_at(offset, min(_CHUNK_BYTES, body.size - offset))


class SpooledFile(LocalFile):
    """An unnamed temporary file."""

    def __init__(self, chunks: Iterable[bytes]) -> None:
        with tempfile.TemporaryFile(prefix="xmode-spool-", buffering=1024 * 1024) as file:
            for chunk in chunks:
                file.write(chunk)
            file.flush()
            spooled = SourceFile("the temporary file", file.tell(), 0, "")
            super().__init__(spooled, "", os.dup(file.fileno()))

    def check_unchanged(self) -> None:
        """Does nothing: no other process can open an unnamed file."""

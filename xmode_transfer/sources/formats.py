"""What checks before release read from a source's files, chosen by suffix: their first and last bytes, with
``deep`` whole compressed files, the columns of Parquet, the first line of CSV. Memory is bounded, and a small
file is read at once: each read is a request where the source is a bucket."""

import bz2
import gzip
import io
import json
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from importlib import import_module
from typing import Any, NamedTuple

from xmode_transfer.aws.checksums import OpenFile
from xmode_transfer.config import Checks
from xmode_transfer.model.checks import Check, FailedCheck
from xmode_transfer.model.errors import SourceUnreadable, XmodeError
from xmode_transfer.model.records import SourceFile
from xmode_transfer.sources.interface import Source

_AT_ONCE = 64 * 1024  # a file of this size is read as a whole; also the longest first line
_CHUNK_BYTES = 1024 * 1024
_ZIP_END = b"PK\x05\x06"
_ZIP_END_BYTES = 22  # followed by a comment of up to 64 KiB (APPNOTE.TXT 4.3.16)
_AVRO_SYNC_BYTES = 16
_AVRO_HEADER_BYTES = 1024 * 1024


class _Format(NamedTuple):
    """The possible first bytes, and how much of the beginning and of the end is read."""

    magic: tuple[bytes, ...]
    head: int
    tail: int = 0


_GZIP = _Format((b"\x1f\x8b",), 4)
_FORMATS = {
    ".parquet": _Format((b"PAR1", b"PARE"), 4, 8),  # PARE: the footer is encrypted
    ".orc": _Format((b"ORC",), 4, 4),
    ".avro": _Format((b"Obj\x01",), _AT_ONCE, _AVRO_SYNC_BYTES),
    ".gz": _GZIP,
    ".tgz": _GZIP,
    # a file may begin with a skippable frame (RFC 8878, 3.1.2)
    ".zst": _Format(
        (b"\x28\xb5\x2f\xfd", *(bytes((byte,)) + b"\x2a\x4d\x18" for byte in range(0x50, 0x60))), 4
    ),
    ".bz2": _Format((b"BZh",), 4),
    ".zip": _Format((b"PK\x03\x04", _ZIP_END, b"PK\x07\x08"), 4, _ZIP_END_BYTES + 64 * 1024),
}
_COMPRESSED = (".gz", ".tgz", ".zst", ".bz2", ".zip")


class Examined(NamedTuple):
    """``shape`` is the schema or the first line, of the format ``kind``; None if nothing is compared."""

    name: str
    failed: FailedCheck | None = None
    kind: str = ""
    shape: str | None = None


class _Damaged(Exception):
    def __init__(self, check: Check, message: str) -> None:
        self.check, self.message = check, message


def suffix_of(name: str) -> str:
    dot = name.rfind(".")
    return name[dot:].lower() if dot > name.rfind("/") else ""


def compared(name: str, checks: Checks) -> str:
    """Return the format of a file that is compared with others: ``parquet``, ``csv``, ``tsv``, or nothing."""
    suffix = suffix_of(name)
    if checks.parquet is not None and suffix == ".parquet":
        return "parquet"
    if checks.csv is not None and suffix == ".gz":
        suffix = suffix_of(name[: -len(suffix)])
    return suffix[1:] if checks.csv is not None and suffix in (".csv", ".tsv") else ""


def is_examined(name: str, checks: Checks) -> bool:
    """Return False for a file of which nothing is read."""
    return suffix_of(name) in _FORMATS or bool(compared(name, checks))


def examine(source: Source, file: SourceFile, checks: Checks, check_stop: Callable[[], None]) -> Examined:
    """Read what the checks need. Raises SourceError if the file cannot be read, or changes meanwhile;
    ``check_stop`` is called between reads and may raise."""
    name, suffix, kind = file.name, suffix_of(file.name), compared(file.name, checks)
    known = _FORMATS.get(suffix)
    if known is not None and file.size == 0:
        message = f"0 bytes; a {suffix} file is never empty"
        return Examined(name, FailedCheck(Check.EMPTY_FILE, message, name))
    if known is None and not kind:
        return Examined(name)
    check_stop()
    with source.open(file) as body:
        try:
            if known is not None:
                _check_edges(suffix, known, body)
            if checks.deep and suffix in _COMPRESSED:
                _read_through(suffix, body, check_stop)
            shape = None
            if kind == "parquet":
                shape = _schema(body)
            elif kind:
                shape = _first_line(body, zipped=suffix == ".gz")
        except _Damaged as damage:
            body.check_unchanged()  # else it is being written, which is no verdict
            return Examined(name, FailedCheck(damage.check, damage.message, name))
        if checks.deep or kind:
            body.check_unchanged()
    return Examined(name, None, kind, shape)


def _check_edges(suffix: str, known: _Format, body: OpenFile) -> None:
    size = body.size
    if known.tail and size <= _AT_ONCE:
        head = tail = body.read_range(0, size)
    else:
        head = body.read_range(0, min(known.head, size))
        tail = body.read_range(size - min(known.tail, size), min(known.tail, size)) if known.tail else b""
    if not head.startswith(known.magic):
        begins = known.magic[0]
        raise _Damaged(Check.FORMAT, f"begins with {_shown(head[:4])}; a {suffix} file with {_shown(begins)}")
    if suffix == ".parquet":
        footer = int.from_bytes(tail[-8:-4], "little")
        if size < 12 or tail[-4:] != head[:4]:
            raise _ends(suffix, tail[-4:], _shown(head[:4]))
        if footer + 12 > size:
            raise _Damaged(Check.FORMAT, f"has {size:,} bytes; its footer alone has {footer:,}")
    elif suffix == ".orc" and (size < 8 or tail[-4:-1] != b"ORC"):
        raise _ends(suffix, tail[-4:], "'ORC' and one byte")
    elif suffix == ".avro":
        mark = _sync_mark(head)
        if mark is None and size > len(head):  # a long schema
            mark = _sync_mark(body.read_range(0, min(_AVRO_HEADER_BYTES, size)))
        if tail[-_AVRO_SYNC_BYTES:] != mark and (mark is not None or size <= _AVRO_HEADER_BYTES):
            raise _ends(suffix, tail[-4:], "the mark that its header names")
    elif suffix == ".zip":
        _check_directory(tail, size)


def _sync_mark(head: bytes) -> bytes | None:
    """Return the mark at the end of each block: it follows the metadata, a map of texts (Avro specification,
    "Object Container Files"). None if the header goes on, empty if it is damaged."""
    at = 4

    def number() -> int:  # a zigzag varint
        nonlocal at
        value = 0
        for shift in range(0, 70, 7):
            byte = head[at]
            at += 1
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return (value >> 1) ^ -(value & 1)
        raise ValueError("no number has more bytes")

    try:
        while entries := number():
            if entries < 0:
                number()
            for _ in range(2 * abs(entries)):
                length = number()
                if length < 0:
                    return b""
                at += length
    except IndexError:
        return None
    except ValueError:
        return b""
    mark = head[at : at + _AVRO_SYNC_BYTES]
    return mark if len(mark) == _AVRO_SYNC_BYTES else None


def _check_directory(tail: bytes, size: int) -> None:
    """Find the end of the central directory. Its comment may have the same four bytes."""
    at = len(tail) - _ZIP_END_BYTES
    while (at := tail.rfind(_ZIP_END, 0, max(0, at + len(_ZIP_END)))) >= 0:
        end = tail[at : at + _ZIP_END_BYTES]
        length, offset = (int.from_bytes(end[first : first + 4], "little") for first in (12, 16))
        comment = int.from_bytes(end[20:22], "little")
        fits = length + offset <= size - len(tail) + at or 0xFFFFFFFF in (length, offset)  # else it is zip64
        if at + _ZIP_END_BYTES + comment == len(tail) and fits:
            return
        at -= len(_ZIP_END)
    raise _Damaged(Check.FORMAT, f"has no directory at the end of its {size:,} bytes, as a .zip file has")


def _ends(suffix: str, tail: bytes, expected: str) -> _Damaged:
    return _Damaged(Check.FORMAT, f"ends with {_shown(tail)}; a {suffix} file with {expected}")


def _shown(some: bytes) -> str:
    text = some.decode("latin-1")
    return repr(text) if text.isascii() and text.isprintable() else f"the bytes {some.hex(' ')}"


class _Stream(io.RawIOBase):
    """An open source file for libraries that read a stream, ``through`` or only some of it."""

    def __init__(self, body: OpenFile, *, through: bool = False) -> None:
        super().__init__()
        self._size = body.size
        self._read = body.read_at if through else body.read_range
        self._at = 0

    def readinto(self, buffer: Any) -> int:
        count = max(0, min(len(buffer), self._size - self._at))
        buffer[:count] = self._read(self._at, count) if count else b""
        self._at += count
        return count

    def seek(self, offset: int, whence: int = 0) -> int:
        self._at = max(0, (0, self._at, self._size)[whence] + offset)
        return self._at

    def tell(self) -> int:
        return self._at

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True


def _read_through(suffix: str, body: OpenFile, check_stop: Callable[[], None]) -> None:
    stream = io.BufferedReader(_Stream(body, through=True), _CHUNK_BYTES)
    with _library(body), suppress(RuntimeError):  # a method of compression that this Python does not know
        for part in _parts(suffix, stream):
            while part.read(_CHUNK_BYTES):
                check_stop()


def _parts(suffix: str, stream: Any) -> Iterator[Any]:
    if suffix in (".gz", ".tgz"):
        yield gzip.GzipFile(fileobj=stream)
    elif suffix == ".bz2":
        yield bz2.BZ2File(stream)
    elif suffix == ".zst":
        library = arrow("pyarrow", "the feed's checks (deep: true for .zst files) need")
        yield library.CompressedInputStream(library.PythonFile(stream, mode="r"), "zstd")
    else:
        with zipfile.ZipFile(stream) as archive:
            for member in archive.infolist():
                if not member.flag_bits & 1:  # encrypted
                    with archive.open(member) as part:
                        yield part


@contextmanager
def _library(body: OpenFile, what: str = "cannot be decompressed") -> Iterator[None]:
    """Translate what a library says of damaged data; errors of the source pass."""
    try:
        yield
    except XmodeError:
        raise
    except Exception as error:  # noqa: BLE001 - each library has its own
        if isinstance(error, EOFError) or "Truncated" in str(error):
            cut = f"is cut off: its compressed data has no end in its {body.size:,} bytes"
            raise _Damaged(Check.TRUNCATED, cut) from None
        raise _Damaged(Check.FORMAT, f"{what}: {error}") from None


def _first_line(body: OpenFile, *, zipped: bool) -> str:
    stream: Any = io.BufferedReader(_Stream(body), _AT_ONCE)
    with _library(body):
        line: bytes = (gzip.GzipFile(fileobj=stream) if zipped else stream).readline(_AT_ONCE)
    return line.rstrip(b"\r\n").decode("utf-8", "replace")


def _schema(body: OpenFile) -> str:
    """Return the columns, by path, type, and whether they may be null, in JSON. What Parquet itself says of
    them is compared, not what the writer's library adds."""
    parquet = arrow("pyarrow.parquet", "the feed's checks (parquet: {schema: ...}) need")
    with _library(body, "its footer cannot be read"):
        schema = parquet.read_metadata(io.BufferedReader(_Stream(body), _AT_ONCE)).schema
    columns = (schema.column(number) for number in range(len(schema)))
    return json.dumps([[item.path, _type_of(item), item.max_definition_level > 0] for item in columns])


def _type_of(column: Any) -> str:
    words = (
        str(column.physical_type),
        str(column.logical_type),
        "repeated" * bool(column.max_repetition_level),
    )
    return " ".join(word for word in words if word not in ("", "None"))


def arrow(module: str, needed_by: str, extra: str = "formats") -> Any:
    """Import a module of pyarrow. Raises SourceUnreadable with the extra to install."""
    try:
        return import_module(module)
    except ImportError as error:
        what = f"{needed_by} pyarrow, which is not installed"
        hint = f"install it with `pip install 'xmode-transfer[{extra}]'`"
        raise SourceUnreadable(what, hint=hint) from error

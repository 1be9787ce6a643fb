"""Which files are not what their names say: each format sound, spoilt, and cut."""

import bz2
import gzip
import io
import random
import zipfile
from collections.abc import Callable

import pyarrow as pa
import pytest
from pyarrow import orc, parquet

from tests.fakes.source import MemorySource
from xmode_transfer.config import Checks
from xmode_transfer.model.checks import Check
from xmode_transfer.model.errors import Interrupted, SourceChanged, SourceUnreadable
from xmode_transfer.model.periods import Period
from xmode_transfer.model.records import SourceFile
from xmode_transfer.sources import formats
from xmode_transfer.sources.formats import Examined, examine, is_examined

_RANDOM = random.Random(16)
TEXT = b"".join(b"%d,%d\n" % (_RANDOM.getrandbits(60), number) for number in range(4_000))
TABLE = pa.table({"id": range(20_000), "name": [f"device {number * 7919}" for number in range(20_000)]})


def written(write: Callable[[io.BytesIO], object]) -> bytes:
    sink = io.BytesIO()
    write(sink)
    return sink.getvalue()


def zipped(*members: tuple[str, bytes], comment: bytes = b"") -> bytes:
    def write(sink: io.BytesIO) -> None:
        with zipfile.ZipFile(sink, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, data in members:
                archive.writestr(name, data)
            archive.comment = comment

    return written(write)


def varint(number: int) -> bytes:
    number, out = number << 1, b""
    while number > 0x7F:
        out += bytes((number & 0x7F | 0x80,))
        number >>= 7
    return out + bytes((number,))


def avro(schema: bytes = b'{"type": "long"}', blocks: int = 3, *, counted_bytes: bool = False) -> bytes:
    """A container file as the specification has it."""
    mark = bytes(range(100, 116))
    entry = varint(11) + b"avro.schema" + varint(len(schema)) + schema
    metadata = varint(1) + entry
    if counted_bytes:  # a negative number of entries, then their bytes
        metadata = b"\x01" + varint(len(entry)) + entry
    head = b"Obj\x01" + metadata + b"\0" + mark
    return head + blocks * (varint(1) + varint(5) + b"12345" + mark)


PARQUET = written(lambda sink: parquet.write_table(TABLE, sink))
ORC = written(lambda sink: orc.write_table(TABLE, sink))
GZIP, BZIP2, ZSTD = gzip.compress(TEXT), bz2.compress(TEXT), pa.compress(TEXT, "zstd", asbytes=True)
ZIP = zipped(("a.csv", TEXT), ("b.csv", TEXT))

SOUND = {
    "a.parquet": PARQUET,
    "encrypted.parquet": b"PARE" + PARQUET[4:-4] + b"PARE",
    "empty-table.parquet": written(lambda sink: parquet.write_table(TABLE.slice(0, 0), sink)),
    "upper.PARQUET": PARQUET,
    "a.orc": ORC,
    "a.avro": avro(),
    "no-blocks.avro": avro(blocks=0),
    "counted.avro": avro(counted_bytes=True),
    "long-schema.avro": avro(b'"' + b"x" * 100_000 + b'"'),
    "a.gz": GZIP,
    "two-members.csv.gz": GZIP + gzip.compress(b"more"),
    "empty-content.gz": gzip.compress(b""),
    "a.tgz": GZIP,
    "a.bz2": BZIP2,
    "a.zst": ZSTD,
    "skippable.zst": b"\x50\x2a\x4d\x18\x04\x00\x00\x00abcd" + ZSTD,
    "a.zip": ZIP,
    "no-member.zip": zipped(),
    "comment.zip": zipped(("a", TEXT), comment=b"an export"),
    "long-comment.zip": zipped(("a", TEXT * 2), comment=b"x" * 65_535),
    "inner.zip": zipped(("inner.zip", ZIP)),
    "empty.csv": b"",
    "_SUCCESS": b"",
    "a.json": b"{",
}


def examined(name: str, data: bytes, **checks: object) -> Examined:
    source = MemorySource({name: data})
    (file,) = source.scan(Period.none())
    assert isinstance(file, SourceFile)
    return examine(source, file, Checks.model_validate(checks), lambda: None)


@pytest.mark.parametrize("deep", [False, True])
@pytest.mark.parametrize("name", SOUND)
def test_a_sound_file_is_let_out(name: str, deep: bool) -> None:
    assert examined(name, SOUND[name], deep=deep).failed is None


@pytest.mark.parametrize(
    "suffix", [".parquet", ".orc", ".avro", ".gz", ".tgz", ".zst", ".bz2", ".zip", ".Gz"]
)
def test_a_format_that_cannot_be_empty_has_bytes(suffix: str) -> None:
    failed = examined(f"day/part-0{suffix}", b"").failed
    assert failed is not None
    assert failed.check is Check.EMPTY_FILE
    assert failed.message == f"0 bytes; a {suffix.lower()} file is never empty"
    assert failed.file == f"day/part-0{suffix}"


@pytest.mark.parametrize("name", [name for name in SOUND if formats.suffix_of(name) in formats._FORMATS])
def test_other_first_bytes_are_found(name: str) -> None:
    failed = examined(name, b"<htm" + SOUND[name][4:]).failed
    assert failed is not None
    assert failed.check is Check.FORMAT
    assert failed.message.startswith("begins with '<htm'; a ")


AT_ONCE = {
    "a.parquet": PARQUET,
    "a.orc": ORC,
    "a.avro": avro(),
    "a.zip": ZIP,
    "long-schema.avro": SOUND["long-schema.avro"],
}
WHEN_DEEP = {
    "a.gz": GZIP,
    "a.tgz": GZIP,
    "a.bz2": BZIP2,
    "a.zst": ZSTD,
    "a.zip": ZIP,
    "inner.zip": SOUND["inner.zip"],
}


@pytest.mark.parametrize("cut", [0.25, 0.5, 0.75, -1])
@pytest.mark.parametrize("name", AT_ONCE)
def test_a_cut_file_has_no_end(name: str, cut: float) -> None:
    data = AT_ONCE[name]
    failed = examined(name, data[: int(len(data) * cut) if cut > 0 else int(cut)]).failed
    assert failed is not None
    assert failed.check is Check.FORMAT


@pytest.mark.parametrize("cut", [0.25, 0.5, 0.75, -1])
@pytest.mark.parametrize("name", WHEN_DEEP)
def test_a_cut_compressed_file_is_found_when_it_is_read_through(name: str, cut: float) -> None:
    data = WHEN_DEEP[name]
    data = data[: int(len(data) * cut) if cut > 0 else int(cut)]
    failed = examined(name, data, deep=True).failed
    assert failed is not None
    if not name.endswith(".zip"):  # its directory is at its end, so that is missed first
        assert failed.check is Check.TRUNCATED
        assert f"{len(data):,} bytes" in failed.message
        assert examined(name, data).failed is None  # the first bytes are right


@pytest.mark.parametrize("name", sorted(WHEN_DEEP.keys() - {"a.zst"}))  # this one has no checksum
def test_damage_in_the_middle_is_found_when_it_is_read_through(name: str) -> None:
    data = bytearray(WHEN_DEEP[name])
    for at in range(len(data) // 2, len(data) // 2 + 40):
        data[at] ^= 0x5A
    failed = examined(name, bytes(data), deep=True).failed
    assert failed is not None
    assert failed.check in (Check.FORMAT, Check.TRUNCATED)


@pytest.mark.parametrize(
    "header", [b"\xff" * 200_000, b"\x02\x01" + b"\x03" * 50, b"\xfe\xff\xff\x7f" + b"\0" * 100]
)
def test_a_damaged_header_of_avro_is_no_long_search(header: bytes) -> None:
    failed = examined("a.avro", b"Obj\x01" + header).failed
    assert failed is not None
    assert failed.check is Check.FORMAT


def test_a_comment_may_look_like_the_end_of_a_zip() -> None:
    assert examined("a.zip", zipped(("a", TEXT), comment=b"PK\x05\x06 is how it ends")).failed is None


def test_a_zip_without_its_beginning_is_found() -> None:
    failed = examined("a.zip", ZIP[:4] + ZIP[5000:]).failed
    assert failed is not None
    assert "has no directory at the end" in failed.message


def test_a_parquet_file_that_is_shorter_than_its_footer_is_found() -> None:
    failed = examined("a.parquet", PARQUET[:4] + PARQUET[-100:]).failed
    assert failed is not None
    assert "its footer alone has" in failed.message


def test_an_encrypted_member_of_a_zip_is_passed_over() -> None:
    data = bytearray(ZIP)
    at = data.rfind(b"PK\x01\x02", 0, data.rfind(b"PK\x01\x02"))
    data[at + 8] |= 1
    data[data.rfind(b"PK\x01\x02") + 8] |= 1
    assert examined("a.zip", bytes(data), deep=True).failed is None


def test_a_method_that_is_not_known_here_is_passed_over() -> None:
    data = bytearray(ZIP)
    last = data.rfind(b"PK\x01\x02")
    first = data.rfind(b"PK\x01\x02", 0, last)
    data[first + 10] = data[last + 10] = data[8] = 97
    assert examined("a.zip", bytes(data), deep=True).failed is None


def test_the_first_line_is_compared_also_of_a_gzip_file() -> None:
    rules = {"csv": {"header": "same"}}
    assert examined("a.csv", b"id,name\r\n1,x\r\n", **rules)[2:] == ("csv", "id,name")
    assert examined("a.tsv", b"id\tname\n", **rules)[2:] == ("tsv", "id\tname")
    assert examined("a.csv.gz", gzip.compress(b"id,name\n1,x\n" * 50_000), **rules)[2:] == ("csv", "id,name")
    assert examined("a.csv", b"", **rules)[2:] == ("csv", "")
    assert examined("a.csv", b"no end of line", **rules)[2:] == ("csv", "no end of line")
    assert examined("a.json", b"id\n", **rules)[2:] == ("", None)
    assert len(examined("a.csv", b"x" * 200_000, **rules).shape or "") == 64 * 1024
    cut = examined("a.csv.gz", GZIP[:12], **rules).failed
    assert cut is not None
    assert cut.check is Check.TRUNCATED


def test_the_schema_is_parquets_own() -> None:
    rules = {"parquet": {"schema": "same"}}
    shape = examined("a.parquet", PARQUET, **rules).shape
    assert shape == '[["id", "INT64", true], ["name", "BYTE_ARRAY String", true]]'
    # the writer's own notes about a column are not compared
    categories = TABLE.set_column(1, "name", TABLE["name"].dictionary_encode())
    other = written(lambda sink: parquet.write_table(categories, sink))
    assert examined("a.parquet", other, **rules).shape == shape
    broken = PARQUET[:-60] + b"\xff" * 40 + PARQUET[-20:]
    failed = examined("a.parquet", broken, **rules).failed
    assert failed is None or failed.check is Check.FORMAT
    garbage = examined(
        "a.parquet", b"PAR1" + b"\xff" * 50 + (50).to_bytes(4, "little") + b"PAR1", **rules
    ).failed
    assert garbage is not None
    assert garbage.message.startswith("its footer cannot be read: ")


def test_little_is_read_and_a_small_file_once() -> None:
    reads: list[tuple[str, int]] = []
    large = b"PAR1" + bytes(1_000_000) + (100).to_bytes(4, "little") + b"PAR1"
    small = b"PAR1" + bytes(100) + (100).to_bytes(4, "little") + b"PAR1"
    source = MemorySource({"a.parquet": large, "b.parquet": small, "c.csv": b"x", "d.gz": GZIP})
    source.on_read = lambda name, offset: reads.append((name, offset))
    for file in source.scan(Period.none()):
        assert isinstance(file, SourceFile)
        assert examine(source, file, Checks(), lambda: None).failed is None
    assert reads == [("a.parquet", 0), ("a.parquet", len(large) - 8), ("b.parquet", 0), ("d.gz", 0)]


def test_a_missing_library_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise ImportError(name)

    monkeypatch.setattr(formats, "import_module", missing)
    for name, checks in (("a.zst", {"deep": True}), ("a.parquet", {"parquet": {"schema": "same"}})):
        with pytest.raises(SourceUnreadable, match="need pyarrow, which is not installed") as caught:
            examined(name, SOUND[name], **checks)
        assert caught.value.hint == "install it with `pip install 'xmode-transfer[formats]'`"
    assert examined("a.zst", ZSTD).failed is None


def test_nothing_is_read_of_other_formats() -> None:
    assert not is_examined("a.csv", Checks())
    assert not is_examined("dir.parquet/a", Checks())
    assert is_examined("a.csv", Checks.model_validate({"csv": {"header": "same"}}))
    assert is_examined("a.csv.gz", Checks())


def test_a_file_that_changes_meanwhile_is_no_verdict() -> None:
    source = MemorySource({"a.gz": b"not gzip"})
    (file,) = source.scan(Period.none())
    assert isinstance(file, SourceFile)
    source.on_read = lambda name, _: source.touch(name)
    with pytest.raises(SourceChanged):
        examine(source, file, Checks(), lambda: None)
    source = MemorySource({"a.gz": GZIP})
    source.make_unreadable("a.gz")
    (file,) = source.scan(Period.none())
    assert isinstance(file, SourceFile)
    with pytest.raises(SourceUnreadable):
        examine(source, file, Checks(), lambda: None)


@pytest.mark.parametrize("name", WHEN_DEEP)
def test_reading_through_stops_on_request_and_passes_on_the_sources_errors(name: str) -> None:
    source = MemorySource({name: WHEN_DEEP[name]})
    (file,) = source.scan(Period.none())
    assert isinstance(file, SourceFile)
    calls = 0

    def check_stop() -> None:
        nonlocal calls
        calls += 1
        if calls > 1:
            raise Interrupted("stopped on request")

    with pytest.raises(Interrupted):
        examine(source, file, Checks(deep=True), check_stop)
    reads = 0

    def shrink(read: str, _: int) -> None:
        nonlocal reads
        reads += 1
        if reads == 2:
            source.overwrite(read, b"")

    source.on_read = shrink
    with pytest.raises(SourceChanged):
        examine(source, file, Checks(deep=True), lambda: None)

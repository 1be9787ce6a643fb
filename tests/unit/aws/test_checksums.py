"""Checksums, and the bodies that compute them while they are sent."""

import base64
import hashlib
import io
import zlib
from typing import Any

import pytest
from awscrt import checksums as crt
from hypothesis import given
from hypothesis import strategies as st

from xmode_transfer.aws import checksums
from xmode_transfer.aws.checksums import BodyFailed, StreamedBody, read_whole
from xmode_transfer.model.errors import RequestRefused, SourceChanged

data = st.binary(max_size=4096)


@given(st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1), st.integers(1, 2**45))
def test_the_arithmetic_agrees_with_awscrt(first: int, second: int, length: int) -> None:
    assert checksums.combine_by_arithmetic(first, second, length) == crt.combine_crc32(first, second, length)


@given(st.lists(data, max_size=8))
def test_the_whole_follows_from_its_parts(parts: list[bytes]) -> None:
    combined = checksums.combine_parts((zlib.crc32(part), len(part)) for part in parts)
    assert combined == zlib.crc32(b"".join(parts))


@given(st.lists(data, max_size=8))
def test_the_whole_follows_from_its_parts_without_awscrt(parts: list[bytes]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(checksums, "_crt", None)
        combined = checksums.combine_parts((zlib.crc32(part), len(part)) for part in parts)
    assert combined == zlib.crc32(b"".join(parts))


def test_the_wire_form_is_s3s_own() -> None:
    # The catalogue value of CRC-32/ISO-HDLC for the nine digits is 0xCBF43926.
    assert checksums.encode(checksums.crc32(b"123456789")) == "y/Q5Jg=="
    assert checksums.encode(0) == "AAAAAA=="


@given(st.integers(0, 2**32 - 1))
def test_the_wire_form_goes_both_ways(value: int) -> None:
    assert checksums.decode(checksums.encode(value)) == value


def test_a_multipart_etag_is_the_md5_of_the_parts_md5s() -> None:
    parts = [hashlib.md5(content, usedforsecurity=False) for content in (b"one", b"two")]
    whole = hashlib.md5(b"".join(part.digest() for part in parts), usedforsecurity=False).hexdigest()
    assert checksums.multipart_etag([f'"{part.hexdigest()}"' for part in parts]) == f'"{whole}-2"'


@pytest.mark.parametrize("etag", ['"e-2"', '"abcd"', ""])
def test_a_multipart_etag_does_not_follow_from_etags_that_are_no_md5(etag: str) -> None:
    assert checksums.multipart_etag(["0" * 32, etag]) is None


@pytest.mark.parametrize("text", ["y/Q5Jg==-3", "AAAA", "", "not base64!"])
def test_what_is_not_a_crc32_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        checksums.decode(text)


class Content:
    """An open file over bytes."""

    def __init__(self, content: bytes, size: int | None = None) -> None:
        self.content = content
        self.size = len(content) if size is None else size

    def read_into(self, buffer: memoryview, offset: int) -> int:
        piece = self.content[offset : offset + len(buffer)]
        buffer[: len(piece)] = piece
        return len(piece)


@pytest.mark.parametrize(
    ("algorithm", "expected"),
    [
        # Check values of the catalogue of CRCs for the nine digits.
        ("crc32", "cbf43926"),
        ("crc32c", "e3069283"),
        ("crc64nvme", "ae8b14860a799888"),
        ("sha1", hashlib.sha1(b"123456789").hexdigest()),
        ("sha256", hashlib.sha256(b"123456789").hexdigest()),
    ],
)
def test_a_files_checksum_is_written_as_s3_writes_it(algorithm: str, expected: str) -> None:
    assert base64.b64decode(checksums.of(Content(b"123456789"), algorithm)).hex() == expected


def test_a_file_larger_than_a_chunk_is_read_to_its_end() -> None:
    content = bytes(range(256)) * 10_000
    assert checksums.decode(checksums.of(Content(content), "crc32")) == zlib.crc32(content)


def test_an_empty_file_has_a_checksum() -> None:
    assert checksums.of(Content(b""), "crc32") == "AAAAAA=="


def test_a_file_that_became_shorter_is_refused() -> None:
    with pytest.raises(SourceChanged, match="ends at byte 3"):
        checksums.of(Content(b"abc", size=5), "crc32")


def test_an_unknown_algorithm_is_refused() -> None:
    with pytest.raises(RequestRefused, match="md4"):
        checksums.of(Content(b"abc"), "md4")


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checksums, "_CHUNK_BYTES", 16)
    monkeypatch.setattr(checksums, "_CHUNK_BYTES", 16)


def streamed(file: Any, offset: int = 0, length: int | None = None) -> StreamedBody:
    length = file.size - offset if length is None else length
    return StreamedBody(file, offset, length, zlib.crc32(file.content[offset : offset + length]))


def drain(body: StreamedBody, into: bytearray) -> None:
    while piece := body.read(10):
        into += piece


class File:
    """Bytes that can be changed while they are read."""

    def __init__(self, content: bytes) -> None:
        self.content = content
        self.size = len(content)
        self.changed = False
        self.checks = 0

    def read_at(self, offset: int, length: int) -> bytes:
        return self.content[offset : offset + length]

    def read_into(self, buffer: memoryview, offset: int) -> int:
        piece = self.content[offset : offset + len(buffer)]
        buffer[: len(piece)] = piece
        return len(piece)

    def check_unchanged(self) -> None:
        self.checks += 1
        if self.changed:
            raise SourceChanged("changed")


steps = st.lists(
    st.one_of(
        st.tuples(st.just("read"), st.integers(-1, 40)),
        st.tuples(st.just("seek"), st.integers(0, 120)),
    ),
    max_size=20,
)


@given(st.binary(max_size=100), st.integers(0, 100), steps)
def test_it_reads_and_seeks_as_a_file_does(content: bytes, offset: int, asked: list[tuple[str, int]]) -> None:
    offset = min(offset, len(content))
    plain = io.BytesIO(content[offset:])
    body = streamed(File(content), offset)
    for step, number in asked:
        if step == "read":
            assert body.read(number) == plain.read(number)
        else:
            number = min(number, len(content) - offset)
            assert body.seek(number) == plain.seek(number)
        assert body.tell() == plain.tell()


@given(st.binary(max_size=100), st.integers(1, 30))
def test_a_second_reading_gives_the_same_bytes(content: bytes, size: int) -> None:
    body = streamed(File(content))
    for _ in range(2):
        body.seek(0)
        assert b"".join(iter(lambda: body.read(size), b"")) == content


@given(st.binary(min_size=1, max_size=100), st.data())
def test_a_range_of_a_file_has_the_ranges_crc(content: bytes, data: st.DataObject) -> None:
    offset = data.draw(st.integers(0, len(content) - 1))
    length = data.draw(st.integers(0, len(content) - offset))
    piece = content[offset : offset + length]
    assert checksums.decode(checksums.of(File(content), "crc32", offset, length)) == zlib.crc32(piece)
    assert read_whole(File(content), offset, length) == (piece, zlib.crc32(piece))


def test_the_last_bytes_are_not_given_out_of_a_file_that_changed() -> None:
    file = File(bytes(range(100)))
    body = streamed(file)
    given_out = bytearray(body.read(16))
    file.changed = True
    with pytest.raises(BodyFailed) as caught:
        drain(body, given_out)
    assert isinstance(caught.value.error, SourceChanged)
    assert len(given_out) < 100
    assert body.failed is caught.value.error


def test_bytes_that_changed_without_a_sign_are_noticed() -> None:
    file = File(bytes(100))
    body = streamed(file)
    given_out = bytearray(body.read(50))
    file.content = bytes(70) + b"!" + bytes(29)
    with pytest.raises(BodyFailed) as caught:
        drain(body, given_out)
    assert "two readings" in str(caught.value.error)
    assert len(given_out) < 100


def test_a_file_that_shrinks_is_noticed() -> None:
    file = File(bytes(100))
    body = streamed(file)
    file.content = bytes(40)
    with pytest.raises(BodyFailed) as caught:
        body.read()
    assert "ends at byte 40" in str(caught.value.error)


def test_once_refused_it_stays_refused() -> None:
    file = File(bytes(100))
    file.changed = True
    body = streamed(file)
    for _ in range(2):
        body.seek(0)
        with pytest.raises(BodyFailed):
            body.read()
        file.changed = False


def test_the_check_comes_after_the_last_read() -> None:
    file = File(bytes(100))
    body = streamed(file)
    for _ in range(6):
        body.read(16)
    assert file.checks == 0
    assert body.read(16) == bytes(4)
    assert file.checks == 1


def test_a_file_in_memory_is_checked_too() -> None:
    file = File(bytes(10))
    file.changed = True
    with pytest.raises(SourceChanged):
        read_whole(file, 0, 10)


def test_the_length_is_known() -> None:
    assert len(streamed(File(bytes(100)), 10, 50)) == 50

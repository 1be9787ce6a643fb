"""CRC32: the same number from every way of computing it."""

import base64
import hashlib
import zlib

import pytest
from awscrt import checksums as crt
from hypothesis import given
from hypothesis import strategies as st

from xmode_transfer.aws import checksums
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

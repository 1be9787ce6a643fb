"""What the CRT reports, as domain values and domain errors."""

from collections.abc import Iterable
from datetime import datetime
from typing import NamedTuple

from awscrt.exceptions import AwsCrtError
from awscrt.s3 import S3ResponseError

from xmode_transfer.aws.checksums import ALGORITHM
from xmode_transfer.aws.s3_errors import (
    CERTIFICATE_HINT,
    NETWORK_HINT,
    Answer,
    Attempt,
    answer_of_body,
    error_for,
)
from xmode_transfer.aws.stores import PutAnswer
from xmode_transfer.model.errors import CertificateRefused, RequestRefused, Unavailable, XmodeError
from xmode_transfer.model.records import Checksum

Headers = Iterable[tuple[str, str]]

# The CRT keeps these answers to itself, their headers and words included, because its own retries would deal
# with them (tried with awscrt 0.38; docs/engine.md).
_SWALLOWED = {
    "AWS_ERROR_S3_SLOW_DOWN": Answer(503, "", ""),
    "AWS_ERROR_S3_INTERNAL_ERROR": Answer(500, "", ""),
    "AWS_ERROR_S3_REQUEST_TIMEOUT": Answer(400, "RequestTimeout", ""),
    "AWS_ERROR_S3_REQUEST_TIME_TOO_SKEWED": Answer(403, "RequestTimeTooSkewed", ""),
}
_REFUSED_HINT = "The request could not be sent as it is; report it with the log, it is a defect of ours"
_OF_THE_NETWORK = ("AWS_IO_", "AWS_ERROR_HTTP_", "AWS_ERROR_S3_", "AWS_ERROR_CRT_", "AWS_ERROR_SYS_")


class Failure(NamedTuple):
    """Why a request came to nothing. ``answer`` is what S3 said, where the CRT tells; ``swallowed`` means
    that the CRT keeps it to itself, and ``hopeless`` that another attempt through the CRT would end alike:
    botocore then says more."""

    error: XmodeError
    answer: Answer | None = None
    swallowed: bool = False
    hopeless: bool = False


def failure_of(error: BaseException, attempt: Attempt, now: datetime) -> Failure:
    """The domain error for what the CRT's ``on_done`` reports. ``now`` is our clock's time."""
    if isinstance(error, S3ResponseError) and error.status_code:
        answer = answer_of_body(error.status_code, dict(error.headers or ()), error.body or b"")
        return Failure(error_for(answer, attempt, now), answer)
    if not isinstance(error, AwsCrtError):
        return Failure(RequestRefused(f"{attempt}: {error}", hint=_REFUSED_HINT))
    known = _SWALLOWED.get(error.name)
    if known is not None:
        told = error_for(known, attempt, now)
        return Failure(told, swallowed=True, hopeless=not told.retryable)
    words = f"{attempt}: {error.message.rstrip('.')} ({error.name})"
    if "_TLS_" in error.name:
        # s2n lets 10 to 30 seconds pass before it says so, each time
        return Failure(CertificateRefused(words, hint=CERTIFICATE_HINT), hopeless=True)
    if error.name.startswith(_OF_THE_NETWORK):
        return Failure(Unavailable(words, hint=NETWORK_HINT))
    return Failure(RequestRefused(words, hint=_REFUSED_HINT))


_OF_PUT = {
    "etag": 0,
    "x-amz-version-id": 1,
    "x-amz-server-side-encryption": 2,
    "x-amz-checksum-crc32": 3,
}


def put_answer(headers: Headers, value: str) -> PutAnswer:
    """What S3 acknowledged of a body whose CRC32 is ``value``, as S3 writes it."""
    found: list[str | None] = [None, None, None, None]
    for name, text in headers:
        place = _OF_PUT.get(name.lower())
        if place is not None:
            found[place] = text
    etag, version_id, encryption, checksum = found
    return PutAnswer(etag or "", Checksum(ALGORITHM, value), version_id, checksum == value, encryption)

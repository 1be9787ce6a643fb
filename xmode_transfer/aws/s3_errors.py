"""What an answer of S3 means: its codes and statuses as domain errors. Both engines share this.

Sources: S3 API reference, "Error responses"; what differs for one operation is said where it is decided.
AWS's own words go into the message for the person who reads it; no decision hangs on free text, except which
key a KMS refusal names, which member a checksum refusal names, and which kind of policy a denial names.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Any, TypeVar

from botocore import exceptions as aws
from botocore.parsers import ResponseParserError

from xmode_transfer.aws.denials import PolicyType, denial_in, named, responsible_of
from xmode_transfer.model.errors import (
    AccessDenied,
    BucketMissing,
    CertificateRefused,
    ChecksumMismatch,
    ClockSkew,
    DeniedByUs,
    KmsDenied,
    ObjectExists,
    ObjectNotFound,
    PartsRefused,
    RequestRefused,
    Responsible,
    SessionExpired,
    StoreError,
    Throttled,
    Unavailable,
    UploadNotFound,
    WrongBucketOwner,
    XmodeError,
)
from xmode_transfer.model.keys import visible

E = TypeVar("E", bound=XmodeError)
AWS_ERRORS = (aws.ClientError, aws.BotoCoreError, ResponseParserError)
"""The exceptions of a call through botocore, besides those of a body of ours."""
NETWORK_ERRORS = (aws.ConnectionError, aws.HTTPClientError, aws.IncompleteReadError)


@dataclass(frozen=True, slots=True)
class Attempt:
    """What was asked: S3's name of the operation, the bucket, and the key where there is one."""

    operation: str
    bucket: str
    key: str | None = None

    def __str__(self) -> str:
        return f"{self.operation} on s3://{self.bucket}" + (f"/{self.key}" if self.key is not None else "")


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer that is not success. Header names are in lower case. ``code`` is empty where S3 sends no body
    (HEAD)."""

    status: int
    code: str
    text: str
    headers: Mapping[str, str] = field(default_factory=dict)

    @property
    def request_id(self) -> str | None:
        return self.headers.get("x-amz-request-id") or self.headers.get("x-amzn-requestid")

    @property
    def said(self) -> str:
        """Status, code and AWS's own words, for a message."""
        said = f"{self.status or ''} {self.code}".strip()
        return f"{said} ({self.text})" if self.text else said

    def error(self, kind: type[E], message: str, hint: str) -> E:
        """A domain error with what AWS calls it."""
        return kind(
            message,
            hint=hint,
            aws_code=self.code or None,
            http_status=self.status or None,
            request_id=self.request_id,
        )

    @property
    def bucket_region(self) -> str | None:
        """S3 names the bucket's Region even when it refuses the request (S3 API reference, HeadBucket)."""
        return self.headers.get("x-amz-bucket-region")


_EXPIRED = frozenset(
    {"ExpiredToken", "ExpiredTokenException", "InvalidToken", "TokenRefreshRequired", "InvalidAccessKeyId"}
)
_THROTTLED = frozenset(
    {
        "BandwidthLimitExceeded",
        "RequestLimitExceeded",
        "ServiceUnavailable",
        "SlowDown",
        "Throttling",
        "ThrottlingException",
        "TooManyRequests",
        "TooManyRequestsException",
    }
)
_UNAVAILABLE = frozenset({"IncompleteBody", "InternalError", "OperationAborted", "RequestTimeout"})
_MISMATCH = frozenset({"BadDigest", "XAmzContentChecksumMismatch", "XAmzContentSHA256Mismatch"})
_SKEWED = frozenset({"RequestExpired", "RequestTimeTooSkewed"})
_PARTS_GONE = frozenset({"InvalidPart", "InvalidPartOrder"})
_ELSEWHERE = frozenset(
    {
        "AuthorizationHeaderMalformed",
        "IllegalLocationConstraintException",
        "PermanentRedirect",
        "TemporaryRedirect",
    }
)
_CONFLICT = "ConditionalRequestConflict"
_NEVER_RETRIED_HINT = (
    "S3 will never accept this request; report it with the request ID, it is a defect of ours unless "
    "the store is not AWS's"
)
_DENIED_HINT = (
    "Compare the role's permission policy and the bucket policy with the setup guide, steps 7 and 8 "
    "(`xmode-transfer check-access` says which verb is refused). S3 gives the same answer when the bucket "
    "belongs to another account than destination.bucket_owner says, and when its network rules refuse us"
)
_BUCKET_HINT = "Compare destination.bucket; ask the customer whether the bucket was renamed or deleted"
_KMS_HINT = (
    "The bucket encrypts with a KMS key: the role's policy and the key's policy must both allow "
    "kms:GenerateDataKey and kms:Decrypt, and the guide's Deny statement must except them"
)
_CHECKSUM_HINT = (
    "Tried again by itself. If it stays and the store is not AWS's, set destination.checksums to none"
)
CERTIFICATE_HINT = "The server's certificate is not accepted: look at AWS_CA_BUNDLE and this machine's clock"
NETWORK_HINT = "Tried again by itself. If it stays, look at this machine's network, proxy and DNS"


def error_for(answer: Answer, attempt: Attempt, now: datetime) -> XmodeError:
    """The domain error for an answer. ``now`` is our clock's time, for the measure of a skewed one."""
    kind, hint = _kind(answer, attempt)
    return answer.error(kind, f"{attempt}: {_words(kind, answer, attempt, now)}", hint)


def _kind(answer: Answer, attempt: Attempt) -> tuple[type[StoreError | SessionExpired], str]:
    code, status = answer.code, answer.status
    if code in _EXPIRED or (not code and status == 400 and attempt.operation.startswith("Head")):
        # A HEAD has no body: an expired session shows as a bare 400.
        return SessionExpired, "Tried again with a new session"
    if code in _SKEWED:
        return ClockSkew, "Set this machine's clock (chrony or ntpd); AWS accepts at most 15 minutes"
    if code in _THROTTLED or status in (429, 503):
        return Throttled, "Tried again by itself, more slowly"
    if code in _MISMATCH:
        return ChecksumMismatch, _CHECKSUM_HINT
    if code.startswith("KMS.") or (status == 403 and "kms:" in answer.text.lower()):
        return KmsDenied, _KMS_HINT
    if code == "NoSuchBucket":
        return BucketMissing, _BUCKET_HINT
    if code == "NoSuchUpload" or code in _PARTS_GONE:
        return UploadNotFound, ""
    if code == _CONFLICT and attempt.operation == "CompleteMultipartUpload":
        # S3 API reference, CompleteMultipartUpload: after this 409 the whole upload must be done anew.
        return UploadNotFound, ""
    if status == 412:
        return ObjectExists, "A HEAD tells whether the object is ours"
    if code == "NoSuchKey" or status == 404:
        return ObjectNotFound, ""
    if status == 403:
        return _refusal(answer, attempt)
    if code in _UNAVAILABLE or status == 409 or (status >= 500 and status != 501):
        return Unavailable, "Tried again by itself"
    if status == 501:
        return RequestRefused, "The store does not know this feature of S3"
    if code in _ELSEWHERE or status in (301, 302, 307):
        return (
            RequestRefused,
            f"Set destination.region to {answer.bucket_region or 'the Region of the bucket'}",
        )
    return RequestRefused, _NEVER_RETRIED_HINT


def _refusal(answer: Answer, attempt: Attempt) -> tuple[type[StoreError], str]:
    if answer.code == "SignatureDoesNotMatch":
        return (
            RequestRefused,
            "Something between us and S3 changes requests (a proxy, destination.addressing)",
        )
    if "expected bucket owner" in answer.text.lower():
        return (
            WrongBucketOwner,
            "Ask the customer which account owns the bucket; see destination.bucket_owner",
        )
    if attempt.operation in ("UploadPart", "CompleteMultipartUpload"):
        # CreateMultipartUpload was let in, its parts are not: a policy asks for an ACL that parts cannot
        # carry.
        return PartsRefused, (
            "Single uploads are used instead, up to 5 GiB. For larger files the customer must allow "
            "s3:PutObject without the ACL condition on parts (`xmode-transfer policy print` has the "
            "statement)"
        )
    denial = denial_in(answer.text)
    if denial is None or (denial.policy is PolicyType.IDENTITY and not denial.explicit):
        return AccessDenied, _DENIED_HINT
    helps = (
        "no Allow helps, the Deny has to except us" if denial.explicit else "an Allow elsewhere is no help"
    )
    hint = f"AWS: {named(denial)}, so that {helps}. `xmode-transfer check-access` says where to change it"
    return (DeniedByUs if responsible_of(denial) is Responsible.VENDOR else AccessDenied), hint


def _words(kind: type[XmodeError], answer: Answer, attempt: Attempt, now: datetime) -> str:
    said = answer.said
    if kind is ClockSkew:
        difference = clock_difference(answer, now)
        skew = "more than 15 minutes from" if difference is None else skewed(difference)
        return f"{said}. This machine's clock is {skew} AWS's"
    if kind is UploadNotFound and answer.code != "NoSuchUpload":
        return f"{said}. This multipart upload cannot be completed any more"
    if kind is ObjectExists and attempt.operation.startswith("DeleteObject"):
        return f"{said}. The object is no longer the one that was to be deleted"
    if kind is ObjectExists:
        return f"{said}. There is already an object under this key"
    return said


def skewed(difference: timedelta) -> str:
    seconds = round(difference.total_seconds())
    return f"{abs(seconds)} s {'ahead of' if seconds > 0 else 'behind'}"


def clock_difference(answer: Answer, now: datetime) -> timedelta | None:
    """Our clock less AWS's, by the answer's Date header; None when it has none."""
    try:
        return now - parsedate_to_datetime(answer.headers.get("date", ""))
    except (TypeError, ValueError):
        return None


def bucket_missing(bucket: str, error: XmodeError) -> BucketMissing:
    """What a bare 404 of HeadBucket means."""
    return BucketMissing(
        f"there is no bucket {bucket}",
        hint=_BUCKET_HINT,
        http_status=error.http_status,
        request_id=error.request_id,
    )


def answer_of(error: aws.ClientError) -> Answer:
    """The answer inside botocore's exception; tolerant of servers that leave members out."""
    response: Mapping[str, Any] = error.response or {}
    meta = response.get("ResponseMetadata") or {}
    detail = response.get("Error") or {}
    status = int(meta.get("HTTPStatusCode") or 0)
    code = str(detail.get("Code") or "")
    if code.isascii() and code.isdigit():  # botocore puts the status here when there was no body
        status, code = status or int(code), ""
    return Answer(
        status=status,
        code=one_line(code),
        text=one_line(str(detail.get("Message") or "")) if code else "",
        headers=_lowered(meta.get("HTTPHeaders") or {}),
    )


_MOST_SAID = 2000
_ELEMENT = re.compile(rb"<(Code|Message|Region)>([^<]{0,2000})</\1>")


def answer_of_body(status: int, headers: Mapping[str, str], body: bytes) -> Answer:
    """The answer from raw HTTP: status, headers and S3's XML document (only its flat elements are looked
    at)."""
    found = {
        name.decode(): one_line(_unescape(value.decode("utf-8", "replace")))
        for name, value in _ELEMENT.findall(body[:65536])
    }
    lowered = _lowered(headers)
    if "Region" in found:
        lowered.setdefault("x-amz-bucket-region", found["Region"])
    return Answer(status, found.get("Code", ""), found.get("Message", ""), lowered)


UNREADABLE = (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError)
"""What comes of an answer that has not what S3 puts into it: no size, a date that is none."""


def unreadable(attempt: Attempt | str, error: Exception, *, service: str = "S3") -> Unavailable:
    """Return the error for an answer without its required members."""
    return Unavailable(
        f"{attempt}: the answer is not as {service} gives it: {type(error).__name__} {one_line(str(error))}",
        hint=f"Look at AWS_ENDPOINT_URL and AWS_ENDPOINT_URL_{service}, and at the proxy between. Tried "
        "again by itself",
    )


def one_line(said: str) -> str:
    """What the other side said, for a sentence of ours: on one line, seen as it is, and not without end."""
    return visible(" ".join(said[:_MOST_SAID].split()))


def _lowered(headers: Mapping[str, Any]) -> dict[str, str]:
    return {str(name).lower(): one_line(str(value)) for name, value in headers.items()}


def _unescape(text: str) -> str:
    for entity, character in (("&lt;", "<"), ("&gt;", ">"), ("&quot;", '"'), ("&apos;", "'"), ("&amp;", "&")):
        text = text.replace(entity, character)
    return text


def error_without_answer(error: Exception, attempt: Attempt) -> XmodeError:
    """The domain error for what botocore raises when there was no answer, or none that can be read."""
    words = f"{attempt}: {one_line(str(error))}"
    if isinstance(error, aws.ParamValidationError | aws.InvalidRegionError):
        return RequestRefused(words, hint=_NEVER_RETRIED_HINT)
    if isinstance(error, aws.FlexibleChecksumError):
        return ChecksumMismatch(words, hint=_CHECKSUM_HINT)
    if isinstance(error, aws.SSLError):
        return CertificateRefused(words, hint=CERTIFICATE_HINT)
    if isinstance(error, NETWORK_ERRORS):
        return Unavailable(words, hint=NETWORK_HINT)
    if type(error).__name__ in ("ResponseParserError", "ResponseStreamingError"):
        return Unavailable(words, hint="The answer could not be read. " + NETWORK_HINT)
    return RequestRefused(words, hint=_NEVER_RETRIED_HINT)

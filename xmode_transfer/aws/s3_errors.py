"""The meaning of S3's answers, for both engines: codes and statuses as domain errors.

Sources: S3 API reference, "Error responses". No decision depends on AWS's free text, except which key a KMS
refusal, which member a checksum refusal, and which policy a denial names.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Any, TypeVar
from xml.sax.saxutils import unescape

from botocore import exceptions as aws
from botocore.parsers import ResponseParserError

from xmode_transfer.aws.denials import PolicyType, denial_in, named, responsible_of
from xmode_transfer.model import errors
from xmode_transfer.model.keys import visible

E = TypeVar("E", bound=errors.XmodeError)
AWS_ERRORS = (aws.ClientError, aws.BotoCoreError, ResponseParserError)
"""The exceptions of a call through botocore, besides those of a body of ours."""
NETWORK_ERRORS = (aws.ConnectionError, aws.HTTPClientError, aws.IncompleteReadError)


@dataclass(frozen=True, slots=True)
class Attempt:
    operation: str
    bucket: str
    key: str | None = None

    def __str__(self) -> str:
        return f"{self.operation} on s3://{self.bucket}" + (f"/{self.key}" if self.key is not None else "")


@dataclass(frozen=True, slots=True)
class Answer:
    """A failure. Header names are in lower case. ``code`` is empty if S3 sends no body (HEAD)."""

    status: int
    code: str
    text: str
    headers: Mapping[str, str] = field(default_factory=dict)

    @property
    def request_id(self) -> str | None:
        return self.headers.get("x-amz-request-id") or self.headers.get("x-amzn-requestid")

    @property
    def said(self) -> str:
        said = f"{self.status or ''} {self.code}".strip()
        return f"{said} ({self.text})" if self.text else said

    @property
    def bucket_region(self) -> str | None:
        """The bucket's Region, which S3 names even in a refusal (S3 API reference, HeadBucket)."""
        return self.headers.get("x-amz-bucket-region")

    def error(self, kind: type[E], message: str, hint: str) -> E:
        """Return a domain error with AWS's code and request ID."""
        return kind(
            message,
            hint=hint,
            aws_code=self.code or None,
            http_status=self.status or None,
            request_id=self.request_id,
        )


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
_CLOCK_HINT = "Set this machine's clock (chrony or ntpd); AWS accepts at most 15 minutes"
_TRIED_AGAIN = "Tried again by itself"
_CHECKSUM_HINT = f"{_TRIED_AGAIN}. If it stays and the store is not AWS's, set destination.checksums to none"
CERTIFICATE_HINT = "The server's certificate is not accepted: look at AWS_CA_BUNDLE and this machine's clock"
NETWORK_HINT = f"{_TRIED_AGAIN}. If it stays, look at this machine's network, proxy and DNS"


_Meaning = tuple[type[errors.StoreError | errors.SessionExpired], str]
_EXPIRED: _Meaning = (errors.SessionExpired, "Tried again with a new session")
_SLOW_DOWN: _Meaning = (errors.Throttled, f"{_TRIED_AGAIN}, more slowly")
_AWAY: _Meaning = (errors.Unavailable, _TRIED_AGAIN)
_UPLOAD_ENDED: _Meaning = (errors.UploadNotFound, "")
_ELSEWHERE: _Meaning = (errors.RequestRefused, "Set destination.region to {region}")
_MEANINGS: Mapping[str, _Meaning] = {
    code: meaning
    for meaning, codes in (
        (_EXPIRED, "ExpiredToken ExpiredTokenException InvalidToken TokenRefreshRequired InvalidAccessKeyId"),
        ((errors.ClockSkew, _CLOCK_HINT), "RequestExpired RequestTimeTooSkewed"),
        (_SLOW_DOWN, "BandwidthLimitExceeded RequestLimitExceeded ServiceUnavailable SlowDown"),
        (_SLOW_DOWN, "Throttling ThrottlingException TooManyRequests TooManyRequestsException"),
        ((errors.ChecksumMismatch, _CHECKSUM_HINT), "BadDigest XAmzContentChecksumMismatch"),
        ((errors.ChecksumMismatch, _CHECKSUM_HINT), "XAmzContentSHA256Mismatch"),
        ((errors.BucketMissing, _BUCKET_HINT), "NoSuchBucket"),
        ((errors.ObjectNotFound, ""), "NoSuchKey"),
        (_UPLOAD_ENDED, "NoSuchUpload InvalidPart InvalidPartOrder"),
        (_AWAY, "IncompleteBody InternalError OperationAborted RequestTimeout"),
        (_ELSEWHERE, "AuthorizationHeaderMalformed IllegalLocationConstraintException"),
        (_ELSEWHERE, "PermanentRedirect TemporaryRedirect"),
    )
    for code in codes.split()
}


def error_for(answer: Answer, attempt: Attempt, now: datetime) -> errors.XmodeError:
    """Return the domain error for an answer. ``now`` is our clock's time, to measure a clock skew."""
    kind, hint = _meaning(answer, attempt)
    hint = hint.replace("{region}", answer.bucket_region or "the Region of the bucket")
    return answer.error(kind, f"{attempt}: {_words(kind, answer, attempt, now)}", hint)


def _meaning(answer: Answer, attempt: Attempt) -> _Meaning:
    code, status = answer.code, answer.status
    known = _MEANINGS.get(code)
    if known in (None, _AWAY) and status in (429, 503):
        return _SLOW_DOWN
    if known is not None:
        return known
    if not code and status == 400 and attempt.operation.startswith("Head"):
        return _EXPIRED  # a HEAD has no body: an expired session is a bare 400
    if code.startswith("KMS.") or (status == 403 and "kms:" in answer.text.lower()):
        return errors.KmsDenied, _KMS_HINT
    if code == "ConditionalRequestConflict" and attempt.operation == "CompleteMultipartUpload":
        return _UPLOAD_ENDED  # the upload must be begun again (S3 API reference, CompleteMultipartUpload)
    if status == 412:
        return errors.ObjectExists, "A HEAD tells whether the object is ours"
    if status == 404:
        return errors.ObjectNotFound, ""
    if status == 403:
        return _refusal(answer, attempt)
    if status == 501:
        return errors.RequestRefused, "The store does not know this feature of S3"
    if status == 409 or status >= 500:
        return _AWAY
    if status in (301, 302, 307):
        return _ELSEWHERE
    return errors.RequestRefused, _NEVER_RETRIED_HINT


def _refusal(answer: Answer, attempt: Attempt) -> _Meaning:
    if answer.code == "SignatureDoesNotMatch":
        return (
            errors.RequestRefused,
            "Something between us and S3 changes requests (a proxy, destination.addressing)",
        )
    if "expected bucket owner" in answer.text.lower():
        return (
            errors.WrongBucketOwner,
            "Ask the customer which account owns the bucket; see destination.bucket_owner",
        )
    if attempt.operation in ("UploadPart", "CompleteMultipartUpload"):
        # CreateMultipartUpload was allowed: a policy requires an ACL, which parts cannot carry.
        return errors.PartsRefused, (
            "Single uploads are used instead, up to 5 GiB. For larger files the customer must allow "
            "s3:PutObject without the ACL condition on parts (`xmode-transfer policy print` has the "
            "statement)"
        )
    denial = denial_in(answer.text)
    if denial is None or (denial.policy is PolicyType.IDENTITY and not denial.explicit):
        return errors.AccessDenied, _DENIED_HINT
    helps = (
        "no Allow helps, the Deny has to except us" if denial.explicit else "an Allow elsewhere is no help"
    )
    hint = f"AWS: {named(denial)}, so that {helps}. `xmode-transfer check-access` says where to change it"
    ours = responsible_of(denial) is errors.Responsible.VENDOR
    return errors.DeniedByUs if ours else errors.AccessDenied, hint


def _words(kind: type[errors.XmodeError], answer: Answer, attempt: Attempt, now: datetime) -> str:
    said = answer.said
    if kind is errors.ClockSkew:
        difference = clock_difference(answer, now)
        skew = "more than 15 minutes from" if difference is None else skewed(difference)
        return f"{said}. This machine's clock is {skew} AWS's"
    if kind is errors.UploadNotFound and answer.code != "NoSuchUpload":
        return f"{said}. This multipart upload cannot be completed any more"
    if kind is errors.ObjectExists and attempt.operation.startswith("DeleteObject"):
        return f"{said}. The object is no longer the one that was to be deleted"
    if kind is errors.ObjectExists:
        return f"{said}. There is already an object under this key"
    return said


def skewed(difference: timedelta) -> str:
    seconds = round(difference.total_seconds())
    return f"{abs(seconds)} s {'ahead of' if seconds > 0 else 'behind'}"


def clock_difference(answer: Answer, now: datetime) -> timedelta | None:
    """Return our clock minus AWS's, by the answer's Date header; None without one."""
    try:
        return now - parsedate_to_datetime(answer.headers.get("date", ""))
    except (TypeError, ValueError):
        return None


def bucket_missing(bucket: str, error: errors.XmodeError) -> errors.BucketMissing:
    """Return the error for a bare 404 of HeadBucket."""
    return errors.BucketMissing(
        f"there is no bucket {bucket}",
        hint=_BUCKET_HINT,
        http_status=error.http_status,
        request_id=error.request_id,
    )


def answer_of(error: aws.ClientError) -> Answer:
    """Return the answer in botocore's exception. Members may be missing."""
    response: Mapping[str, Any] = error.response or {}
    meta = response.get("ResponseMetadata") or {}
    detail = response.get("Error") or {}
    status = int(meta.get("HTTPStatusCode") or 0)
    code = str(detail.get("Code") or "")
    if code.isascii() and code.isdigit():  # botocore puts the status here if there is no body
        status, code = status or int(code), ""
    return Answer(
        status=status,
        code=one_line(code),
        text=one_line(str(detail.get("Message") or "")) if code else "",
        headers=_lowered(meta.get("HTTPHeaders") or {}),
    )


_MAX_QUOTED = 2000
_QUOTES = {"&quot;": '"', "&apos;": "'"}
_ELEMENT = re.compile(rb"<(Code|Message|Region)>([^<]{0,2000})</\1>")


def answer_of_body(status: int, headers: Mapping[str, str], body: bytes) -> Answer:
    """Return the answer from raw HTTP: status, headers and the flat elements of S3's XML document."""
    found = {
        name.decode(): one_line(unescape(value.decode("utf-8", "replace"), _QUOTES))
        for name, value in _ELEMENT.findall(body[:65536])
    }
    lowered = _lowered(headers)
    if "Region" in found:
        lowered.setdefault("x-amz-bucket-region", found["Region"])
    return Answer(status, found.get("Code", ""), found.get("Message", ""), lowered)


UNREADABLE = (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError)
"""The exceptions that a malformed answer causes: one without a size, or with an invalid date."""


def unreadable(attempt: Attempt | str, error: Exception, *, service: str = "S3") -> errors.Unavailable:
    return errors.Unavailable(
        f"{attempt}: the answer is not as {service} gives it: {type(error).__name__} {one_line(str(error))}",
        hint=f"Look at AWS_ENDPOINT_URL and AWS_ENDPOINT_URL_{service}, and at the proxy between. Tried "
        "again by itself",
    )


def one_line(said: str) -> str:
    """Return the other side's words on one line, printable, and of limited length."""
    return visible(" ".join(said[:_MAX_QUOTED].split()))


def _lowered(headers: Mapping[str, Any]) -> dict[str, str]:
    return {str(name).lower(): one_line(str(value)) for name, value in headers.items()}


def error_without_answer(error: Exception, attempt: Attempt) -> errors.XmodeError:
    """Return the domain error for an exception of botocore without an answer, or with an unreadable one."""
    words = f"{attempt}: {one_line(str(error))}"
    if isinstance(error, aws.FlexibleChecksumError):
        return errors.ChecksumMismatch(words, hint=_CHECKSUM_HINT)
    if isinstance(error, aws.SSLError):
        return errors.CertificateRefused(words, hint=CERTIFICATE_HINT)
    if isinstance(error, NETWORK_ERRORS):
        return errors.Unavailable(words, hint=NETWORK_HINT)
    if type(error).__name__ in ("ResponseParserError", "ResponseStreamingError"):
        return errors.Unavailable(words, hint="The answer could not be read. " + NETWORK_HINT)
    return errors.RequestRefused(words, hint=_NEVER_RETRIED_HINT)

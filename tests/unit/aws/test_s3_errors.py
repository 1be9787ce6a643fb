"""What an answer of S3 means, as a table."""

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from botocore import exceptions as aws
from botocore.parsers import ResponseParserError

from xmode_transfer.aws.s3_errors import (
    Answer,
    Attempt,
    answer_of,
    answer_of_body,
    error_for,
    error_without_answer,
)
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
    SessionExpired,
    Throttled,
    Unavailable,
    UploadNotFound,
    WrongBucketOwner,
    XmodeError,
)

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
PUT = "PutObject"
KMS_TEXT = (
    "User: x is not authorized to perform: kms:GenerateDataKey on resource: arn:aws:kms:eu-west-1:1:key/2"
)


def meaning(operation: str, status: int, code: str = "", text: str = "", **headers: str) -> XmodeError:
    return error_for(Answer(status, code, text, headers), Attempt(operation, "acme-data", "xmode/a"), NOW)


@pytest.mark.parametrize(
    ("operation", "status", "code", "text", "kind"),
    [
        (PUT, 403, "AccessDenied", "Access Denied", AccessDenied),
        (PUT, 403, "AllAccessDisabled", "", AccessDenied),
        ("HeadObject", 403, "", "", AccessDenied),
        (PUT, 403, "AccessDenied", KMS_TEXT, KmsDenied),
        ("UploadPart", 403, "AccessDenied", KMS_TEXT, KmsDenied),
        (PUT, 400, "KMS.DisabledException", "", KmsDenied),
        ("UploadPart", 403, "AccessDenied", "", PartsRefused),
        ("CompleteMultipartUpload", 403, "AccessDenied", "", PartsRefused),
        ("CreateMultipartUpload", 403, "AccessDenied", "", AccessDenied),
        ("AbortMultipartUpload", 403, "AccessDenied", "", AccessDenied),
        (PUT, 403, "AccessDenied", "The expected bucket owner does not match", WrongBucketOwner),
        (PUT, 404, "NoSuchBucket", "", BucketMissing),
        ("GetObject", 404, "NoSuchKey", "", ObjectNotFound),
        ("HeadObject", 404, "", "", ObjectNotFound),
        ("UploadPart", 404, "NoSuchUpload", "", UploadNotFound),
        ("CompleteMultipartUpload", 400, "InvalidPart", "", UploadNotFound),
        ("CompleteMultipartUpload", 409, "ConditionalRequestConflict", "", UploadNotFound),
        (PUT, 409, "ConditionalRequestConflict", "", Unavailable),
        (PUT, 409, "OperationAborted", "", Unavailable),
        (PUT, 412, "PreconditionFailed", "", ObjectExists),
        ("DeleteObject", 412, "PreconditionFailed", "", ObjectExists),
        (PUT, 400, "BadDigest", "", ChecksumMismatch),
        (PUT, 400, "XAmzContentSHA256Mismatch", "", ChecksumMismatch),
        (PUT, 503, "SlowDown", "", Throttled),
        (PUT, 503, "ServiceUnavailable", "", Throttled),
        ("HeadObject", 503, "", "", Throttled),
        (PUT, 429, "TooManyRequests", "", Throttled),
        (PUT, 500, "InternalError", "", Unavailable),
        (PUT, 502, "", "", Unavailable),
        (PUT, 400, "RequestTimeout", "", Unavailable),
        (PUT, 400, "ExpiredToken", "", SessionExpired),
        (PUT, 400, "InvalidToken", "", SessionExpired),
        (PUT, 403, "InvalidAccessKeyId", "", SessionExpired),
        ("HeadObject", 400, "", "", SessionExpired),
        ("HeadBucket", 400, "", "", SessionExpired),
        (PUT, 403, "RequestTimeTooSkewed", "", ClockSkew),
        (PUT, 403, "SignatureDoesNotMatch", "", RequestRefused),
        (PUT, 400, "InvalidArgument", "", RequestRefused),
        (PUT, 400, "AccessControlListNotSupported", "", RequestRefused),
        (PUT, 400, "KeyTooLongError", "", RequestRefused),
        (PUT, 400, "EntityTooLarge", "", RequestRefused),
        (PUT, 400, "", "", RequestRefused),
        (PUT, 501, "NotImplemented", "", RequestRefused),
        (PUT, 301, "PermanentRedirect", "", RequestRefused),
        (PUT, 400, "AuthorizationHeaderMalformed", "", RequestRefused),
    ],
)
def test_each_answer_has_its_meaning(
    operation: str, status: int, code: str, text: str, kind: type[XmodeError]
) -> None:
    error = meaning(operation, status, code, text, **{"x-amz-request-id": "R1"})
    assert type(error) is kind
    assert error.aws_code == (code or None)
    assert error.http_status == status
    assert error.request_id == "R1"
    assert str(error).startswith(f"{operation} on s3://acme-data/xmode/a: {status}")
    assert text in error.message


@pytest.mark.parametrize(("minutes", "words"), [(30, "1800 s behind"), (-30, "1800 s ahead of")])
def test_a_wrong_clock_is_measured_by_the_answers_date(minutes: int, words: str) -> None:
    date = format_datetime(NOW + timedelta(minutes=minutes), usegmt=True)
    assert words in meaning(PUT, 403, "RequestTimeTooSkewed", date=date).message


@pytest.mark.parametrize("date", ["", "yesterday"])
def test_a_wrong_clock_that_cannot_be_measured_is_said_all_the_same(date: str) -> None:
    assert "more than 15 minutes" in meaning(PUT, 403, "RequestTimeTooSkewed", date=date).message


def test_the_buckets_region_is_in_the_hint() -> None:
    error = meaning(PUT, 301, "PermanentRedirect", **{"x-amz-bucket-region": "eu-central-1"})
    assert "destination.region to eu-central-1" in error.hint


@pytest.mark.parametrize("kind", [AccessDenied, KmsDenied, PartsRefused, ClockSkew, RequestRefused])
def test_what_is_not_tried_again_says_what_to_do(kind: type[XmodeError]) -> None:
    asked = {
        AccessDenied: (PUT, 403, "AccessDenied", ""),
        KmsDenied: (PUT, 403, "AccessDenied", KMS_TEXT),
        PartsRefused: ("UploadPart", 403, "AccessDenied", ""),
        ClockSkew: (PUT, 403, "RequestTimeTooSkewed", ""),
        RequestRefused: (PUT, 400, "InvalidArgument", ""),
    }
    error = meaning(*asked[kind])
    assert type(error) is kind
    assert not error.retryable
    assert error.hint


def test_botocores_exception_gives_the_whole_answer() -> None:
    error = aws.ClientError(
        {
            "Error": {"Code": "AccessDenied", "Message": "no"},
            "ResponseMetadata": {
                "HTTPStatusCode": 403,
                "HTTPHeaders": {"X-Amz-Request-Id": "R1", "x-amz-bucket-region": "eu-west-1"},
            },
        },
        PUT,
    )
    answer = answer_of(error)
    assert (answer.status, answer.code, answer.text) == (403, "AccessDenied", "no")
    assert (answer.request_id, answer.bucket_region) == ("R1", "eu-west-1")


@pytest.mark.parametrize(
    ("response", "status"),
    [
        ({}, 0),
        ({"Error": {}}, 0),
        ({"Error": {"Code": "403", "Message": "Forbidden"}}, 403),
        ({"ResponseMetadata": {"HTTPStatusCode": 400}, "Error": {"Code": "400"}}, 400),
    ],
)
def test_an_exception_without_members_is_read(response: dict[str, object], status: int) -> None:
    answer = answer_of(aws.ClientError(response, "HeadObject"))
    assert (answer.status, answer.code, answer.text) == (status, "", "")


def test_raw_http_gives_the_same_answer() -> None:
    body = (
        b'<?xml version="1.0"?>\n<Error><Code>AuthorizationHeaderMalformed</Code><Message>wrong: '
        b"&apos;eu-west-1&apos; &amp;amp;</Message><Region>eu-west-1</Region></Error>"
    )
    answer = answer_of_body(400, {"X-Amz-Request-Id": "R1"}, body)
    assert answer.code == "AuthorizationHeaderMalformed"
    assert answer.text == "wrong: 'eu-west-1' &amp;"
    assert (answer.request_id, answer.bucket_region) == ("R1", "eu-west-1")


@pytest.mark.parametrize("body", [b"", b"<html>", b"\xff\xfe", b"<Code>"])
def test_a_body_that_is_no_error_document_has_no_code(body: bytes) -> None:
    assert answer_of_body(503, {}, body) == Answer(503, "", "", {})


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (aws.EndpointConnectionError(endpoint_url="http://x"), Unavailable),
        (aws.ConnectTimeoutError(endpoint_url="http://x"), Unavailable),
        (aws.ReadTimeoutError(endpoint_url="http://x"), Unavailable),
        (aws.ConnectionClosedError(endpoint_url="http://x"), Unavailable),
        (aws.ProxyConnectionError(proxy_url="http://x"), Unavailable),
        (aws.HTTPClientError(error="x"), Unavailable),
        (aws.ResponseStreamingError(error="x"), Unavailable),
        (aws.IncompleteReadError(actual_bytes=1, expected_bytes=2), Unavailable),
        (ResponseParserError("broken"), Unavailable),
        (aws.FlexibleChecksumError(error_msg="x"), ChecksumMismatch),
        (aws.ParamValidationError(report="x"), RequestRefused),
        (aws.UnsupportedS3ConfigurationError(msg="x"), RequestRefused),
    ],
)
def test_each_failure_without_an_answer_has_its_meaning(error: Exception, kind: type[XmodeError]) -> None:
    told = error_without_answer(error, Attempt(PUT, "acme-data", "xmode/a"))
    assert type(told) is kind
    assert told.hint
    assert str(told).startswith("PutObject on s3://acme-data/xmode/a: ")


def test_a_certificate_that_is_not_accepted_names_the_variable() -> None:
    told = error_without_answer(
        aws.SSLError(endpoint_url="https://x", error="self-signed"), Attempt(PUT, "b")
    )
    assert type(told) is CertificateRefused
    assert "AWS_CA_BUNDLE" in told.hint


DENIED = 'User: x is not authorized to perform: s3:PutObject on resource: "arn:aws:s3:::b/k" '


@pytest.mark.parametrize(
    ("end", "kind", "hint"),
    [
        ("because no identity-based policy allows the s3:PutObject action", AccessDenied, "setup guide"),
        ("with an explicit deny in a resource-based policy", AccessDenied, "no Allow helps"),
        ("because no permissions boundary allows the s3:PutObject action", AccessDenied, "no permissions"),
        ("because no session policy allows the s3:PutObject action", DeniedByUs, "no session policy"),
        ("with an explicit deny in a VPC endpoint policy", DeniedByUs, "in a VPC endpoint policy"),
    ],
)
def test_a_denial_says_which_policy_it_was_and_whose(end: str, kind: type[XmodeError], hint: str) -> None:
    error = error_for(Answer(403, "AccessDenied", DENIED + end), Attempt(PUT, "b", "k"), NOW)
    assert type(error) is kind
    assert hint in error.hint
    assert (error.responsible, error.exit_code) == (("vendor", 3) if kind is DeniedByUs else ("customer", 4))

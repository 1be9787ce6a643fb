"""What STS's refusals mean: whose matter it is, and what to do.

Sources: STS API reference, AssumeRole and "Common errors"; IAM User Guide, "Troubleshoot IAM roles".
"""

from datetime import UTC, datetime
from typing import Any

from botocore import exceptions as aws

from xmode_transfer.aws.s3_errors import (
    NETWORK_HINT,
    UNREADABLE,
    Answer,
    E,
    answer_of,
    clock_difference,
    one_line,
    skewed,
)
from xmode_transfer.aws.sessions import Credentials
from xmode_transfer.model.errors import (
    RequestRefused,
    RoleRefused,
    Throttled,
    Unavailable,
    VendorClockSkew,
    VendorIdentityError,
    XmodeError,
)

REGION_DISABLED = "RegionDisabledException"

_OUR_KEYS = frozenset(
    {
        "InvalidAccessKeyId",
        "InvalidClientTokenId",
        "MissingAuthenticationToken",
        "UnrecognizedClientException",
    }
)
_OUR_SESSION = frozenset({"ExpiredToken", "ExpiredTokenException", "InvalidToken"})
_SIGNATURE = frozenset(
    {
        "IncompleteSignature",
        "InvalidSignatureException",
        "RequestExpired",
        "RequestTimeTooSkewed",
        "SignatureDoesNotMatch",
    }
)
_THROTTLED = frozenset(
    {"RequestLimitExceeded", "Throttling", "ThrottlingException", "TooManyRequestsException"}
)
_AWAY = frozenset({"IDPCommunicationError", "InternalFailure", "ServiceUnavailable"})
_OUR_REQUEST = frozenset(
    {"InvalidParameterValue", "MalformedPolicyDocument", "PackedPolicyTooLarge", "ValidationError"}
)

_ROTATE_HINT = "Look at AWS_ACCESS_KEY_ID, AWS_PROFILE and the shared credentials file of this service"
_WHERE_HINT = (
    "Give the service the access key of its own IAM user: AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or "
    "AWS_PROFILE and the shared credentials file"
)
_CLOCK_HINT = "Set this machine's clock (chrony or ntpd); AWS accepts a few minutes at most"
_REQUEST_HINT = "Compare role_arn, external_id and destination.prefix in the customer's file with STS's words"
_ROLE_HINT = (
    "AWS does not say which of these it is. With the customer: the role exists under this ARN (setup "
    "guide, step 12); its trust policy names {principal} (step 17) and demands exactly the external ID "
    "{external_id}, case included (steps 5 and 8); no policy of the customer's organisation (SCP) forbids "
    "it. With us: an identity policy allows our user sts:AssumeRole on this ARN. A role made minutes ago "
    "may need a little time"
)


def is_region_disabled(error: Exception) -> bool:
    return isinstance(error, aws.ClientError) and answer_of(error).code == REGION_DISABLED


def is_about_our_keys(error: aws.ClientError) -> bool:
    """Whether other keys of ours might be let in: these are unknown, disabled, deleted, expired or not a
    pair."""
    return answer_of(error).code in _OUR_KEYS | _OUR_SESSION | {"SignatureDoesNotMatch"}


def identity_error(error: Exception, now: datetime) -> XmodeError:
    """The domain error for a failed GetCallerIdentity."""
    if not isinstance(error, aws.ClientError):
        return _without_answer(error)
    answer = answer_of(error)
    return (
        _ours(answer, now)
        or _of_aws(answer, "GetCallerIdentity")
        or _made(VendorIdentityError, "AWS refuses our own credentials", answer, _ROTATE_HINT)
    )


def assume_role_error(
    error: Exception, customer: str, role_arn: str, external_id: str, principal_arn: str, now: datetime
) -> XmodeError:
    """The domain error for a failed AssumeRole of the customer's role."""
    if not isinstance(error, aws.ClientError):
        return _without_answer(error)
    answer = answer_of(error)
    known = _ours(answer, now) or _of_aws(answer, f"AssumeRole for {customer}")
    if known is not None:
        return known
    if answer.code in ("AccessDenied", "AccessDeniedException") or answer.status == 403:
        return _made(
            RoleRefused,
            f"{customer}: AWS refuses to let us assume {role_arn}",
            answer,
            _ROLE_HINT.format(principal=principal_arn, external_id=external_id),
        )
    return _made(
        RequestRefused,
        f"{customer}: STS does not accept our request for {role_arn}",
        answer,
        _REQUEST_HINT,
    )


def _ours(answer: Answer, now: datetime) -> VendorIdentityError | None:
    if answer.code in _OUR_KEYS:
        return _made(VendorIdentityError, "AWS does not know our access key", answer, _ROTATE_HINT)
    if answer.code in _OUR_SESSION:
        return _made(VendorIdentityError, "our own AWS credentials have expired", answer, _ROTATE_HINT)
    if answer.code in _SIGNATURE:
        skew = clock_difference(answer, now)
        if skew is not None and abs(skew.total_seconds()) > 240:
            return _made(
                VendorClockSkew, f"this machine's clock is {skewed(skew)} AWS's", answer, _CLOCK_HINT
            )
        return _made(
            VendorIdentityError,
            "our secret access key does not belong to our access key",
            answer,
            f"{_ROTATE_HINT}, and at this machine's clock",
        )
    return None


def _of_aws(answer: Answer, what: str) -> XmodeError | None:
    if answer.code in _THROTTLED or answer.status == 429:
        return _made(Throttled, f"STS asks us to slow down ({what})", answer, "Tried again by itself")
    if answer.status >= 500 or answer.code in _AWAY:
        return _made(Unavailable, f"STS cannot answer now ({what})", answer, "Tried again by itself")
    if answer.code in _OUR_REQUEST:
        return _made(
            RequestRefused,
            f"STS does not accept our request ({what})",
            answer,
            "A defect of ours or a mistake in the configuration",
        )
    return None


def _made(kind: type[E], words: str, answer: Answer, hint: str) -> E:
    return answer.error(kind, f"{words}: {answer.said}", hint)


def _without_answer(error: Exception) -> XmodeError:
    said = one_line(str(error))
    if isinstance(error, aws.NoCredentialsError):
        return VendorIdentityError("this process has no AWS credentials", hint=_WHERE_HINT)
    if isinstance(error, aws.ConnectionError | aws.HTTPClientError | aws.IncompleteReadError):
        return Unavailable(f"STS cannot be reached: {said}", hint=NETWORK_HINT)
    if isinstance(error, aws.ParamValidationError):
        return RequestRefused(f"our request to STS is malformed: {said}", hint=_REQUEST_HINT)
    if isinstance(error, aws.BotoCoreError):  # profiles, credential processes, container and SSO tokens
        return VendorIdentityError(f"our AWS credentials cannot be read: {said}", hint=_WHERE_HINT)
    return Unavailable(f"STS's answer could not be read: {said}", hint="Tried again by itself")


def credentials_in(answer: dict[str, Any]) -> Credentials:
    """What AssumeRole answers. Raises Unavailable when it is not what STS answers."""
    try:
        told = answer["Credentials"]
        return Credentials(
            access_key_id=told["AccessKeyId"],
            secret_access_key=told["SecretAccessKey"],
            session_token=told["SessionToken"],
            expires_at=told["Expiration"].astimezone(UTC),
        )
    except UNREADABLE as error:
        raise unreadable("assume_role", error) from None


def unreadable(operation: str, error: Exception) -> Unavailable:
    return Unavailable(
        f"STS's answer to {operation} is not as STS gives it: {type(error).__name__} {one_line(str(error))}",
        hint="Look at AWS_ENDPOINT_URL and AWS_ENDPOINT_URL_STS, and at the proxy between",
    )

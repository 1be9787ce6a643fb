"""Send requests to a source bucket and translate its errors.

The vendor's own credentials read it, never a customer's role session. They need s3:ListBucket on the bucket
and s3:GetObject on its objects (docs/sources.md).
"""

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC
from typing import Any

from botocore import exceptions as aws
from botocore.credentials import RefreshableCredentials
from botocore.exceptions import BotoCoreError, ClientError

from xmode_transfer import telemetry
from xmode_transfer.aws.checksums import BodyFailed
from xmode_transfer.aws.s3_calls import READ_TIMEOUT_SECONDS, REQUEST_ATTEMPTS
from xmode_transfer.aws.s3_errors import AWS_ERRORS, Answer, answer_of, one_line
from xmode_transfer.aws.sdk import DEFAULT_REGION, make_client, making_clients, new_session
from xmode_transfer.model.errors import (
    Interrupted,
    SourceChanged,
    SourceMissing,
    SourceUnreadable,
    VendorIdentityError,
    XmodeError,
)
from xmode_transfer.model.keys import readable
from xmode_transfer.model.records import SourceFile

_OUR_KEYS = frozenset(
    {"ExpiredToken", "InvalidAccessKeyId", "InvalidToken", "RequestTimeTooSkewed", "SignatureDoesNotMatch"}
)
_KEYS_HINT = "Look at AWS_ACCESS_KEY_ID, AWS_PROFILE, the shared credentials file and this machine's clock"
_AGAIN_HINT = "The next run retries"


def own_client(stop: threading.Event | None = None) -> Any:
    """Return an S3 client with the vendor's credentials; its requests end early when ``stop`` is set."""
    try:
        with making_clients:
            session = new_session()
            region = session.get_config_variable("region") or DEFAULT_REGION["aws"]
            credentials = session.get_credentials()
        client = make_client(
            session,
            "s3",
            region,
            attempts=REQUEST_ATTEMPTS,
            read_timeout_seconds=READ_TIMEOUT_SECONDS,
            stop=stop,
            reads_only=True,
            response_checksum_validation="when_required",  # ranges have no checksum of their own
            max_pool_connections=64,
        )
    except BotoCoreError as error:
        raise _without_answer(error, "the client of the source") from error
    if credentials is not None and not isinstance(credentials, RefreshableCredentials):
        telemetry.protect(credentials.secret_key, credentials.token or "")
    return client


class OwnClient:
    """The client that all feeds in buckets share. Thread-safe."""

    def __init__(self, stop: threading.Event | None = None) -> None:
        self._lock = threading.Lock()
        self._stop = stop
        self._client: Any = None

    def get(self) -> Any:
        with self._lock:
            if self._client is None:
                self._client = own_client(self._stop)
            return self._client

    def forget(self) -> None:
        """Drops a client with refused credentials. The next one reads the credentials again."""
        with self._lock:
            self._client = None


class SourceBucket:
    """Calls ``keys_refused`` when AWS refuses the vendor's credentials. Thread-safe."""

    def __init__(
        self, address: str, client_factory: Callable[[], Any], keys_refused: Callable[[], None]
    ) -> None:
        self.name, _, prefix = address.removeprefix("s3://").partition("/")
        self.root = prefix.rstrip("/") + "/" if prefix.strip("/") else ""
        self._client_factory = client_factory
        self._keys_refused = keys_refused

    def objects(self, below: str = "", limit: int | None = None) -> Iterator[SourceFile]:
        """Yield the objects below the root and ``below`` in order, named relative to the root."""
        previous = ""
        options = {} if limit is None else {"MaxKeys": limit}
        for page in self._pages(below, **options):
            for row in page.get("Contents", ()):
                key = row["Key"]
                if key <= previous:
                    raise SourceUnreadable(
                        f"s3://{self.name} does not list its keys in order ({key!r} after {previous!r})",
                        hint="A directory bucket (S3 Express) cannot be a source; a general purpose one can",
                    )
                previous = key
                yield _file(key[len(self.root) :], row["Size"], row)

    def directories(self, below: str) -> Iterator[str]:
        """Yield the names of the directories, without ``/``, directly below the root and ``below``."""
        begin = len(self.root) + len(below)
        for page in self._pages(below, Delimiter="/"):
            for row in page.get("CommonPrefixes", ()):
                yield row["Prefix"][begin:].rstrip("/")

    def _pages(self, below: str, **options: Any) -> Iterator[dict[str, Any]]:
        """Yield all pages, or the first one with ``MaxKeys``."""
        parameters = {"Bucket": self.name, "Prefix": self.root + below, **options}
        while True:
            with self.translated("ListObjectsV2"):
                page: dict[str, Any] = self._client_factory().list_objects_v2(**parameters)
            yield page
            if "MaxKeys" in options or not page.get("IsTruncated"):
                return
            if not page.get("NextContinuationToken"):
                what = f"s3://{self.name} truncated its listing without a continuation token"
                raise SourceUnreadable(what, hint=_AGAIN_HINT)
            parameters["ContinuationToken"] = page["NextContinuationToken"]

    def head(self, name: str, etag: str) -> SourceFile:
        """Return the object with that name. Raises SourceChanged if it is gone or has another ETag."""
        key = self.root + name
        with self.translated("HeadObject", name):
            answer = self._client_factory().head_object(Bucket=self.name, Key=key, IfMatch=f'"{etag}"')
        return _file(name, answer["ContentLength"], answer)

    def get(self, name: str, etag: str, first: int, last: int) -> Any:
        """``last`` is included. Raises SourceChanged if the ETag is another."""
        with self.translated("GetObject", name):
            answer = self._client_factory().get_object(
                Bucket=self.name, Key=self.root + name, IfMatch=f'"{etag}"', Range=f"bytes={first}-{last}"
            )
        return answer["Body"]

    @contextmanager
    def translated(self, operation: str, name: str | None = None) -> Iterator[None]:
        """Translates botocore's errors into those of a source."""
        what = f"{operation} on s3://{self.name}/{self.root}{name or ''}"
        try:
            yield
        except BodyFailed as failed:
            if isinstance(failed.error, Interrupted):
                raise failed.error from None
            raise SourceUnreadable(f"{what}: {failed.error}", hint=failed.error.hint) from None
        except AWS_ERRORS as error:
            if isinstance(error, ClientError):
                translated = _with_answer(answer_of(error), what, self.name, name)
            else:
                translated = _without_answer(error, what)
            if isinstance(translated, VendorIdentityError):
                self._keys_refused()
            raise translated from error


def _file(name: str, size: int, answer: Mapping[str, Any]) -> SourceFile:
    moment = answer["LastModified"]
    whole_seconds = int(moment.astimezone(UTC).replace(microsecond=0).timestamp())  # a float is not exact
    modified_ns = whole_seconds * 10**9 + moment.microsecond * 1000
    return SourceFile(name, size, modified_ns, answer["ETag"].strip('"'))


def _with_answer(answer: Answer, what: str, bucket: str, name: str | None) -> XmodeError:
    said = f"{what}: {answer.said}"
    kind: type[XmodeError]
    if answer.code == "NoSuchBucket" or (name is None and answer.status == 404):
        kind, said, hint = SourceMissing, f"there is no bucket {bucket}", "Check the feed's source"
    elif answer.code == "NoSuchKey" or answer.status == 404:
        kind, said, hint = SourceChanged, f"{name} is gone", "If it is put back, the next run delivers it"
    elif answer.status == 412:
        kind, said = SourceChanged, f"{name} changed after it was listed: another object replaced it"
        hint = "It is delivered by a later run, once it no longer changes"
    elif answer.code in _OUR_KEYS:
        kind, hint = VendorIdentityError, _KEYS_HINT
    elif answer.code == "InvalidObjectState":
        kind, said = SourceUnreadable, f"{name} is archived and cannot be read ({answer.text})"
        hint = "Restore it from its storage class, or exclude it"
    elif answer.status == 403:
        action = "s3:ListBucket" if name is None else "s3:GetObject"
        if name is not None:  # a HEAD needs the permission of a GET, and its refusal has no message
            said = f"{readable(name)} cannot be read: AWS denies us {action} on it ({said})"
        kind, hint = SourceUnreadable, _denied_hint(answer.text, action, bucket)
    else:
        kind, hint = SourceUnreadable, _AGAIN_HINT
    return answer.error(kind, said, hint)


def _denied_hint(said: str, action: str, bucket: str) -> str:
    """AWS's message names the policy that denies or lacks the action, except for a HEAD (IAM User Guide,
    "Troubleshoot access denied error messages")."""
    of = "the bucket" if action == "s3:ListBucket" else "the objects of the bucket"
    if "explicit deny in a resource-based policy" in said:
        return (
            f"The owner of the bucket {bucket} must exempt our user or role from the Deny of {action} in the "
            "bucket's policy (docs/sources.md)"
        )
    if "explicit deny in " in said:
        policy = said.partition("explicit deny in ")[2].removeprefix("a ").removeprefix("an ").rstrip(". ")
        return f"We must change the {policy} that denies {action} to our user or role (docs/sources.md)"
    ours = f"our user or role needs {action} on {of} {bucket} in a policy of its own"
    theirs = f"the owner of {bucket} must allow it to us in the bucket's policy"
    if "no identity-based policy" in said:
        return f"We must act: {ours} (docs/sources.md)"
    if "no resource-based policy" in said:
        return f"The bucket {bucket} belongs to another account: {theirs} (docs/sources.md)"
    key = "" if action == "s3:ListBucket" else "; 3. kms:Decrypt, if a KMS key encrypts them"
    return (
        f"We must check, in this order: 1. {ours}; 2. if the bucket belongs to another account, {theirs}"
        f"{key} (docs/sources.md)"
    )


def _without_answer(error: Exception, what: str) -> XmodeError:
    said = one_line(str(error))
    if isinstance(error, aws.NoCredentialsError):
        none = "this process has no AWS credentials to read the source with"
        return VendorIdentityError(none, hint=_KEYS_HINT)
    if isinstance(error, aws.PartialCredentialsError | aws.CredentialRetrievalError | aws.ProfileNotFound):
        return VendorIdentityError(f"our AWS credentials cannot be read: {said}", hint=_KEYS_HINT)
    return SourceUnreadable(f"{what}: {said}", hint=f"Look at this machine's network. {_AGAIN_HINT}")

"""One customer's S3 client: the bucket's Region, the role session's credentials, the expected bucket owner on
every call, and domain errors."""

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from botocore import xform_name
from botocore.credentials import Credentials as BotocoreCredentials
from botocore.credentials import ReadOnlyCredentials
from botocore.exceptions import ClientError
from botocore.session import Session

from xmode_transfer.aws.checksums import BodyFailed
from xmode_transfer.aws.s3_errors import (
    AWS_ERRORS,
    UNREADABLE,
    Attempt,
    answer_of,
    bucket_missing,
    error_for,
    error_without_answer,
    unreadable,
)
from xmode_transfer.aws.sdk import DEFAULT_REGION, make_client, new_session
from xmode_transfer.aws.sessions import Credentials, CredentialsProvider
from xmode_transfer.aws.stores import Grant, ObjectAcl
from xmode_transfer.config import Addressing, ChecksumMode, Customer
from xmode_transfer.model.errors import SessionExpired, XmodeError
from xmode_transfer.model.process import Clock

REQUEST_ATTEMPTS = 5
"""botocore's attempts at one request in all, with its own backoff (mode standard); see docs/retries.md."""
READ_TIMEOUT_SECONDS = 60


class S3Calls:
    """Calls of S3 on one bucket. Thread-safe. Makes no call until the first ``call``."""

    def __init__(
        self,
        customer: Customer,
        credentials: CredentialsProvider,
        region: str | None,
        clock: Clock,
        *,
        connections: int,
        stop: threading.Event | None = None,
        create_only: bool = True,
    ) -> None:
        """``create_only``: PutObject and CompleteMultipartUpload replace nothing but what IfMatch names."""
        self.bucket = customer.destination.bucket
        self._customer = customer
        self._credentials = _SessionCredentials(credentials)
        self._clock = clock
        self._connections = connections
        self._stop = stop
        self._create_only = create_only
        self._lock = threading.Lock()
        self.region = customer.destination.region or region
        """The bucket's Region as configured, remembered or learnt; else None before the first call."""
        self._client: Any = None
        self.seen_region: str | None = None
        """The bucket's Region, once an answer has named it."""

    def call(self, operation: str, key: str | None = None, **parameters: Any) -> dict[str, Any]:
        """Call an operation by S3's name, a second time after an expired session. Raises domain errors."""
        if key is not None:
            parameters["Key"] = key
        return self._call(self.client(), Attempt(operation, self.bucket, key), parameters)

    def _call(self, client: Any, attempt: Attempt, parameters: dict[str, Any]) -> dict[str, Any]:
        try:
            return self._send(client, attempt, parameters)
        except SessionExpired:
            self._credentials.renew()
            return self._send(client, attempt, parameters)

    @contextmanager
    def translated(self, attempt: Attempt) -> Iterator[None]:
        """Translate botocore's exceptions into domain errors, also while an answer's body is read."""
        try:
            yield
        except BodyFailed as failed:
            raise failed.error from failed
        except ClientError as error:
            raise error_for(answer_of(error), attempt, self._clock.now()) from error
        except AWS_ERRORS as error:
            raise error_without_answer(error, attempt) from error

    def locate(self) -> str:
        """Return the bucket's Region, learnt by one HeadBucket if need be."""
        if self.region is None:
            self.client()
        assert self.region is not None
        return self.region

    def close(self) -> None:
        """Idempotent."""
        with self._lock:
            if self._client is not None:
                self._client.close()

    def _send(self, client: Any, attempt: Attempt, parameters: dict[str, Any]) -> dict[str, Any]:
        body = parameters.get("Body")
        if body is not None and hasattr(body, "seek"):
            body.seek(0)  # it may have been sent before
        try:
            with self.translated(attempt):
                answer: dict[str, Any] = getattr(client, xform_name(attempt.operation))(
                    Bucket=self.bucket, **parameters
                )
        except Exception as error:
            failed = getattr(body, "failed", None)
            if failed not in (None, error):  # botocore may sign by the CRT, which keeps what a body raises
                raise failed from error
            if isinstance(error, UNREADABLE):
                raise unreadable(attempt, error) from error
            raise
        return answer

    def client(self) -> Any:
        """Return botocore's client for the bucket. May first learn the Region."""
        with self._lock:
            if self._client is None:
                if self.region is None:
                    self.region = self._learn_region()
                self._client = self._build(self.region)
            return self._client

    def _learn_region(self) -> str:
        """Learn the Region by HeadBucket, which names it even in a refusal (S3 API reference, HeadBucket)."""
        session = self._session()
        guess = session.get_config_variable("region") or DEFAULT_REGION[self._customer.partition]
        client = self._build(guess)
        try:
            self._call(client, Attempt("HeadBucket", self.bucket), {})
        except XmodeError as error:
            if error.http_status == 404:
                raise bucket_missing(self.bucket, error) from error
            if error.http_status is None or (error.retryable and error.http_status >= 429):
                raise
        finally:
            client.close()
        return self.region or guess

    def _session(self) -> Session:
        session = new_session()
        session.register_component("credential_provider", self._credentials)
        return session

    def _build(self, region: str) -> Any:
        destination = self._customer.destination
        without = destination.checksums is ChecksumMode.NONE
        computed = "when_required" if without else "when_supported"
        # With its CRC32 a body needs no SHA-256 in the signature, which costs another pass over the file.
        # Without checksums the SHA-256 proves the bytes.
        s3: dict[str, Any] = {"payload_signing_enabled": without}
        if destination.addressing is not Addressing.AUTO:
            s3["addressing_style"] = str(destination.addressing)
        with self.translated(Attempt("the client for requests", self.bucket)):
            client = make_client(
                self._session(),
                "s3",
                region,
                attempts=REQUEST_ATTEMPTS,
                read_timeout_seconds=READ_TIMEOUT_SECONDS,
                stop=self._stop,
                s3=s3,
                request_checksum_calculation=computed,
                response_checksum_validation=computed,
                max_pool_connections=self._connections,
            )
        events = client.meta.events
        events.register("provide-client-params.s3", self._add_owner)
        if self._create_only:
            for operation in ("PutObject", "CompleteMultipartUpload"):
                events.register(f"provide-client-params.s3.{operation}", _add_create_only)
        events.register("response-received.s3", self._note_region)
        return client

    def _add_owner(self, params: dict[str, Any], model: Any, **_: object) -> None:
        """Change the calls in place: of several handlers' answers, botocore takes only the first."""
        if model.input_shape is not None and "ExpectedBucketOwner" in model.input_shape.members:
            params["ExpectedBucketOwner"] = self._customer.bucket_owner

    def _note_region(self, response_dict: dict[str, Any] | None = None, **_: object) -> None:
        region = (response_dict or {}).get("headers", {}).get("x-amz-bucket-region")
        if region:
            self.region = self.seen_region = region


def _add_create_only(params: dict[str, Any], **_: object) -> None:
    if "IfMatch" not in params:
        params["IfNoneMatch"] = "*"


class _SessionCredentials(BotocoreCredentials):  # type: ignore[misc]
    """The provider's credentials, for every request. They replace the session's credential chain, so that a
    customer's client never finds others."""

    def __init__(self, provider: CredentialsProvider) -> None:
        super().__init__("", "", method="xmode-transfer")
        self._provider = provider
        self._used = threading.local()

    def load_credentials(self) -> "_SessionCredentials":
        return self

    def get_frozen_credentials(self) -> ReadOnlyCredentials:
        credentials = self._provider.get()
        self._used.last = credentials
        return ReadOnlyCredentials(
            credentials.access_key_id, credentials.secret_access_key, credentials.session_token
        )

    def renew(self) -> None:
        """Report that S3 refused the credentials of this thread's last request as expired."""
        last: Credentials | None = getattr(self._used, "last", None)
        if last is not None:
            self._provider.invalidate(last)


def object_acl(answer: Mapping[str, Any]) -> ObjectAcl:
    grants = set()
    for grant in answer.get("Grants", ()):
        grantee = grant.get("Grantee", {})
        name = grantee.get("ID") or grantee.get("URI") or grantee.get("EmailAddress") or ""
        grants.add(Grant(str(name), str(grant.get("Permission", ""))))
    return ObjectAcl(str(answer.get("Owner", {}).get("ID", "")), frozenset(grants))

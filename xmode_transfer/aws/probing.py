"""Trying a customer's rights against AWS: the port ``Prober``.

No session here can do more than it is for. The one that writes is narrowed to the reserved place, the one
that looks for rights too many can read a few harmless things, and those that try the trust policy can do
nothing.
"""

import threading
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from botocore.exceptions import ClientError

from xmode_transfer.aws import checksums, stores
from xmode_transfer.aws.checksums import BodyFailed
from xmode_transfer.aws.policy import Step, session_policy
from xmode_transfer.aws.s3_calls import S3Calls, object_acl
from xmode_transfer.aws.s3_errors import AWS_ERRORS, UNREADABLE, answer_of, bucket_missing
from xmode_transfer.aws.s3_objects import checksum_in, listed
from xmode_transfer.aws.sdk import DEFAULT_REGION, make_client, new_session
from xmode_transfer.aws.sessions import Credentials
from xmode_transfer.aws.stores import ObjectAcl
from xmode_transfer.aws.sts import StsRoleSessions
from xmode_transfer.config import ChecksumMode, Customer
from xmode_transfer.model.errors import AccessDenied, Interrupted, ObjectNotFound, UploadNotFound, XmodeError
from xmode_transfer.model.keys import checks_prefix
from xmode_transfer.model.process import Clock
from xmode_transfer.model.records import Checksum, ListedObject, UploadedPart


@dataclass(frozen=True, slots=True)
class ProbedObject:
    """An object of a check as S3 answered for it. ``locked`` is the Object Lock mode where the answer names
    one; ``checksum`` is None where the answer has none."""

    size: int
    checksum: Checksum | None = None
    version_id: str | None = None
    encryption: str | None = None
    locked: str | None = None


class ReservedPlace(Protocol):
    """One customer's reserved place, ``<prefix>_xmode-check/``, where a check tries every right.

    All keys are below it, and the role session is narrowed to it: no mistake of a check can touch anything
    else. Every request carries the expected bucket owner. Nothing is tried again beyond the requests' own
    retries, and nothing is cleaned up: that is the caller's. Errors are those of ``ObjectStore``.
    """

    prefix: str

    @property
    def region(self) -> str | None:
        """The bucket's Region as an answer has named it; None as long as none has."""
        ...

    def locate(self) -> None:
        """HeadBucket. A refusal is no error, since it names the Region too; raises BucketMissing."""
        ...

    def list(self) -> Sequence[ListedObject]:
        """The objects in the place; the first thousand at most."""
        ...

    def put(self, key: str, body: bytes, *, acl: bool = True) -> ProbedObject:
        """PutObject with the ACL that every delivery carries, or with none. Replaces what was there."""
        ...

    def create_upload(self, key: str) -> str:
        """CreateMultipartUpload with the ACL; its upload ID."""
        ...

    def upload_part(self, key: str, upload_id: str, number: int, body: bytes) -> UploadedPart:
        """Raises PartsRefused, UploadNotFound."""
        ...

    def list_parts(self, key: str, upload_id: str) -> Sequence[int]:
        """The numbers of the parts that S3 holds."""
        ...

    def complete_upload(self, key: str, upload_id: str, parts: Sequence[UploadedPart]) -> ProbedObject:
        """Raises PartsRefused, UploadNotFound."""
        ...

    def abort_upload(self, key: str, upload_id: str) -> None:
        """Success when it is gone already."""
        ...

    def head(self, key: str) -> ProbedObject | None:
        """With its checksum; None when there is no object."""
        ...

    def read(self, key: str) -> bytes:
        """Raises ObjectNotFound."""
        ...

    def acl(self, key: str) -> ObjectAcl:
        """GetObjectAcl. Raises ObjectNotFound."""
        ...

    def delete(self, key: str) -> str | None:
        """Deletes without naming a version. Absent is success. The ID of the delete marker where the bucket
        is versioned, else None."""
        ...

    def close(self) -> None:
        """Idempotent."""
        ...


class Prober(Protocol):
    """Tries what a customer's role lets us do, and what it should not."""

    def verify_identity(self) -> str | None:
        """As ``RoleSessions.verify_identity``."""
        ...

    def assume(self, customer: Customer, external_id: str | None) -> None:
        """AssumeRole with exactly that external ID, or with none. The credentials are thrown away unused,
        and could do nothing anyway. Raises RoleRefused (its ``aws_code`` tells AWS's refusal from others),
        VendorIdentityError, Throttled, Unavailable, RequestRefused."""
        ...

    def reserve(self, customer: Customer, region: str | None) -> ReservedPlace:
        """Makes no call. ``region`` is what the ledger remembers."""
        ...

    def reads(self, *, deep: bool) -> Sequence[str]:
        """The rights that ``excess`` looks for."""
        ...

    def excess(self, customer: Customer, *, deep: bool) -> Iterator[str]:
        """The rights, as IAM names them, that the role should not have and has: found by reading what is
        harmless to read. The session can do these reads and nothing else. ``deep`` tries more of them. What
        is not answered is not named. Raises as ``assume``."""
        ...


CONTENT_TYPE = "application/octet-stream"
_MOST_READ = 16 * 1024 * 1024  # more than a check ever puts
TOKEN = "check"
"""The delivery token of a check's objects: no delivery has it."""

Read = tuple[str, str, str]
"""A right as IAM names it, botocore's service and method; each is a read that changes nothing."""
READS: tuple[Read, ...] = (
    ("s3:ListAllMyBuckets", "s3", "list_buckets"),
    ("s3:GetBucketPolicy", "s3", "get_bucket_policy"),
    ("iam:GetAccountSummary", "iam", "get_account_summary"),
    ("iam:ListUsers", "iam", "list_users"),
    ("lambda:ListFunctions", "lambda", "list_functions"),
    ("secretsmanager:ListSecrets", "secretsmanager", "list_secrets"),
)
DEEP_READS: tuple[Read, ...] = (
    *READS,
    ("kms:ListKeys", "kms", "list_keys"),
    ("dynamodb:ListTables", "dynamodb", "list_tables"),
    ("ec2:DescribeRegions", "ec2", "describe_regions"),
    ("ssm:DescribeParameters", "ssm", "describe_parameters"),
    ("sqs:ListQueues", "sqs", "list_queues"),
)


class AwsProber:
    """Implements ``Prober``."""

    def __init__(self, sessions: StsRoleSessions, clock: Clock) -> None:
        self._sessions = sessions
        self._clock = clock

    def verify_identity(self) -> str | None:
        return self._sessions.verify_identity()

    def assume(self, customer: Customer, external_id: str | None) -> None:
        self._sessions.try_external_id(customer, external_id)

    def reserve(self, customer: Customer, region: str | None) -> ReservedPlace:
        prefix = checks_prefix(customer.destination.prefix)
        policy = session_policy(
            Step.CHECK,
            bucket=customer.destination.bucket,
            prefix=prefix,
            partition=customer.partition,
            kms_key_arn=customer.destination.kms_key_arn,
        )
        credentials = self._sessions.narrowed(customer, Step.CHECK, policy)
        return AwsReservedPlace(
            customer,
            prefix,
            S3Calls(
                customer,
                credentials,
                region,
                self._clock,
                connections=1,
                stop=self._sessions.stop,
                create_only=False,
            ),
        )

    def reads(self, *, deep: bool) -> Sequence[str]:
        return [right for right, _, _ in (DEEP_READS if deep else READS)]

    def excess(self, customer: Customer, *, deep: bool) -> Iterator[str]:
        reads = DEEP_READS if deep else READS
        policy = {
            "Version": "2012-10-17",
            "Statement": [{"Effect": "Allow", "Action": [right for right, _, _ in reads], "Resource": "*"}],
        }
        credentials = self._sessions.narrowed(customer, Step.CHECK, policy).get()
        region = customer.destination.region or DEFAULT_REGION[customer.partition]
        for right, service, method in reads:
            if _is_allowed(credentials, customer, region, service, method, self._sessions.stop):
                yield right


class AwsReservedPlace:
    """Implements ``ReservedPlace``."""

    def __init__(self, customer: Customer, prefix: str, calls: S3Calls) -> None:
        self.prefix = prefix
        self._destination = customer.destination
        self._calls = calls
        self._with_checksums = customer.destination.checksums is not ChecksumMode.NONE

    @property
    def region(self) -> str | None:
        return self._calls.seen_region

    def locate(self) -> None:
        try:
            self._calls.call("HeadBucket")
        except AccessDenied:
            return  # it is there: the narrowed session names no prefix here and is refused
        except ObjectNotFound as error:
            raise bucket_missing(self._destination.bucket, error) from error

    def list(self) -> Sequence[ListedObject]:
        answer = self._calls.call("ListObjectsV2", Prefix=self.prefix, MaxKeys=1000)
        return [listed(row) for row in answer.get("Contents", ())]

    def put(self, key: str, body: bytes, *, acl: bool = True) -> ProbedObject:
        answer = self._calls.call(
            "PutObject", key, Body=body, ContentLength=len(body), **self._creation(acl), **self._crc32(body)
        )
        return _object(answer, len(body))

    def create_upload(self, key: str) -> str:
        return str(self._calls.call("CreateMultipartUpload", key, **self._creation(True))["UploadId"])

    def upload_part(self, key: str, upload_id: str, number: int, body: bytes) -> UploadedPart:
        answer = self._calls.call(
            "UploadPart", key, UploadId=upload_id, PartNumber=number, Body=body, ContentLength=len(body)
        )
        return UploadedPart(number, len(body), str(answer["ETag"]), str(answer.get("ChecksumCRC32", "")))

    def list_parts(self, key: str, upload_id: str) -> Sequence[int]:
        answer = self._calls.call("ListParts", key, UploadId=upload_id)
        return [int(part["PartNumber"]) for part in answer.get("Parts", ())]

    def complete_upload(self, key: str, upload_id: str, parts: Sequence[UploadedPart]) -> ProbedObject:
        listed = [
            {"PartNumber": part.number, "ETag": part.etag}
            | ({"ChecksumCRC32": part.checksum} if part.checksum else {})
            for part in parts
        ]
        answer = self._calls.call(
            "CompleteMultipartUpload", key, UploadId=upload_id, MultipartUpload={"Parts": listed}
        )
        return _object(answer, sum(part.size for part in parts))

    def abort_upload(self, key: str, upload_id: str) -> None:
        try:
            self._calls.call("AbortMultipartUpload", key, UploadId=upload_id)
        except UploadNotFound:
            return

    def head(self, key: str) -> ProbedObject | None:
        mode = {"ChecksumMode": "ENABLED"} if self._with_checksums else {}
        try:
            answer = self._calls.call("HeadObject", key, **mode)
        except ObjectNotFound:
            return None
        return _object(answer, int(answer["ContentLength"]))

    def read(self, key: str) -> bytes:
        body = self._calls.call("GetObject", key)["Body"]
        try:
            data: bytes = body.read(_MOST_READ)
        finally:
            body.close()
        return data

    def acl(self, key: str) -> ObjectAcl:
        return object_acl(self._calls.call("GetObjectAcl", key))

    def delete(self, key: str) -> str | None:
        answer = self._calls.call("DeleteObject", key)
        return str(answer["VersionId"]) if answer.get("DeleteMarker") else None

    def close(self) -> None:
        self._calls.close()

    def _creation(self, acl: bool) -> dict[str, Any]:
        asked = stores.creation(self._destination)
        if not acl:
            del asked["ACL"]
        return {**asked, "ContentType": CONTENT_TYPE, "Metadata": stores.metadata(TOKEN, {})}

    def _crc32(self, body: bytes) -> dict[str, str]:
        if not self._with_checksums:
            return {}
        return {"ChecksumAlgorithm": "CRC32", "ChecksumCRC32": checksums.encode(zlib.crc32(body))}


def _object(answer: Mapping[str, Any], size: int) -> ProbedObject:
    version = answer.get("VersionId")
    return ProbedObject(
        size,
        checksum_in(answer),
        None if version in (None, "null") else str(version),
        answer.get("ServerSideEncryption"),
        answer.get("ObjectLockMode"),
    )


def _is_allowed(
    credentials: Credentials,
    customer: Customer,
    region: str,
    service: str,
    method: str,
    stop: threading.Event,
) -> bool:
    """Whether the call was let in. An answer that is neither yes nor no is no."""
    asked: dict[str, str] = {}
    if method == "get_bucket_policy":
        asked = {"Bucket": customer.destination.bucket, "ExpectedBucketOwner": customer.bucket_owner}
    try:
        session = new_session()
        session.set_credentials(
            credentials.access_key_id, credentials.secret_access_key, credentials.session_token
        )
        client = make_client(
            session,
            service,
            region,
            attempts=2,
            read_timeout_seconds=30,
            stop=stop,
            only_looks=True,
            s3={"addressing_style": str(customer.destination.addressing)},
        )
        try:
            getattr(client, method)(**asked)
        except BodyFailed as failed:
            raise failed.error from None
        finally:
            client.close()
    except ClientError as error:
        return answer_of(error).code == "NoSuchBucketPolicy"  # it may be read, and there is none
    except Interrupted:
        raise
    except (*AWS_ERRORS, XmodeError, *UNREADABLE):
        return False
    return True

"""The requests of an access check: what a customer's role allows us, and what it should not.

Each session is limited to its purpose: writes below the reserved prefix, a few harmless reads, or nothing.
"""

import threading
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from typing import Any

from botocore.exceptions import ClientError

from xmode_transfer.aws import stores
from xmode_transfer.aws.checksums import BodyFailed
from xmode_transfer.aws.policy.documents import Step, step_policy
from xmode_transfer.aws.s3_calls import S3Calls, object_acl
from xmode_transfer.aws.s3_errors import AWS_ERRORS, UNREADABLE, answer_of, bucket_missing
from xmode_transfer.aws.s3_objects import checksum_in, checksum_parameters, listed, listed_parts
from xmode_transfer.aws.sdk import DEFAULT_REGION, make_client, new_session
from xmode_transfer.aws.sessions import Credentials
from xmode_transfer.aws.stores import ObjectAcl
from xmode_transfer.aws.sts import RoleSessions
from xmode_transfer.config import ChecksumMode, Customer
from xmode_transfer.model.errors import AccessDenied, Interrupted, ObjectNotFound, UploadNotFound, XmodeError
from xmode_transfer.model.keys import checks_prefix
from xmode_transfer.model.process import Clock
from xmode_transfer.model.records import Checksum, ListedObject, UploadedPart


@dataclass(frozen=True, slots=True)
class ProbedObject:
    """S3's answer for an object of a check. ``locked`` is the Object Lock mode."""

    size: int
    checksum: Checksum | None = None
    version_id: str | None = None
    encryption: str | None = None
    locked: str | None = None


CONTENT_TYPE = "application/octet-stream"
_MAX_READ_BYTES = 16 * 1024 * 1024  # more than a check ever puts
TOKEN = "check"
"""The delivery token of a check's objects, which no delivery has."""

Read = tuple[str, str, str]
"""An IAM action, botocore's service and method; each is a read."""
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


class Prober:
    """Tries what a customer's role allows us to do, and what it should not."""

    def __init__(self, sessions: RoleSessions, clock: Clock) -> None:
        self._sessions = sessions
        self._clock = clock

    def verify_identity(self) -> str | None:
        return self._sessions.verify_identity()

    def assume(self, customer: Customer, external_id: str | None) -> None:
        """Call AssumeRole with exactly that external ID, or without one. The credentials are discarded. The
        ``aws_code`` of RoleRefused separates AWS's refusal from others."""
        self._sessions.try_external_id(customer, external_id)

    def reserve(self, customer: Customer, region: str | None) -> "ReservedPrefix":
        """Return the customer's reserved prefix without a call. ``region`` is the one in the ledger."""
        prefix = checks_prefix(customer.destination.prefix)
        policy = step_policy(customer, Step.CHECK, prefix)
        credentials = self._sessions.narrowed(customer, Step.CHECK, policy)
        calls = S3Calls(
            customer,
            credentials,
            region,
            self._clock,
            connections=1,
            stop=self._sessions.stop,
            create_only=False,
        )
        return ReservedPrefix(customer, prefix, calls)

    def reads(self, *, deep: bool) -> Sequence[str]:
        return [action for action, _, _ in (DEEP_READS if deep else READS)]

    def excess(self, customer: Customer, *, deep: bool) -> Iterator[str]:
        """Iterate over the actions that the role should not allow and does, found by harmless reads. ``deep``
        tries more of them. Skips reads without an answer. Raises as ``assume``."""
        reads = DEEP_READS if deep else READS
        policy = {
            "Version": "2012-10-17",
            "Statement": [{"Effect": "Allow", "Action": [action for action, _, _ in reads], "Resource": "*"}],
        }
        credentials = self._sessions.narrowed(customer, Step.CHECK, policy).get()
        for action, service, method in reads:
            if _is_allowed(credentials, customer, service, method, self._sessions.stop):
                yield action


class ReservedPrefix:
    """A customer's reserved prefix, ``<prefix>_xmode-check/``, below which a check tries every right.

    The role session is narrowed to it: no mistake of a check can touch anything else. The caller retries and
    cleans up. Errors are those of ``ObjectStore``.
    """

    def __init__(self, customer: Customer, prefix: str, calls: S3Calls) -> None:
        self.prefix = prefix
        self._destination = customer.destination
        self._calls = calls
        self._with_checksums = customer.destination.checksums is not ChecksumMode.NONE

    @property
    def region(self) -> str | None:
        return self._calls.seen_region

    def locate(self) -> None:
        """Learn the Region by HeadBucket, which names it in a refusal too. Raises BucketMissing."""
        try:
            self._calls.call("HeadBucket")
        except AccessDenied:
            return  # the bucket exists: the narrowed session requires a prefix and is refused
        except ObjectNotFound as error:
            raise bucket_missing(self._destination.bucket, error) from error

    def list(self) -> Sequence[ListedObject]:
        answer = self._calls.call("ListObjectsV2", Prefix=self.prefix, MaxKeys=1000)
        return [listed(row) for row in answer.get("Contents", ())]

    def put(self, key: str, body: bytes, *, acl: bool = True, new: bool = False) -> ProbedObject:
        """Put an object, with the ACL of every delivery or without one, and replace an existing one; but
        raise ObjectExists if it has to be ``new``."""
        asked = self._creation(acl) | ({"IfNoneMatch": "*"} if new else {})
        if self._with_checksums:
            asked |= checksum_parameters(zlib.crc32(body))
        answer = self._calls.call("PutObject", key, Body=body, ContentLength=len(body), **asked)
        return _object(answer, len(body))

    def create_upload(self, key: str) -> str:
        return str(self._calls.call("CreateMultipartUpload", key, **self._creation(True))["UploadId"])

    def upload_part(self, key: str, upload_id: str, number: int, body: bytes) -> UploadedPart:
        """Send one part. Raises PartsRefused, UploadNotFound."""
        answer = self._calls.call(
            "UploadPart", key, UploadId=upload_id, PartNumber=number, Body=body, ContentLength=len(body)
        )
        return UploadedPart(number, len(body), str(answer["ETag"]), str(answer.get("ChecksumCRC32", "")))

    def list_parts(self, key: str, upload_id: str) -> Sequence[int]:
        answer = self._calls.call("ListParts", key, UploadId=upload_id)
        return [int(part["PartNumber"]) for part in answer.get("Parts", ())]

    def complete_upload(self, key: str, upload_id: str, parts: Sequence[UploadedPart]) -> ProbedObject:
        """Raise PartsRefused, UploadNotFound."""
        listed = {"Parts": listed_parts(parts, self._with_checksums)}
        answer = self._calls.call("CompleteMultipartUpload", key, UploadId=upload_id, MultipartUpload=listed)
        return _object(answer, sum(part.size for part in parts))

    def abort_upload(self, key: str, upload_id: str) -> None:
        with suppress(UploadNotFound):
            self._calls.call("AbortMultipartUpload", key, UploadId=upload_id)

    def head(self, key: str) -> ProbedObject | None:
        mode = {"ChecksumMode": "ENABLED"} if self._with_checksums else {}
        try:
            answer = self._calls.call("HeadObject", key, **mode)
        except ObjectNotFound:
            return None
        return _object(answer, int(answer["ContentLength"]))

    def read(self, key: str) -> bytes:
        """Raise ObjectNotFound."""
        with closing(self._calls.call("GetObject", key)["Body"]) as body:
            return bytes(body.read(_MAX_READ_BYTES))

    def acl(self, key: str) -> ObjectAcl:
        """Raise ObjectNotFound."""
        return object_acl(self._calls.call("GetObjectAcl", key))

    def delete(self, key: str) -> str | None:
        """Delete the object; return the ID of the delete marker in a versioned bucket."""
        answer = self._calls.call("DeleteObject", key)
        return str(answer["VersionId"]) if answer.get("DeleteMarker") else None

    def close(self) -> None:
        self._calls.close()

    def _creation(self, acl: bool) -> dict[str, Any]:
        asked = stores.creation(self._destination)
        if not acl:
            del asked["ACL"]
        return {**asked, "ContentType": CONTENT_TYPE, "Metadata": stores.metadata(TOKEN, {})}


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
    credentials: Credentials, customer: Customer, service: str, method: str, stop: threading.Event
) -> bool:
    """Return whether the call was allowed; False without a clear answer."""
    parameters: dict[str, str] = {}
    if method == "get_bucket_policy":
        parameters = {"Bucket": customer.destination.bucket, "ExpectedBucketOwner": customer.bucket_owner}
    try:
        session = new_session()
        session.set_credentials(
            credentials.access_key_id, credentials.secret_access_key, credentials.session_token
        )
        client = make_client(
            session,
            service,
            customer.destination.region or DEFAULT_REGION[customer.partition],
            attempts=2,
            read_timeout_seconds=30,
            stop=stop,
            reads_only=True,
            s3={"addressing_style": str(customer.destination.addressing)},
        )
        with closing(client):
            getattr(client, method)(**parameters)
    except ClientError as error:
        return answer_of(error).code == "NoSuchBucketPolicy"  # the read is allowed, and there is no policy
    except BodyFailed as failed:
        if isinstance(failed.error, Interrupted):
            raise failed.error from None
        return False
    except (*AWS_ERRORS, XmodeError, *UNREADABLE):
        return False
    return True

"""Trying rights against roles and buckets in memory, which decide by their policies."""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any, TypeVar

from tests.fakes import uploads
from tests.fakes.buckets import MemoryBucket, MemoryBuckets, StoredUpload, StoredVersion
from tests.fakes.faults import Faults, Requests
from tests.fakes.requests import Gate
from tests.fakes.roles import MemoryRoles, MemorySession
from tests.fakes.sessions import MemoryRoleSessions
from xmode_transfer.aws.policy import evaluate
from xmode_transfer.aws.policy.documents import ACL, Step, compact, step_policy
from xmode_transfer.aws.policy.evaluate import Request, S3Call, allowed
from xmode_transfer.aws.probing import ProbedObject
from xmode_transfer.aws.sessions import Credentials, CredentialsProvider
from xmode_transfer.aws.stores import FULL_CONTROL, Grant, ObjectAcl, PutRequest
from xmode_transfer.config import Customer
from xmode_transfer.model.errors import ObjectExists, ObjectNotFound, RequestRefused, RoleRefused
from xmode_transfer.model.keys import checks_prefix
from xmode_transfer.model.records import Checksum, ListedObject, UploadedPart

T = TypeVar("T")

EXCESSIVE = (
    "s3:ListAllMyBuckets",
    "s3:GetBucketPolicy",
    "iam:GetAccountSummary",
    "iam:ListUsers",
    "lambda:ListFunctions",
)
EXCESSIVE_DEEP = (*EXCESSIVE, "kms:ListKeys", "dynamodb:ListTables", "ec2:DescribeRegions")


class MemoryProber:
    """A prober as of ``aws.probing``. ``vendor_policy`` is our own user's identity policy; without one it may
    assume any role. ``locked`` are buckets under Object Lock, ``writer_owns`` those whose objects belong to
    the writer alone, ``without_acls`` those that refuse every ACL."""

    def __init__(
        self,
        sessions: MemoryRoleSessions,
        buckets: MemoryBuckets,
        *,
        vendor_policy: Mapping[str, Any] | None = None,
        locked: Collection[str] = (),
        writer_owns: Collection[str] = (),
        without_acls: Collection[str] = (),
        faults: Faults | None = None,
    ) -> None:
        self.sessions = sessions
        self.buckets = buckets
        self.vendor_policy = vendor_policy
        self.locked = locked
        self.writer_owns = writer_owns
        self.without_acls = without_acls
        self.requests = Requests(faults)

    @property
    def roles(self) -> MemoryRoles:
        return self.sessions.roles

    def verify_identity(self) -> str:
        return self.sessions.verify_identity()

    def assume(self, customer: Customer, external_id: str | None) -> None:
        self.requests.begin("assume", external_id or "")
        self.session(customer, external_id, None)

    def session(
        self, customer: Customer, external_id: str | None, policy: Mapping[str, Any] | None
    ) -> Credentials:
        identity = self.verify_identity()
        if self.vendor_policy is not None:
            request = Request(identity, "sts:AssumeRole", customer.role_arn)
            if not evaluate([self.vendor_policy], request).allowed:
                raise RoleRefused(
                    f"User: {identity} is not authorized to perform: sts:AssumeRole on resource: "
                    f"{customer.role_arn} because no identity-based policy allows the sts:AssumeRole action",
                    hint="SourceScan at our user's identity policy",
                    aws_code="AccessDenied",
                    http_status=403,
                )
        return self.roles.assume(
            customer.role_arn, principal=identity, external_id=external_id, session_policy=policy
        )

    def reserve(self, customer: Customer, region: str | None) -> "MemoryReservedPrefix":
        return MemoryReservedPrefix(self, customer)

    def reads(self, *, deep: bool) -> Sequence[str]:
        return EXCESSIVE_DEEP if deep else EXCESSIVE

    def excess(self, customer: Customer, *, deep: bool) -> Iterator[str]:
        credentials = self.session(customer, customer.external_id, None)
        session = self.roles.session(credentials)
        assert session is not None  # it was opened a moment ago
        for right in self.reads(deep=deep):
            bucket = f"arn:{customer.partition}:s3:::{customer.destination.bucket}"
            resource = bucket if right == "s3:GetBucketPolicy" else "*"
            request = Request(session.principal, right, resource)
            if allowed(session.role.permission_policies, None, request).allowed:
                yield right


class _Provider(CredentialsProvider):
    """One narrowed session."""

    def __init__(self, prober: MemoryProber, customer: Customer, policy: Mapping[str, Any]) -> None:
        compact(policy)  # refuses what AWS would refuse
        self._open: Callable[[], Credentials] = lambda: prober.session(customer, customer.external_id, policy)
        self._current: Credentials | None = None

    def get(self) -> Credentials:
        if self._current is None:
            self._current = self._open()
        return self._current

    def invalidate(self, credentials: Credentials) -> None:
        self._current = None


class MemoryReservedPrefix:
    """A reserved prefix as of ``aws.probing``."""

    def __init__(self, prober: MemoryProber, customer: Customer) -> None:
        destination = customer.destination
        self.prefix = checks_prefix(destination.prefix)
        self.region: str | None = None
        self._prober = prober
        self._bucket = destination.bucket
        self._clock = prober.buckets.clock
        policy = step_policy(customer, Step.CHECK, self.prefix)
        self._gate = Gate(
            prober.buckets,
            prober.roles,
            _Provider(prober, customer, policy),
            bucket=destination.bucket,
            expected_owner=customer.bucket_owner,
            partition=customer.partition,
        )

    def locate(self) -> None:
        def work(session: MemorySession) -> None:
            # Policies are asked last: a refusal would be no error here.
            call = S3Call("ListObjectsV2", self._bucket, prefix=self.prefix)
            if self._prober.buckets.get(self._bucket) is None or self._owner_differs():
                self._gate.enter(session, call)

        self._run("locate", "", work)

    def list(self) -> Sequence[ListedObject]:
        def work(session: MemorySession) -> Sequence[ListedObject]:
            bucket = self._enter(session, S3Call("ListObjectsV2", self._bucket, prefix=self.prefix))
            page, _ = bucket.page(self.prefix, "", 1000)
            return [ListedObject(item.key, len(item.body), item.etag, item.modified_at) for item in page]

        return self._run("list", self.prefix, work)

    def put(self, key: str, body: bytes, *, acl: bool = True, new: bool = False) -> ProbedObject:
        def work(session: MemorySession) -> ProbedObject:
            call = S3Call("PutObject", self._bucket, key, acl=ACL if acl else None)
            bucket = self._enter(session, call)
            if new and bucket.current(key) is not None:
                raise ObjectExists(f"{key} exists", aws_code="PreconditionFailed", http_status=412)
            if acl and self._bucket in self._prober.without_acls:
                raise RequestRefused(
                    "the bucket does not allow ACLs",
                    aws_code="AccessControlListNotSupported",
                    http_status=400,
                )
            return self._store(bucket, key, body, uploads.etag(body))

        return self._run("put", key, work)

    def create_upload(self, key: str) -> str:
        def work(session: MemorySession) -> str:
            bucket = self._enter(session, S3Call("CreateMultipartUpload", self._bucket, key, acl=ACL))
            request = PutRequest(key, "check", 0, "application/octet-stream")
            upload = StoredUpload(bucket.new_id("upload"), request, ACL, self._clock.now())
            bucket.uploads[upload.upload_id] = upload
            return upload.upload_id

        return self._run("create_upload", key, work)

    def upload_part(self, key: str, upload_id: str, number: int, body: bytes) -> UploadedPart:
        def work(session: MemorySession) -> UploadedPart:
            bucket = self._enter(session, S3Call("UploadPart", self._bucket, key, acl=self._part_acl()))
            part = uploads.part(body)
            uploads.find(bucket, key, upload_id, self._clock.now()).parts[number] = part
            return UploadedPart(number, len(body), part.etag, part.checksum)

        return self._run("upload_part", f"{key}#{number}", work)

    def list_parts(self, key: str, upload_id: str) -> Sequence[int]:
        def work(session: MemorySession) -> Sequence[int]:
            bucket = self._enter(session, S3Call("ListParts", self._bucket, key))
            return sorted(uploads.find(bucket, key, upload_id, self._clock.now()).parts)

        return self._run("list_parts", key, work)

    def complete_upload(self, key: str, upload_id: str, parts: Sequence[UploadedPart]) -> ProbedObject:
        def work(session: MemorySession) -> ProbedObject:
            call = S3Call("CompleteMultipartUpload", self._bucket, key, acl=self._part_acl())
            bucket = self._enter(session, call)
            upload = uploads.find(bucket, key, upload_id, self._clock.now())
            body, etag = uploads.assemble(upload, parts, self._prober.buckets.min_part_bytes)
            made = self._store(bucket, key, body, etag)
            del bucket.uploads[upload_id]
            return made

        return self._run("complete_upload", key, work)

    def abort_upload(self, key: str, upload_id: str) -> None:
        def work(session: MemorySession) -> None:
            bucket = self._enter(session, S3Call("AbortMultipartUpload", self._bucket, key))
            bucket.uploads.pop(upload_id, None)

        self._run("abort_upload", key, work)

    def head(self, key: str) -> ProbedObject | None:
        def work(session: MemorySession) -> ProbedObject | None:
            found = self._enter(session, S3Call("HeadObject", self._bucket, key)).current(key)
            return None if found is None else self._probed(found)

        return self._run("head", key, work)

    def read(self, key: str) -> bytes:
        def work(session: MemorySession) -> bytes:
            return _there(self._enter(session, S3Call("GetObject", self._bucket, key)), key).body

        return self._run("read", key, work)

    def acl(self, key: str) -> ObjectAcl:
        def work(session: MemorySession) -> ObjectAcl:
            bucket = self._enter(session, S3Call("GetObjectAcl", self._bucket, key))
            _there(bucket, key)
            holder = "writer" if self._bucket in self._prober.writer_owns else bucket.owner
            return ObjectAcl(bucket.owner, frozenset({Grant(holder, FULL_CONTROL)}))

        return self._run("acl", key, work)

    def delete(self, key: str) -> str | None:
        def work(session: MemorySession) -> str | None:
            bucket = self._enter(session, S3Call("DeleteObject", self._bucket, key))
            return bucket.remove(key, self._clock.now())

        return self._run("delete", key, work)

    def close(self) -> None:
        pass

    def _run(self, operation: str, key: str, work: Callable[[MemorySession], T]) -> T:
        self._prober.requests.begin(operation, key)
        answer = self._gate.with_session(work)
        bucket = self._prober.buckets.get(self._bucket)
        self.region = bucket.region if bucket is not None else None
        return answer

    def _enter(self, session: MemorySession, call: S3Call) -> MemoryBucket:
        return self._gate.enter(session, call)

    def _owner_differs(self) -> bool:
        bucket = self._prober.buckets.get(self._bucket)
        return bucket is not None and bucket.owner != self._gate.expected_owner

    def _part_acl(self) -> str | None:
        return ACL if self._prober.buckets.parts_inherit_acl else None

    def _store(self, bucket: MemoryBucket, key: str, body: bytes, etag: str) -> ProbedObject:
        version = StoredVersion(
            key,
            bucket.new_id("version") if bucket.versioned else None,
            self._clock.now(),
            body=body,
            etag=etag,
            checksum=Checksum("crc32", uploads.crc32(body)),
            encryption="AES256" if bucket.kms_key_arn is None else "aws:kms",
        )
        bucket.store(version)
        return self._probed(version)

    def _probed(self, version: StoredVersion) -> ProbedObject:
        locked = "GOVERNANCE" if self._bucket in self._prober.locked else None
        return ProbedObject(
            len(version.body), version.checksum, version.version_id, version.encryption, locked
        )


def _there(bucket: MemoryBucket, key: str) -> StoredVersion:
    found = bucket.current(key)
    if found is None:
        raise ObjectNotFound(f"there is no object {key}", aws_code="NoSuchKey", http_status=404)
    return found

"""One authorised request: whose session it is, what its policies say, and the error when they say no."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TypeVar

from tests.fakes.buckets import MemoryBucket, MemoryBuckets
from tests.fakes.roles import MemoryRoles, MemorySession
from xmode_transfer.aws.policy.documents import s3_service
from xmode_transfer.aws.policy.evaluate import Decision, Request, S3Call, allowed, requests, strictest
from xmode_transfer.aws.sessions import CredentialsProvider
from xmode_transfer.model.errors import (
    AccessDenied,
    BucketMissing,
    KmsDenied,
    PartsRefused,
    SessionExpired,
    WrongBucketOwner,
)

T = TypeVar("T")

# S3 API reference: PutObject encrypts; UploadPart and what follows also read; GET and HEAD with checksums
# decrypt.
_KMS_ACTIONS = {
    "PutObject": ("kms:GenerateDataKey",),
    "CreateMultipartUpload": ("kms:GenerateDataKey", "kms:Decrypt"),
    "UploadPart": ("kms:GenerateDataKey", "kms:Decrypt"),
    "CompleteMultipartUpload": ("kms:GenerateDataKey", "kms:Decrypt"),
    "HeadObject": ("kms:Decrypt",),
    "GetObject": ("kms:Decrypt",),
}
_PARTS = frozenset({"UploadPart", "CompleteMultipartUpload"})


@dataclass(frozen=True, slots=True)
class Gate:
    """What stands between a request and a bucket: the session, the owner check and the policies."""

    buckets: MemoryBuckets
    roles: MemoryRoles
    credentials: CredentialsProvider
    bucket: str
    expected_owner: str
    partition: str

    def with_session(self, work: Callable[[MemorySession], T]) -> T:
        """Works under a live session: one that has ended is renewed once. Raises SessionExpired when the
        new one is refused too."""
        for _ in range(2):
            credentials = self.credentials.get()
            session = self.roles.session(credentials)
            if session is not None:
                return work(session)
            self.credentials.invalidate(credentials)
        raise SessionExpired(
            "S3 refuses the role session as expired, and the renewed one too",
            hint="SourceScan at this machine's clock and at the role's maximum session duration",
            aws_code="ExpiredToken",
            http_status=400,
        )

    def enter(self, session: MemorySession, call: S3Call) -> MemoryBucket:
        """The bucket, for a call that may be made. Raises BucketMissing, WrongBucketOwner, AccessDenied,
        KmsDenied or PartsRefused."""
        bucket = self.buckets.get(self.bucket)
        if bucket is None:
            raise BucketMissing(
                f"the bucket {self.bucket} does not exist",
                hint="Ask the customer whether it was deleted or renamed",
                aws_code="NoSuchBucket",
                http_status=404,
            )
        if bucket.owner != self.expected_owner:
            raise WrongBucketOwner(
                f"the bucket {self.bucket} does not belong to account {self.expected_owner}",
                hint="Ask the customer who owns the bucket; set destination.bucket_owner if that is right",
                aws_code="AccessDenied",
                http_status=403,
            )
        decision = self.decide(session, call)
        if not decision.allowed:
            raise _refusal(call, decision)
        if bucket.kms_key_arn is not None:
            self._enter_kms(session, call, bucket, bucket.kms_key_arn)
        return bucket

    def decide(self, session: MemorySession, call: S3Call) -> Decision:
        call = replace(call, partition=self.partition)
        policies = session.role.permission_policies
        needed = requests(call, session.principal)
        return strictest([allowed(policies, session.session_policy, request) for request in needed])

    def _enter_kms(self, session: MemorySession, call: S3Call, bucket: MemoryBucket, key_arn: str) -> None:
        """S3 asks KMS as the caller (S3 User Guide, SSE-KMS), naming itself as the service."""
        context = {"kms:ViaService": s3_service(bucket.region, self.partition)}
        for action in _KMS_ACTIONS.get(call.operation, ()):
            request = Request(session.principal, action, key_arn, context)
            decision = allowed(session.role.permission_policies, session.session_policy, request)
            if not decision.allowed:
                raise KmsDenied(
                    f"S3 refuses {call.operation} of {call.key}: {decision.reason}",
                    hint=f"Ask the customer to grant {action} on {key_arn} to the role",
                    aws_code="AccessDenied",
                    http_status=403,
                )


def _refusal(call: S3Call, decision: Decision) -> AccessDenied | PartsRefused:
    kind = PartsRefused if call.operation in _PARTS else AccessDenied
    what = f"{call.operation} of {call.key}" if call.key else f"{call.operation} on {call.bucket}"
    return kind(
        f"S3 refuses {what}: {decision.reason}",
        hint="Ask the customer to compare the role's permission policy with the setup guide",
        aws_code="AccessDenied",
        http_status=403,
    )

"""What the access check would find. A bucket's and a role's policies of one account add up: one allow is
enough, one deny decides. Across accounts both must allow (IAM User Guide, "Cross-account policy evaluation
logic")."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from xmode_transfer.access.catalogue import Cause, finding, wrong_external_ids, wrongly_accepted
from xmode_transfer.access.lint.records import Document, Fault, Issue, Kind, issue, meant_key
from xmode_transfer.aws.policy import evaluate
from xmode_transfer.aws.policy.documents import ACL, SetupValues, s3_service
from xmode_transfer.aws.policy.evaluate import (
    Decision,
    Outcome,
    PolicyKind,
    Request,
    S3Call,
    assume_role,
    requests,
    strictest,
)
from xmode_transfer.aws.policy.patterns import Context, strings
from xmode_transfer.model.findings import Finding, passed
from xmode_transfer.model.keys import checks_prefix

Answers = Iterator[Finding | Issue]

_ALL_OF_ROLE = {"Version": "2012-10-17", "Statement": {"Effect": "Allow", "Action": "*", "Resource": "*"}}
_ALL_OF_BUCKET = {
    "Version": "2012-10-17",
    "Statement": {"Effect": "Allow", "Principal": "*", "Action": "*", "Resource": "*"},
}
_NONCE = "3f9d0c4b7e6a4f5c8d21"
_DATA = "us-daily/2026/11/22/part-0001.csv"


def files(documents: Iterable[Document]) -> str:
    return ", ".join(dict.fromkeys(document.name for document in documents))


def _judged(
    name: str, probe: str, decision: Decision, cause: Cause, facts: SetupValues, words: str
) -> Finding | Issue:
    """``words`` is what the role may do."""
    if decision.allowed:
        return passed(probe, f"the role {words}")
    if decision.outcome is Outcome.CANNOT_TELL:
        return _undecided(name, probe, decision)
    return finding(cause, probe, facts, detail=decision.reason)


def _undecided(name: str, probe: str, decision: Decision) -> Issue:
    message = f"{probe}: cannot determine whether AWS allows it: {decision.reason}"
    return issue(name, Fault.CANNOT_TELL, message, "Run `xmode-transfer check-access`, which tests it at AWS")


def _misspelt(documents: Iterable[Document]) -> dict[str, tuple[str, ...]]:
    """Condition keys that do not exist but resemble one: no request has them."""
    return {
        key: ()
        for document in documents
        for statement in document.statements()
        for _, key, _ in statement.conditions()
        if meant_key(key) is not None
    }


def judge_trust(documents: Sequence[Document], facts: SetupValues) -> Answers:
    """Judge AssumeRole with the right external ID, with wrong ones and none, and by other principals."""
    name = files(documents)
    context: Context = {
        "aws:SecureTransport": "true",
        "aws:PrincipalIsAWSService": "false",
        "aws:MultiFactorAuthPresent": (),  # we sign with the user's long-term key
        **_misspelt(documents),
    }

    def assume(external_id: str | None, principal: str = facts.principal) -> Decision:
        # A role has one trust policy; of several that were pasted, each must be right.
        return strictest(
            [
                assume_role(
                    document.content,
                    principal=principal,
                    role_arn=facts.role_arn,
                    external_id=external_id,
                    context=context,
                )
                for document in documents
            ]
        )

    right = assume(facts.external_id)
    wrong = {probe: assume(one) for probe, one in wrong_external_ids(facts.external_id, _NONCE).items()}
    accepted = {probe for probe, decision in wrong.items() if decision.allowed}
    words = "allows access with its external ID"
    yield _judged(name, "assume_role", right, Cause.ROLE_REFUSED, facts, words)
    for probe, decision in wrong.items():
        if decision.outcome is Outcome.CANNOT_TELL:
            yield _undecided(name, probe, decision)
        elif probe not in accepted:
            yield passed(probe, "the role denies access, as it should")
        else:
            yield wrongly_accepted(probe, accepted, facts)

    partition, account = facts.principal.split(":")[1], facts.principal.split(":")[4]
    fix = f'Write "Principal": {{"AWS": "{facts.principal}"}}'
    if assume(facts.external_id, f"arn:{partition}:iam::999988887777:user/stranger").allowed:
        message = "anyone in any AWS account who knows the external ID may assume the role"
        yield issue(name, Fault.TRUSTS_ANYBODY, message, fix)
    elif assume(facts.external_id, f"arn:{partition}:iam::{account}:user/somebody-else").allowed:
        message = f"the role trusts every user and role of account {account}, not XMode's user alone"
        yield issue(name, Fault.TRUSTS_WHOLE_ACCOUNT, message, fix)

    # A second ID in the list is right while one replaces the other. A role that takes any ID is a finding.
    if right.allowed and not accepted & {"external_id_random", "external_id_similar"}:
        for one in dict.fromkeys(one for document in documents for one in external_ids(document)):
            if one != facts.external_id and assume(one.replace("*", "any").replace("?", "x")).allowed:
                message = f"the role accepts the external ID {one} as well as {facts.external_id}"
                fix = f"Remove {one}, unless one is being replaced by the other right now"
                yield issue(name, Fault.SECOND_EXTERNAL_ID, message, fix)


def external_ids(document: Document) -> Iterator[str]:
    for statement in document.statements():
        for _, key, value in statement.conditions():
            if key.lower() == "sts:externalid":
                yield from strings(value) or ()


@dataclass(frozen=True, slots=True)
class Rights:
    """The policies that decide together. Where ``on_role`` is empty, only denials are reported."""

    facts: SetupValues
    on_role: Sequence[Mapping[str, Any]]
    on_bucket: Sequence[Mapping[str, Any]]
    on_key: Sequence[Mapping[str, Any]]
    misspelt: Mapping[str, tuple[str, ...]]

    @staticmethod
    def of(facts: SetupValues, documents: Sequence[Document]) -> "Rights":
        on_role, on_bucket, on_key = (
            [document.content for document in documents if document.kind is kind]
            for kind in (Kind.PERMISSION, Kind.BUCKET, Kind.KEY)
        )
        misspelt = _misspelt(document for document in documents if document.kind is not Kind.TRUST)
        return Rights(facts, on_role, on_bucket, on_key, misspelt)

    def call(self, operation: str, **how: Any) -> Decision:
        """Decide the call on a delivered object and in the check's reserved place."""
        prefix = self.facts.prefix
        return self._all(
            S3Call(operation, self.facts.bucket, key, partition=self.facts.partition, **how)
            for key in (prefix + _DATA, checks_prefix(prefix) + "canary")
        )

    def listing(self) -> Decision:
        bucket, prefix, partition = self.facts.bucket, self.facts.prefix, self.facts.partition
        return self._all(
            S3Call("ListObjectsV2", bucket, prefix=place, partition=partition)
            for place in (prefix, checks_prefix(prefix))
        )

    def _all(self, calls: Iterable[S3Call]) -> Decision:
        needed = [self.known(request) for call in calls for request in requests(call, self.session)]
        return strictest([self._decide(request) for request in needed])

    def _decide(self, request: Request) -> Decision:
        if not self.on_bucket:
            return evaluate(self.on_role, request)
        # With everything allowed besides, what is left is what denies, or may.
        of_bucket = evaluate([*self.on_bucket, _ALL_OF_BUCKET], request, kind=PolicyKind.RESOURCE)
        if not self.on_role:
            return of_bucket  # the role's own policies, which are not given, may allow it
        of_role = evaluate([*self.on_role, _ALL_OF_ROLE], request)
        for decision, whose in ((of_role, "role"), (of_bucket, "bucket")):
            if decision.outcome is Outcome.EXPLICIT_DENY:
                return replace(decision, reason=f"{decision.reason}, in the {whose}'s policy")
        for decision in (of_role, of_bucket):
            if decision.outcome is Outcome.CANNOT_TELL:
                return decision
        on_role = evaluate(self.on_role, request)
        on_bucket = evaluate(self.on_bucket, request, kind=PolicyKind.RESOURCE)
        if self.facts.account != self.facts.bucket_owner:
            return strictest([on_role, on_bucket])
        order = (Outcome.ALLOW, Outcome.CANNOT_TELL, Outcome.IMPLICIT_DENY)
        return min((on_role, on_bucket), key=lambda decision: order.index(decision.outcome))

    def key(self, action: str, key_arn: str) -> Decision:
        """Through S3. The key's policy must allow the role, or leave that to IAM (KMS Developer Guide)."""
        region = self.facts.region or key_arn.split(":")[3]
        context = {
            "kms:ViaService": s3_service(region, self.facts.partition),
            "kms:CallerAccount": self.facts.account,
        }
        request = self.known(Request(self.session, action, key_arn, context))
        decisions = [evaluate(self.on_role, request)] if self.on_role else []
        if self.on_key:
            decisions.append(evaluate(self.on_key, request, kind=PolicyKind.RESOURCE))
        return strictest(decisions)

    @property
    def region(self) -> str:
        return self.facts.region or "us-east-1"

    @property
    def session(self) -> str:
        facts = self.facts
        return f"arn:{facts.partition}:sts::{facts.account}:assumed-role/{facts.role_name}/xmode-transfer"

    def known(self, request: Request) -> Request:
        """Add what is certain of every request of ours."""
        facts = self.facts
        context: dict[str, str | tuple[str, ...]] = {
            "aws:SecureTransport": "true",
            "aws:PrincipalArn": facts.role_arn,
            "aws:PrincipalAccount": facts.account,
            "aws:PrincipalType": "AssumedRole",
            "aws:PrincipalIsAWSService": "false",
            "aws:ViaAWSService": "false",
            "aws:ResourceAccount": facts.bucket_owner,
            "s3:ResourceAccount": facts.bucket_owner,
            "s3:authType": "REST-HEADER",
            "s3:signatureversion": "AWS4-HMAC-SHA256",
            **self.misspelt,
            **request.context,
        }
        if facts.kms_key_arn is not None and request.action == "s3:PutObject":
            context["s3:x-amz-server-side-encryption"] = "aws:kms"
            context["s3:x-amz-server-side-encryption-aws-kms-key-id"] = facts.kms_key_arn
        if facts.region is not None:
            context["aws:RequestedRegion"] = facts.region
        return replace(request, context=context)


_OBJECT_RIGHTS = (
    ("abort", "AbortMultipartUpload", Cause.ABORT_DENIED, "may abort its uploads"),
    ("list_parts", "ListParts", Cause.LIST_PARTS_DENIED, "may list the parts of its uploads"),
    ("head", "HeadObject", Cause.HEAD_DENIED, "may read objects and their checksums"),
    ("get_acl", "GetObjectAcl", Cause.GET_ACL_DENIED, "may read the ACL of objects"),
    ("delete", "DeleteObject", Cause.DELETE_DENIED, "may delete what we put"),
)


def judge_rights(name: str, rights: Rights) -> Answers:
    facts = rights.facts
    put, bare, parts = rights.call("PutObject", acl=ACL), rights.call("PutObject"), rights.call("UploadPart")
    yield _judged(name, "list", rights.listing(), Cause.LIST_DENIED, facts, "may list the bucket")
    refused = Cause.ACL_REFUSED if bare.allowed else Cause.PUT_DENIED
    yield _judged(name, "put", put, refused, facts, f"may put objects with the ACL {ACL}")
    if put.allowed and rights.on_role:
        if bare.allowed:
            yield finding(Cause.PUT_WITHOUT_ACL_ALLOWED, "put_without_acl", facts)
        elif bare.outcome is not Outcome.CANNOT_TELL:
            yield passed("put_without_acl", "the role denies an object without the ACL, as it should")
    if put.allowed and not parts.allowed:
        message = f"{parts.reason}; AWS may accept parts nevertheless, which check-access tests"
        yield finding(Cause.MULTIPART_DENIED, "multipart", facts, detail=message)
    elif put.allowed:
        yield passed("multipart", "the role may send objects in parts")
    for probe, operation, cause, words in _OBJECT_RIGHTS:
        yield _judged(name, probe, rights.call(operation), cause, facts, words)


def judge_key(name: str, rights: Rights, key_arn: str) -> Answers:
    decision = strictest([rights.key(action, key_arn) for action in ("kms:GenerateDataKey", "kms:Decrypt")])
    words = "may use the KMS key through S3"
    yield _judged(name, "encryption", decision, Cause.KMS_DENIED, rights.facts, words)


def judge_no_key(name: str, rights: Rights) -> Answers:
    """Report a role that is denied every KMS key, as the guide's third statement does."""
    key = f"arn:{rights.facts.partition}:kms:{rights.region}:{rights.facts.account}:key/any"
    decision = evaluate(rights.on_role, rights.known(Request(rights.session, "kms:GenerateDataKey", key)))
    if decision.outcome is Outcome.EXPLICIT_DENY:
        yield issue(
            name,
            Fault.KMS_EXPLICITLY_DENIED,
            "KMS is denied, so nothing can be written to a bucket that encrypts with a KMS key; other "
            "buckets work",
            "Without a KMS key, no action is needed. With one: xmode-transfer policy print --corrected, and "
            "destination.kms_key_arn in the customer's file",
            statement=None if decision.statement is None else decision.statement + 1,
        )

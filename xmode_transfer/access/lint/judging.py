"""Decide from the documents each request that we make: the access check, predicted.

A bucket's policy and a role's policies of one account add up: one allow will do, one deny decides. Across
accounts both must allow (IAM User Guide, "Cross-account policy evaluation logic").
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from xmode_transfer.access.catalogue import (
    NO_ID,
    OTHER_CASE,
    RANDOM_ID,
    SIMILAR_ID,
    finding,
    wrongly_accepted,
)
from xmode_transfer.access.lint.records import Document, Fault, Issue, Kind, issue, meant_key
from xmode_transfer.aws.denials import Facts
from xmode_transfer.aws.policy import (
    ACL,
    Decision,
    Outcome,
    PolicyKind,
    Request,
    S3Call,
    assume_role,
    evaluate,
    requests,
    strictest,
)
from xmode_transfer.aws.policy.documents import s3_service
from xmode_transfer.aws.policy.patterns import strings
from xmode_transfer.model.findings import Cause, Finding, Severity, passed
from xmode_transfer.model.keys import checks_prefix

Policy = Mapping[str, Any]
Answers = Iterator[Finding | Issue]

_ALL_OF_ROLE = {
    "Version": "2012-10-17",
    "Statement": {"Effect": "Allow", "Action": "*", "Resource": "*"},
}
_ALL_OF_BUCKET = {
    "Version": "2012-10-17",
    "Statement": {"Effect": "Allow", "Principal": "*", "Action": "*", "Resource": "*"},
}
STRANGER = "arn:{partition}:iam::999988887777:user/stranger"
NEVER_ISSUED = "xm-3f9d0c4b7e6a4f5c8d21"
_DATA = "us-daily/2026/11/22/part-0001.csv"


def inconclusive(file: str, probe: str, reason: str) -> Issue:
    """A probe with an outcome that the documents do not decide."""
    message = f"{probe}: cannot determine whether AWS allows it: {reason}"
    fix = "Run `xmode-transfer check-access`, which tests it at AWS"
    return issue(file, Fault.CANNOT_TELL, message, fix, Severity.WARNING)


# --- Trust ---------------------------------------------------------------------------------------------


def judge_trust(documents: Sequence[Document], facts: Facts) -> Answers:
    """The right external ID, wrong ones, none: what AssumeRole would answer; and who else gets access."""
    name = files(documents)
    yield from _tried(name, documents, facts)
    yield from _trusted(name, documents, facts)
    yield from _other_ids(name, documents, facts)


def _tried(name: str, documents: Sequence[Document], facts: Facts) -> Answers:
    def ask(external_id: str | None) -> Decision:
        return _assume(documents, facts, facts.principal, external_id)

    right = ask(facts.external_id)
    trials: dict[str, str | None] = {
        RANDOM_ID: NEVER_ISSUED,
        SIMILAR_ID: f"{facts.external_id}-{NEVER_ISSUED}",
        NO_ID: None,
    }
    if facts.external_id.swapcase() != facts.external_id:
        trials[OTHER_CASE] = facts.external_id.swapcase()
    answers = {probe: ask(external_id) for probe, external_id in trials.items()}
    accepted = {probe for probe, decision in answers.items() if decision.allowed}
    if right.allowed:
        yield passed("assume_role", "the role allows access with its external ID")
    elif right.outcome is Outcome.CANNOT_TELL:
        yield inconclusive(name, "assume_role", right.reason)
    else:
        yield finding(Cause.ROLE_REFUSED, "assume_role", facts, detail=right.reason)
    for probe, decision in answers.items():
        if decision.outcome is Outcome.CANNOT_TELL:
            yield inconclusive(name, probe, decision.reason)
        elif probe not in accepted:
            yield passed(probe, "the role denies access, as it should")
        else:
            yield wrongly_accepted(probe, accepted, facts)


def _trusted(name: str, documents: Sequence[Document], facts: Facts) -> Iterator[Issue]:
    """Others that get access with the right external ID."""
    partition, account = facts.principal.split(":")[1], facts.principal.split(":")[4]
    colleague = f"arn:{partition}:iam::{account}:user/somebody-else"
    fix = f'Write "Principal": {{"AWS": "{facts.principal}"}}'
    if _assume(documents, facts, STRANGER.format(partition=partition), facts.external_id).allowed:
        message = "anyone in any AWS account who knows the external ID may assume the role"
        yield issue(name, Fault.TRUSTS_ANYBODY, message, fix, Severity.CRITICAL, "console step 17")
    elif _assume(documents, facts, colleague, facts.external_id).allowed:
        message = f"the role trusts every user and role of account {account}, not XMode's user alone"
        yield issue(
            name, Fault.TRUSTS_WHOLE_ACCOUNT, message, fix, Severity.WARNING, "console steps 15 to 17"
        )


def _other_ids(name: str, documents: Sequence[Document], facts: Facts) -> Iterator[Issue]:
    """External IDs besides the customer's own that are listed and let us in: right while one is changed for
    another, and no longer. What takes any ID is a cause of its own."""

    def lets_in(external_id: str) -> bool:
        return _assume(documents, facts, facts.principal, external_id).allowed

    similar = f"{facts.external_id}-{NEVER_ISSUED}"
    if not lets_in(facts.external_id) or lets_in(NEVER_ISSUED) or lets_in(similar):
        return
    for one in dict.fromkeys(one for document in documents for one in external_ids(document)):
        if one != facts.external_id and lets_in(one.replace("*", "any").replace("?", "x")):
            message = f"the role accepts the external ID {one} as well as {facts.external_id}"
            fix = f"Remove {one}, unless one is being replaced by the other right now"
            yield issue(name, Fault.SECOND_EXTERNAL_ID, message, fix, Severity.WARNING)


def external_ids(document: Document) -> Iterator[str]:
    """Those that its conditions name."""
    for statement in document.statements():
        for _, key, value in statement.conditions():
            if key.lower() == "sts:externalid":
                yield from strings(value) or ()


def _assume(documents: Sequence[Document], facts: Facts, principal: str, external_id: str | None) -> Decision:
    context: dict[str, str | tuple[str, ...]] = {
        "aws:SecureTransport": "true",
        "aws:PrincipalIsAWSService": "false",
        "aws:MultiFactorAuthPresent": (),  # we sign with the user's long-term key
        **_misspelt(documents),
    }
    decisions = [
        assume_role(
            document.content,
            principal=principal,
            role_arn=facts.role_arn,
            external_id=external_id,
            context=context,
        )
        for document in documents
    ]
    # A role has one trust policy; of several that were pasted, each must be right.
    return strictest(decisions)


# --- Rights --------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Rights:
    """The documents that decide about S3 and KMS together. ``on_role`` is empty where no permission policy
    was given: then only denials are reported."""

    facts: Facts
    on_role: Sequence[Policy]
    on_bucket: Sequence[Policy]
    on_key: Sequence[Policy]
    misspelt: Mapping[str, tuple[str, ...]]

    @staticmethod
    def of(facts: Facts, documents: Sequence[Document]) -> "Rights":
        def contents(kind: Kind) -> list[Policy]:
            return [document.content for document in documents if document.kind is kind]

        together = [document for document in documents if document.kind is not Kind.TRUST]
        return Rights(
            facts,
            contents(Kind.PERMISSION),
            contents(Kind.BUCKET),
            contents(Kind.KEY),
            _misspelt(together),
        )

    def call(self, operation: str, **how: Any) -> Decision:
        """The call on a delivered object and in the check's reserved place."""
        prefix = self.facts.prefix
        return self._all(
            S3Call(operation, self.facts.bucket, key, partition=self.facts.partition, **how)
            for key in (prefix + _DATA, checks_prefix(prefix) + "canary")
        )

    def listing(self) -> Decision:
        """Below our prefix, and in the check's reserved place."""
        bucket, prefix, partition = self.facts.bucket, self.facts.prefix, self.facts.partition
        return self._all(
            S3Call("ListObjectsV2", bucket, prefix=place, partition=partition)
            for place in (prefix, checks_prefix(prefix))
        )

    def _all(self, calls: Iterable[S3Call]) -> Decision:
        needed = [self.known(request) for call in calls for request in requests(call, self.session)]
        return strictest([self.decide(request) for request in needed])

    def decide(self, request: Request) -> Decision:
        if not self.on_bucket:
            return evaluate(self.on_role, request)
        # With everything allowed besides, what is left is what denies, or may.
        bucket_lets = evaluate([*self.on_bucket, _ALL_OF_BUCKET], request, kind=PolicyKind.RESOURCE)
        if not self.on_role:
            return bucket_lets  # the role's own policies, which nobody showed, may allow it
        role_lets = evaluate([*self.on_role, _ALL_OF_ROLE], request)
        for decision, whose in ((role_lets, "role"), (bucket_lets, "bucket")):
            if decision.outcome is Outcome.EXPLICIT_DENY:
                return replace(decision, reason=f"{decision.reason}, in the {whose}'s policy")
        for decision in (role_lets, bucket_lets):
            if decision.outcome is Outcome.CANNOT_TELL:
                return decision
        on_role = evaluate(self.on_role, request)
        on_bucket = evaluate(self.on_bucket, request, kind=PolicyKind.RESOURCE)
        if self.facts.account != self.facts.bucket_owner:
            return strictest([on_role, on_bucket])
        order = (Outcome.ALLOW, Outcome.CANNOT_TELL, Outcome.IMPLICIT_DENY)
        return min((on_role, on_bucket), key=lambda decision: order.index(decision.outcome))

    def key(self, action: str, key_arn: str) -> Decision:
        region = self.facts.region or key_arn.split(":")[3]
        request = self.known(
            Request(
                self.session,
                action,
                key_arn,
                {
                    "kms:ViaService": s3_service(region, self.facts.partition),
                    "kms:CallerAccount": self.facts.account,
                },
            )
        )
        on_role = evaluate(self.on_role, request) if self.on_role else None
        on_key = evaluate(self.on_key, request, kind=PolicyKind.RESOURCE) if self.on_key else None
        if on_key is None or on_role is None:
            decision = on_key or on_role
            assert decision is not None
            return decision
        # The key's policy must let the role in, itself or by leaving that to IAM (KMS Developer Guide).
        return strictest([on_role, on_key])

    @property
    def session(self) -> str:
        facts = self.facts
        return f"arn:{facts.partition}:sts::{facts.account}:assumed-role/{facts.role_name}/xmode-transfer"

    def known(self, request: Request) -> Request:
        """With what is certain of every request of ours."""
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


def judge_rights(name: str, rights: Rights) -> Answers:
    """Each right that a delivery and a check need, in the check's own words."""
    facts = rights.facts
    put, bare = rights.call("PutObject", acl=ACL), rights.call("PutObject")
    yield from _needed(name, "list", Cause.LIST_DENIED, rights.listing(), facts, "list the bucket")
    refused = Cause.ACL_REFUSED if bare.allowed else Cause.PUT_DENIED
    yield from _needed(name, "put", refused, put, facts, f"put objects with the ACL {ACL}")
    if put.allowed and rights.on_role:
        if bare.allowed:
            yield finding(Cause.PUT_WITHOUT_ACL_ALLOWED, "put_without_acl", facts)
        elif bare.outcome is not Outcome.CANNOT_TELL:
            yield passed("put_without_acl", "the role denies an object without the ACL, as it should")
    parts = rights.call("UploadPart")
    if put.allowed and not parts.allowed:
        message = f"{parts.reason}; AWS may accept parts nevertheless, which check-access tests"
        yield finding(Cause.MULTIPART_DENIED, "multipart", facts, detail=message)
    elif put.allowed:
        yield passed("multipart", "the role may send objects in parts")
    for probe, operation, cause, words in (
        ("abort", "AbortMultipartUpload", Cause.ABORT_DENIED, "abort its uploads"),
        ("list_parts", "ListParts", Cause.LIST_PARTS_DENIED, "list the parts of its uploads"),
        ("head", "HeadObject", Cause.HEAD_DENIED, "read objects and their checksums"),
        ("get_acl", "GetObjectAcl", Cause.GET_ACL_DENIED, "read the ACL of objects"),
        ("delete", "DeleteObject", Cause.DELETE_DENIED, "delete what we put"),
    ):
        yield from _needed(name, probe, cause, rights.call(operation), facts, words)


def judge_key(name: str, rights: Rights, key_arn: str) -> Answers:
    """Whether the role may use the key through S3."""
    decisions = [rights.key(action, key_arn) for action in ("kms:GenerateDataKey", "kms:Decrypt")]
    words = "use the KMS key through S3"
    yield from _needed(name, "encryption", Cause.KMS_DENIED, strictest(decisions), rights.facts, words)


def judge_no_key(name: str, rights: Rights) -> Answers:
    """Whether the role is denied any KMS key: the guide's third statement."""
    facts = rights.facts
    key = f"arn:{facts.partition}:kms:{facts.region or 'us-east-1'}:{facts.account}:key/any"
    decision = evaluate(rights.on_role, rights.known(Request(rights.session, "kms:GenerateDataKey", key)))
    if decision.outcome is Outcome.EXPLICIT_DENY:
        yield issue(
            name,
            Fault.KMS_EXPLICITLY_DENIED,
            "KMS is denied, so nothing can be written to a bucket that encrypts with a KMS key; other "
            "buckets work",
            "Without a KMS key, no action is needed. With one: xmode-transfer policy print --corrected, and "
            "destination.kms_key_arn in the customer's file",
            Severity.INFO,
            "CLI step 4, third statement",
            None if decision.statement is None else decision.statement + 1,
        )


def _needed(name: str, probe: str, cause: Cause, decision: Decision, facts: Facts, words: str) -> Answers:
    if decision.allowed:
        yield passed(probe, f"the role may {words}")
    elif decision.outcome is Outcome.CANNOT_TELL:
        yield inconclusive(name, probe, decision.reason)
    else:
        yield finding(cause, probe, facts, detail=decision.reason)


def _misspelt(documents: Sequence[Document]) -> dict[str, tuple[str, ...]]:
    """Condition keys that do not exist but resemble one: no request has them."""
    return {
        key: ()
        for document in documents
        for statement in document.statements()
        for _, key, _ in statement.conditions()
        if meant_key(key) is not None
    }


def files(documents: Sequence[Document]) -> str:
    """The names of their files."""
    return ", ".join(dict.fromkeys(document.name for document in documents))

"""What the documents decide about each request that we make: the access check, foretold.

A bucket's policy and a role's policies of one account add up: one allow will do, one deny decides. Across
accounts both must allow (IAM User Guide, "Cross-account policy evaluation logic").
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from xmode_transfer.domain.findings import Cause, Facts, Finding, Fix, Severity, finding, passed, skipped
from xmode_transfer.domain.keys import check_place
from xmode_transfer.domain.policy import (
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
from xmode_transfer.domain.policy.kms import s3_service
from xmode_transfer.domain.policy.patterns import strings
from xmode_transfer.domain.policy_lint.records import Fault, Remark
from xmode_transfer.domain.policy_lint.vocabulary import meant_key

Policy = Mapping[str, Any]

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


@dataclass(frozen=True, slots=True)
class Doubt:
    """A probe whose outcome cannot be told from the documents."""

    probe: str
    reason: str

    def remark(self, file: str) -> Remark:
        return Remark(
            file,
            Fault.CANNOT_TELL,
            Severity.WARNING,
            f"{self.probe}: it cannot be told whether AWS allows it: {self.reason}",
            Fix("Run `xmode-transfer check-access`: it asks AWS itself"),
        )


# --- Trust ---------------------------------------------------------------------------------------------


def judge_trust(policies: Sequence[Policy], facts: Facts) -> Iterator[Finding | Doubt]:
    """The right external ID, wrong ones, none: what AssumeRole would answer."""

    def ask(external_id: str | None) -> Decision:
        return _assume(policies, facts, facts.principal, external_id)

    right = ask(facts.external_id)
    trials: dict[str, str | None] = {
        "external_id_random": NEVER_ISSUED,
        "external_id_similar": f"{facts.external_id}-{NEVER_ISSUED}",
        "external_id_none": None,
    }
    if facts.external_id.swapcase() != facts.external_id:
        trials["external_id_case"] = facts.external_id.swapcase()
    answers = {probe: ask(external_id) for probe, external_id in trials.items()}
    accepted = {probe for probe, decision in answers.items() if decision.allowed}
    if right.allowed:
        yield passed("assume_role", "the role lets us in with its external ID")
    elif right.outcome is Outcome.CANNOT_TELL:
        yield Doubt("assume_role", right.reason)
    else:
        yield finding(Cause.ROLE_REFUSED, "assume_role", facts, detail=right.reason)
    any_value = accepted & {"external_id_random", "external_id_similar"}
    for probe, decision in answers.items():
        if decision.outcome is Outcome.CANNOT_TELL:
            yield Doubt(probe, decision.reason)
        elif probe not in accepted:
            yield passed(probe, "the role refuses us, as it should")
        elif probe == "external_id_none":
            yield finding(Cause.EXTERNAL_ID_NOT_REQUIRED, probe, facts)
        elif {"external_id_none", "external_id_random"} <= accepted:
            yield skipped(probe, "the role demands no external ID at all, so it takes any")
        elif probe == "external_id_case" and not any_value:
            yield finding(Cause.EXTERNAL_ID_CASE_INSENSITIVE, probe, facts)
        elif probe == min(any_value):
            yield finding(Cause.EXTERNAL_ID_ANY_VALUE, probe, facts)
        else:
            yield skipped(probe, "the role takes values that were never issued")


def judge_trusted(name: str, policies: Sequence[Policy], facts: Facts) -> Iterator[Remark]:
    """Who else is let in, with the right external ID."""
    partition, account = facts.principal.split(":")[1], facts.principal.split(":")[4]
    colleague = f"arn:{partition}:iam::{account}:user/somebody-else"
    if _assume(policies, facts, STRANGER.format(partition=partition), facts.external_id).allowed:
        yield Remark(
            name,
            Fault.TRUSTS_ANYBODY,
            Severity.CRITICAL,
            "anybody in any AWS account who knows the external ID may assume the role",
            Fix(f'Write "Principal": {{"AWS": "{facts.principal}"}}', None, None, "console step 17"),
        )
    elif _assume(policies, facts, colleague, facts.external_id).allowed:
        yield Remark(
            name,
            Fault.TRUSTS_WHOLE_ACCOUNT,
            Severity.WARNING,
            f"the role trusts every user and role of account {account}, not XMode's user alone",
            Fix(f'Write "Principal": {{"AWS": "{facts.principal}"}}', None, None, "console steps 15 to 17"),
        )


def judge_other_ids(name: str, policies: Sequence[Policy], facts: Facts) -> Iterator[Remark]:
    """External IDs besides the customer's own that are listed and let us in: right while one is changed for
    another, and no longer. What takes any ID is a cause of its own."""

    def lets_in(external_id: str) -> bool:
        return _assume(policies, facts, facts.principal, external_id).allowed

    similar = f"{facts.external_id}-{NEVER_ISSUED}"
    if not lets_in(facts.external_id) or lets_in(NEVER_ISSUED) or lets_in(similar):
        return
    listed = dict.fromkeys(one for policy in policies for one in _external_ids(policy))
    for one in listed:
        if one != facts.external_id and lets_in(one.replace("*", "any").replace("?", "x")):
            yield Remark(
                name,
                Fault.SECOND_EXTERNAL_ID,
                Severity.WARNING,
                f"the role takes the external ID {one} as well as {facts.external_id}",
                Fix(f"Take {one} out, unless it is being changed for the other right now"),
            )


def _external_ids(policy: Policy) -> Iterator[str]:
    for keys in _conditions(policy):
        for key, value in keys.items():
            if str(key).lower() == "sts:externalid":
                yield from strings(value) or ()


def _assume(policies: Sequence[Policy], facts: Facts, principal: str, external_id: str | None) -> Decision:
    context: dict[str, str | tuple[str, ...]] = {
        "aws:SecureTransport": "true",
        "aws:PrincipalIsAWSService": "false",
        "aws:MultiFactorAuthPresent": (),  # we sign with the user's long-term key
        **_misspelt(policies),
    }
    decisions = [
        assume_role(
            policy, principal=principal, role_arn=facts.role_arn, external_id=external_id, context=context
        )
        for policy in policies
    ]
    return decisions[0] if len(decisions) == 1 else _weakest(decisions)


def _weakest(decisions: Sequence[Decision]) -> Decision:
    """A role has one trust policy; of several that were pasted, each must be right."""
    for outcome in (Outcome.EXPLICIT_DENY, Outcome.IMPLICIT_DENY, Outcome.CANNOT_TELL):
        for decision in decisions:
            if decision.outcome is outcome:
                return decision
    return decisions[0]


# --- Rights --------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Rights:
    """The documents that decide about S3 and KMS together. ``on_role`` is empty where no permission policy
    was given: then only what denies is told."""

    facts: Facts
    on_role: Sequence[Policy]
    on_bucket: Sequence[Policy]
    on_key: Sequence[Policy]
    misspelt: Mapping[str, tuple[str, ...]] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "misspelt", _misspelt([*self.on_role, *self.on_bucket, *self.on_key]))

    def call(self, operation: str, **how: Any) -> Decision:
        """The call on a delivered object and in the check's reserved place, or on the bucket."""
        facts = self.facts
        keys = [facts.prefix + _DATA, check_place(facts.prefix) + "canary"]
        calls = [S3Call(operation, facts.bucket, key, partition=facts.partition, **how) for key in keys]
        needed = [self.known(request) for call in calls for request in requests(call, self.session)]
        return strictest(needed, self.decide)

    def listing(self) -> Decision:
        facts = self.facts
        calls = [
            S3Call("ListObjectsV2", facts.bucket, prefix=prefix, partition=facts.partition)
            for prefix in (facts.prefix, check_place(facts.prefix))
        ]
        needed = [self.known(request) for call in calls for request in requests(call, self.session)]
        return strictest(needed, self.decide)

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
            return _weakest([on_role, on_bucket])
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
        return _weakest([on_role, on_key])

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


def judge_rights(rights: Rights) -> Iterator[Finding | Doubt]:
    """Each right that a delivery and a check need, in the check's own words."""
    facts = rights.facts
    put, bare = rights.call("PutObject", acl=ACL), rights.call("PutObject")
    yield from _needed("list", Cause.LIST_DENIED, rights.listing(), facts, "list the bucket")
    refused = Cause.ACL_REFUSED if bare.allowed else Cause.PUT_DENIED
    yield from _needed("put", refused, put, facts, f"put objects with the ACL {ACL}")
    if put.allowed and rights.on_role:
        if bare.allowed:
            yield finding(Cause.PUT_WITHOUT_ACL_ALLOWED, "put_without_acl", facts)
        elif bare.outcome is not Outcome.CANNOT_TELL:
            yield passed("put_without_acl", "the role refuses an object without the ACL, as it should")
    parts = rights.call("UploadPart")
    if put.allowed and not parts.allowed:
        told = f"{parts.reason}; AWS may let parts in all the same, which check-access tries"
        yield finding(Cause.MULTIPART_DENIED, "multipart", facts, detail=told)
    elif put.allowed:
        yield passed("multipart", "the role may send objects in parts")
    for probe, operation, cause, words in (
        ("abort", "AbortMultipartUpload", Cause.ABORT_DENIED, "abort its uploads"),
        ("list_parts", "ListParts", Cause.LIST_PARTS_DENIED, "list the parts of its uploads"),
        ("head", "HeadObject", Cause.HEAD_DENIED, "read objects and their checksums"),
        ("get_acl", "GetObjectAcl", Cause.GET_ACL_DENIED, "read the ACL of objects"),
        ("delete", "DeleteObject", Cause.DELETE_DENIED, "delete what we put"),
    ):
        yield from _needed(probe, cause, rights.call(operation), facts, words)


def judge_key(rights: Rights, key_arn: str) -> Iterator[Finding | Doubt]:
    """Whether the role may use the key through S3."""
    decisions = [rights.key(action, key_arn) for action in ("kms:GenerateDataKey", "kms:Decrypt")]
    yield from _needed(
        "encryption", Cause.KMS_DENIED, _weakest(decisions), rights.facts, "use the KMS key through S3"
    )


def kms_explicitly_denied(rights: Rights) -> Decision | None:
    """The decision that denies any KMS key to the role, where it has one: the guide's third statement."""
    facts = rights.facts
    key = f"arn:{facts.partition}:kms:{facts.region or 'us-east-1'}:{facts.account}:key/any"
    decision = evaluate(rights.on_role, rights.known(Request(rights.session, "kms:GenerateDataKey", key)))
    return decision if decision.outcome is Outcome.EXPLICIT_DENY else None


def _needed(
    probe: str, cause: Cause, decision: Decision, facts: Facts, words: str
) -> Iterator[Finding | Doubt]:
    if decision.allowed:
        yield passed(probe, f"the role may {words}")
    elif decision.outcome is Outcome.CANNOT_TELL:
        yield Doubt(probe, decision.reason)
    else:
        yield finding(cause, probe, facts, detail=decision.reason)


def _misspelt(policies: Sequence[Policy]) -> dict[str, tuple[str, ...]]:
    """Condition keys that do not exist but resemble one: no request has them."""
    return {key: () for policy in policies for key in _keys(policy) if meant_key(key) is not None}


def _keys(policy: Policy) -> Iterator[str]:
    for keys in _conditions(policy):
        yield from (str(key) for key in keys)


def _conditions(policy: Policy) -> Iterator[Mapping[str, Any]]:
    """What each operator of each Condition is given: keys with their values."""
    found = policy.get("Statement")
    for statement in found if isinstance(found, list) else [found]:
        condition = statement.get("Condition") if isinstance(statement, Mapping) else None
        for keys in condition.values() if isinstance(condition, Mapping) else ():
            if isinstance(keys, Mapping):
                yield keys

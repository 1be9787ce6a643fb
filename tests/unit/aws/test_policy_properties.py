"""What holds for any policies: an explicit deny stays, an allow only adds, order does not count."""

from hypothesis import given
from hypothesis import strategies as st

from xmode_transfer.aws.policy import evaluate
from xmode_transfer.aws.policy.evaluate import Outcome, Request, allowed

ALLOWED, DENIED = {Outcome.ALLOW}, {Outcome.EXPLICIT_DENY, Outcome.IMPLICIT_DENY}

actions = st.sampled_from(
    ["s3:GetObject", "s3:PutObject", "s3:*", "S3:get*", "*", "kms:Decrypt", "GetObject"]
)
resources = st.sampled_from(
    [
        "*",
        "arn:aws:s3:::b",
        "arn:aws:s3:::b/*",
        "arn:aws:s3:::b/x/*",
        "arn:aws:s3:::b/${aws:username}",
        "arn:aws:s3:*",
        "nonsense",
    ]
)
one_or_more = st.one_of(actions, st.lists(actions, min_size=1, max_size=3))
values = st.sampled_from(["a", "b", "*", "${aws:userid}"])
operators = st.sampled_from(
    [
        "StringEquals",
        "StringNotEquals",
        "StringLike",
        "StringNotLikeIfExists",
        "StringEqualsIfExists",
        "ForAllValues:StringEquals",
        "ForAnyValue:StringNotLike",
        "IpAddress",
    ]
)
keys = st.sampled_from(["s3:x-amz-acl", "s3:prefix", "aws:SourceIp"])
conditions = st.dictionaries(operators, st.dictionaries(keys, values, min_size=1, max_size=2), max_size=2)


@st.composite
def statements(draw, effects=("Allow", "Deny")):
    statement = {
        "Effect": draw(st.sampled_from(effects)),
        draw(st.sampled_from(["Action", "NotAction"])): draw(one_or_more),
        draw(st.sampled_from(["Resource", "NotResource"])): draw(resources),
    }
    condition = draw(st.none() | conditions)
    return statement if condition is None else statement | {"Condition": condition}


requests = st.builds(
    Request,
    principal=st.just("arn:aws:iam::366810793500:user/xmode-data-transfer"),
    action=st.sampled_from(["s3:GetObject", "s3:PutObject", "kms:Decrypt"]),
    resource=st.sampled_from(["arn:aws:s3:::b", "arn:aws:s3:::b/x/k", "arn:aws:s3:::c/k"]),
    context=st.dictionaries(keys, st.sampled_from(["a", "b", ("a", "b"), ()]), max_size=3),
)
lists = st.lists(statements(), max_size=5)


def policy(some):
    return {"Version": "2012-10-17", "Statement": list(some)}


@given(lists, statements(effects=["Deny"]), requests)
def test_another_deny_never_turns_a_deny_into_an_allow(before, added, request):
    first, then = (evaluate([policy(some)], request).outcome for some in (before, [*before, added]))
    if first is not Outcome.ALLOW:
        assert then is not Outcome.ALLOW
    if first in DENIED:
        assert then in DENIED
    if first is Outcome.EXPLICIT_DENY:
        assert then is Outcome.EXPLICIT_DENY


@given(lists, statements(effects=["Allow"]), requests)
def test_another_allow_never_turns_an_allow_into_a_deny(before, added, request):
    first, then = (evaluate([policy(some)], request).outcome for some in (before, [*before, added]))
    if first is Outcome.ALLOW:
        assert then is Outcome.ALLOW
    if first in (Outcome.EXPLICIT_DENY, Outcome.CANNOT_TELL):
        assert then in (first, Outcome.ALLOW) if first is Outcome.CANNOT_TELL else then is first


@given(st.data(), lists, requests)
def test_order_does_not_count(data, some, request):
    mixed = data.draw(st.permutations(some))
    assert evaluate([policy(some)], request).outcome is evaluate([policy(mixed)], request).outcome


@given(st.lists(lists, max_size=3), requests)
def test_one_policy_or_several_say_the_same(parts, request):
    together = policy(statement for part in parts for statement in part)
    assert (
        evaluate([policy(part) for part in parts], request).outcome is evaluate([together], request).outcome
    )


@given(lists, lists, requests)
def test_a_session_policy_never_enlarges(role, session, request):
    alone = evaluate([policy(role)], request).outcome
    both = allowed([policy(role)], policy(session), request).outcome
    if alone in DENIED:
        assert both in DENIED
    if both is Outcome.ALLOW:
        assert alone is Outcome.ALLOW
        assert evaluate([policy(session)], request).outcome is Outcome.ALLOW


@given(lists, requests)
def test_every_decision_has_a_reason_and_an_allow_its_statement(some, request):
    decision = evaluate([policy(some)], request)
    assert request.action in decision.reason
    if decision.outcome in (Outcome.ALLOW, Outcome.EXPLICIT_DENY):
        effect = {Outcome.ALLOW: "Allow", Outcome.EXPLICIT_DENY: "Deny"}[decision.outcome]
        assert some[decision.statement]["Effect"] == effect


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=5),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(
                    [
                        "Version",
                        "Statement",
                        "Effect",
                        "Action",
                        "Resource",
                        "Condition",
                        "Sid",
                        "StringEquals",
                    ]
                ),
                inner,
                max_size=4,
            )
        ),
        max_leaves=12,
    ),
    requests,
)
def test_nonsense_is_never_an_allow(document, request):
    assert evaluate([document], request).outcome is not Outcome.ALLOW

import pytest

from xmode_transfer.aws.policy import evaluate
from xmode_transfer.aws.policy.documents import VENDOR_PRINCIPAL, guide_trust_policy
from xmode_transfer.aws.policy.evaluate import Outcome, PolicyKind, Request, allowed, assume_role

ALLOW, DENY = Outcome.ALLOW, Outcome.IMPLICIT_DENY
EXPLICIT, UNKNOWN = Outcome.EXPLICIT_DENY, Outcome.CANNOT_TELL
OBJECT = "arn:aws:s3:::b/k"
GET = Request(VENDOR_PRINCIPAL, "s3:GetObject", OBJECT)
ROLE = "arn:aws:iam::111122223333:role/XMode"
ACCOUNT = "366810793500"


def policy(*statements, version="2012-10-17"):
    return {"Version": version, "Statement": list(statements)}


def allow(**elements):
    return {"Effect": "Allow", "Action": "s3:*", "Resource": "*"} | elements


def deny(**elements):
    return {"Effect": "Deny", "Action": "s3:*", "Resource": "*"} | elements


def without(statement, *names):
    return {name: value for name, value in statement.items() if name not in names}


# --- Which statement applies ---------------------------------------------------------------------------

STATEMENTS = [
    (allow(), ALLOW),
    (allow(Action="s3:GetObject"), ALLOW),
    (allow(Action="S3:getobject"), ALLOW),
    (allow(Action="s3:Get*"), ALLOW),
    (allow(Action="s3:G?tObject"), ALLOW),
    (allow(Action="*"), ALLOW),
    (allow(Action="*:*"), ALLOW),
    (allow(Action=["s3:PutObject", "s3:GetObject"]), ALLOW),
    (allow(Action="s3:GetObjec"), DENY),
    (allow(Action="s3:GetObjectAcl"), DENY),
    (allow(Action="sts:*"), DENY),
    (allow(Action="GetObject"), UNKNOWN),
    (allow(Action=[]), UNKNOWN),
    (allow(Action=None), UNKNOWN),
    (without(allow(), "Action"), UNKNOWN),
    (allow(NotAction="s3:PutObject"), UNKNOWN),
    (without(allow(NotAction="s3:PutObject"), "Action"), ALLOW),
    (without(allow(NotAction=["s3:PutObject", "S3:GET*"]), "Action"), DENY),
    (allow(Resource=OBJECT), ALLOW),
    (allow(Resource="arn:aws:s3:::b/*"), ALLOW),
    (allow(Resource="arn:aws:s3:::b*"), ALLOW),
    (allow(Resource="arn:aws:s3:::?/k"), ALLOW),
    (allow(Resource="arn:aws:s3:::B/k"), DENY),
    (allow(Resource="arn:aws:s3:::b"), DENY),
    (allow(Resource="arn:aws:s3:::b/k/"), DENY),
    (allow(Resource=["arn:aws:s3:::c", "arn:aws:s3:::*"]), ALLOW),
    (allow(Resource="arn:aws:s3:*"), UNKNOWN),
    (allow(Resource="arn:aws:*:b/k"), UNKNOWN),
    (allow(Resource="arn:aws:ec2:*"), DENY),
    (allow(Resource="b/k"), UNKNOWN),
    (allow(Resource="arn:aws:s3:::b/${aws:username}"), UNKNOWN),
    (allow(Resource="arn:aws:s3:::home/${aws:username}"), DENY),
    (allow(Resource=["arn:aws:s3:::c", "arn:aws:s3:::b/${aws:username}"]), UNKNOWN),
    (allow(Resource=["arn:aws:s3:::b/${aws:username}", "arn:aws:s3:::b/*"]), ALLOW),
    (allow(Resource="arn:aws:s3:::b/${*}"), DENY),
    (without(allow(), "Resource"), UNKNOWN),
    (without(allow(NotResource="arn:aws:s3:::c/*"), "Resource"), ALLOW),
    (without(allow(NotResource=["arn:aws:s3:::b/*"]), "Resource"), DENY),
    (without(allow(NotResource="arn:aws:s3:::b/${aws:username}"), "Resource"), UNKNOWN),
    (allow(Principal="*"), UNKNOWN),
    (allow(Effect="allow"), UNKNOWN),
    (without(allow(), "Effect"), UNKNOWN),
    (without(allow(Action="sts:*"), "Effect"), DENY),
    (allow(Sid="A", Comment="hello"), UNKNOWN),
    (allow(Action="sts:*", Comment="hello"), DENY),
    ("nothing", UNKNOWN),
]


@pytest.mark.parametrize(("statement", "expected"), STATEMENTS, ids=str)
def test_an_allow_statement(statement, expected):
    decision = evaluate([policy(statement)], GET)
    assert decision.outcome is expected, decision.reason


@pytest.mark.parametrize(("statement", "expected"), STATEMENTS, ids=str)
def test_the_same_statement_as_a_deny_beside_an_allow(statement, expected):
    """What allowed now denies, what did not apply leaves the allow, and what cannot be told spoils it."""
    if isinstance(statement, dict) and statement.get("Effect") == "Allow":
        statement = statement | {"Effect": "Deny"}
    after = {ALLOW: EXPLICIT, DENY: ALLOW, UNKNOWN: UNKNOWN}[expected]
    assert evaluate([policy(allow(), statement)], GET).outcome is after


@pytest.mark.parametrize(
    "document",
    [
        [],
        {},
        {"Version": "2012-10-17"},
        {"Version": "2012-10-18", "Statement": [allow()]},
        {"Version": 2012, "Statement": [allow()]},
        {"Version": ["2012-10-17"], "Statement": [allow()]},
        {"Version": "2012-10-17", "Statement": [allow()], "Statements": []},
    ],
    ids=str,
)
def test_a_document_that_is_not_understood_could_say_anything(document):
    assert evaluate([document], GET).outcome is UNKNOWN
    assert evaluate([policy(allow()), document], GET).outcome is UNKNOWN
    assert evaluate([policy(deny()), document], GET).outcome is EXPLICIT


def test_one_statement_needs_no_list():
    assert evaluate([{"Version": "2012-10-17", "Id": "one", "Statement": allow()}], GET).allowed


def test_nothing_allows_where_there_is_no_policy():
    assert evaluate([], GET).outcome is DENY
    assert evaluate([policy()], GET).outcome is DENY


# --- Which statement decides ---------------------------------------------------------------------------

DOUBT = {"Condition": {"IpAddress": {"aws:SourceIp": "10.0.0.0/8"}}}


@pytest.mark.parametrize(
    ("statements", "expected"),
    [
        ([allow(), deny()], EXPLICIT),
        ([deny(), allow()], EXPLICIT),
        ([allow(**DOUBT), deny()], EXPLICIT),
        ([allow(), deny(**DOUBT)], UNKNOWN),
        ([allow(), allow(**DOUBT)], ALLOW),
        ([allow(**DOUBT)], UNKNOWN),
        ([deny(**DOUBT)], DENY),
        ([allow(**DOUBT), deny(**DOUBT)], UNKNOWN),
        ([deny(**DOUBT), deny()], EXPLICIT),
        ([allow(), deny(Action="s3:Put*", **DOUBT)], ALLOW),
    ],
)
def test_doubt_counts_only_where_it_could_change_the_answer(statements, expected):
    assert evaluate([policy(*statements)], GET).outcome is expected
    assert evaluate([policy(statement) for statement in statements], GET).outcome is expected


def test_the_decision_names_its_statement():
    first = policy(allow(Action="sts:*"), allow(Sid="Read", Action="s3:Get*"))
    second = policy(deny(Sid="NeverDelete", Action="s3:DeleteObject"))
    read = evaluate([second, first], GET)
    assert (read.policy, read.statement, read.sid) == (1, 1, "Read")
    assert read.reason == "statement 2 (Read) of policy 2 allows s3:GetObject on arn:aws:s3:::b/k"
    delete = evaluate([second, first], Request("", "s3:DeleteObject", OBJECT))
    assert (delete.policy, delete.statement, delete.sid) == (0, 0, "NeverDelete")
    assert delete.reason == "statement 1 (NeverDelete) of policy 1 denies s3:DeleteObject on arn:aws:s3:::b/k"
    unsure = evaluate([policy(allow(**DOUBT))], GET)
    assert (unsure.statement, unsure.sid) == (0, None)
    assert "IpAddress aws:SourceIp: this operator is not understood" in unsure.reason


def test_of_two_doubts_the_deny_is_named():
    decision = evaluate([policy(allow(**DOUBT), deny(**DOUBT))], GET)
    assert (decision.outcome, decision.statement) == (UNKNOWN, 1)


# --- Sessions ------------------------------------------------------------------------------------------

READ, WRITE = policy(allow(Action="s3:Get*")), policy(allow(Action="s3:Put*"))
PERHAPS = policy(allow(**DOUBT))


@pytest.mark.parametrize(
    ("role", "session", "expected", "reason"),
    [
        ([READ], None, ALLOW, "statement 1 allows"),
        ([READ], READ, ALLOW, "statement 1 allows"),
        ([READ], WRITE, DENY, "in the session policy, no statement allows"),
        ([WRITE], READ, DENY, "in the role's policies, no statement allows"),
        ([WRITE], WRITE, DENY, "in the role's policies, no statement allows"),
        ([READ], policy(allow(), deny()), EXPLICIT, "in the session policy, statement 2 denies"),
        ([policy(deny())], WRITE, EXPLICIT, "in the role's policies, statement 1 denies"),
        ([PERHAPS], READ, UNKNOWN, "in the role's policies, whether statement 1"),
        ([PERHAPS], WRITE, DENY, "in the session policy, no statement allows"),
        ([READ], PERHAPS, UNKNOWN, "in the session policy, whether statement 1"),
    ],
)
def test_a_session_may_do_what_both_allow(role, session, expected, reason):
    decision = allowed(role, session, GET)
    assert decision.outcome is expected
    assert decision.reason.startswith(reason)


# --- Trust ---------------------------------------------------------------------------------------------


def trust(principal, **elements):
    return policy({"Effect": "Allow", "Principal": principal, "Action": "sts:AssumeRole"} | elements)


ID = {"Condition": {"StringEquals": {"sts:ExternalId": "AcmeCorp"}}}


@pytest.mark.parametrize(
    ("external_id", "expected"),
    [
        ("AcmeCorp", ALLOW),
        ("acmecorp", DENY),
        ("AcmeCorp ", DENY),
        ("Globex", DENY),
        ("", DENY),
        (None, DENY),
    ],
)
def test_the_guides_trust_policy(external_id, expected):
    document = guide_trust_policy("AcmeCorp")
    decision = assume_role(document, principal=VENDOR_PRINCIPAL, role_arn=ROLE, external_id=external_id)
    assert decision.outcome is expected


OTHER_USER = f"arn:aws:iam::{ACCOUNT}:user/somebody"
ROOT = f"arn:aws:iam::{ACCOUNT}:root"
VENDOR_ROLE = f"arn:aws:iam::{ACCOUNT}:role/service/broker"
VENDOR_SESSION = f"arn:aws:sts::{ACCOUNT}:assumed-role/broker/one"


@pytest.mark.parametrize(
    ("principal", "caller", "expected"),
    [
        ({"AWS": VENDOR_PRINCIPAL}, VENDOR_PRINCIPAL, ALLOW),
        ({"AWS": VENDOR_PRINCIPAL}, OTHER_USER, DENY),
        ({"AWS": VENDOR_PRINCIPAL.upper()}, VENDOR_PRINCIPAL, UNKNOWN),
        ({"AWS": VENDOR_PRINCIPAL.replace("xmode", "XMode")}, VENDOR_PRINCIPAL, DENY),
        ({"AWS": [OTHER_USER, VENDOR_PRINCIPAL]}, VENDOR_PRINCIPAL, ALLOW),
        ({"AWS": ROOT}, VENDOR_PRINCIPAL, ALLOW),
        ({"AWS": ACCOUNT}, VENDOR_PRINCIPAL, ALLOW),
        ({"AWS": int(ACCOUNT)}, VENDOR_PRINCIPAL, ALLOW),
        ({"AWS": "111122223333"}, VENDOR_PRINCIPAL, DENY),
        ({"AWS": ROOT.replace("arn:aws:", "arn:aws-cn:")}, VENDOR_PRINCIPAL, DENY),
        ("*", OTHER_USER, ALLOW),
        ({"AWS": "*"}, OTHER_USER, ALLOW),
        ({"AWS": f"arn:aws:iam::{ACCOUNT}:user/*"}, VENDOR_PRINCIPAL, UNKNOWN),
        ({"AWS": "AIDACKCEVSQ6C2EXAMPLE"}, VENDOR_PRINCIPAL, UNKNOWN),
        ({"Service": "ec2.amazonaws.com"}, VENDOR_PRINCIPAL, DENY),
        ({"Service": "ec2.amazonaws.com", "AWS": ROOT}, VENDOR_PRINCIPAL, ALLOW),
        ({"Federated": "cognito-identity.amazonaws.com"}, VENDOR_PRINCIPAL, DENY),
        ({"CanonicalUser": "abc"}, VENDOR_PRINCIPAL, UNKNOWN),
        ({"AWS": {}}, VENDOR_PRINCIPAL, UNKNOWN),
        (VENDOR_PRINCIPAL, VENDOR_PRINCIPAL, UNKNOWN),
        ({}, VENDOR_PRINCIPAL, DENY),
        ({"AWS": VENDOR_ROLE}, VENDOR_SESSION, ALLOW),
        ({"AWS": VENDOR_ROLE}, VENDOR_SESSION.replace("broker", "broken"), DENY),
        ({"AWS": VENDOR_ROLE}, VENDOR_SESSION.replace(ACCOUNT, "111122223333"), DENY),
        ({"AWS": VENDOR_SESSION}, VENDOR_SESSION, ALLOW),
        ({"AWS": ROOT}, VENDOR_SESSION, ALLOW),
    ],
    ids=str,
)
def test_whom_a_trust_policy_names(principal, caller, expected):
    decision = assume_role(trust(principal), principal=caller, role_arn=ROLE)
    assert decision.outcome is expected, decision.reason


@pytest.mark.parametrize(
    ("elements", "external_id", "expected"),
    [
        ({}, None, ALLOW),  # a role without the condition takes any ID, and none
        ({}, "Anything", ALLOW),
        (ID, "AcmeCorp", ALLOW),
        ({"Condition": {"StringLike": {"sts:ExternalId": "*"}}}, "Anything", ALLOW),
        ({"Condition": {"StringLike": {"sts:ExternalId": "*"}}}, None, DENY),
        ({"Condition": {"StringEqualsIfExists": {"sts:ExternalId": "AcmeCorp"}}}, None, ALLOW),
        ({"Condition": {"StringEqualsIgnoreCase": {"sts:ExternalId": "AcmeCorp"}}}, "acmecorp", ALLOW),
        ({"Condition": {"StringEquals": {"sts:ExternalId": "{AcmeCorp}"}}}, "AcmeCorp", DENY),
        ({"Condition": {"ArnEquals": {"aws:PrincipalArn": VENDOR_PRINCIPAL}}}, None, ALLOW),
        ({"Condition": {"StringEquals": {"aws:PrincipalAccount": ACCOUNT}}}, None, ALLOW),
        ({"Condition": {"Bool": {"aws:MultiFactorAuthPresent": "true"}}}, None, UNKNOWN),
        ({"Condition": {"StringEquals": {"aws:PrincipalOrgID": "o-1"}}}, None, UNKNOWN),
        ({"Action": "sts:TagSession"}, None, DENY),
        ({"Action": "sts:*"}, None, ALLOW),
        ({"Resource": "*"}, None, UNKNOWN),
    ],
    ids=str,
)
def test_on_which_conditions(elements, external_id, expected):
    document = trust({"AWS": VENDOR_PRINCIPAL}, **elements)
    decision = assume_role(document, principal=VENDOR_PRINCIPAL, role_arn=ROLE, external_id=external_id)
    assert decision.outcome is expected, decision.reason


def test_a_trust_policy_may_deny():
    document = trust(
        {"AWS": ROOT},
    )
    document["Statement"].append(
        {
            "Effect": "Deny",
            "Principal": "*",
            "Action": "sts:AssumeRole",
            "Condition": {"Null": {"sts:ExternalId": "true"}},
        }
    )
    without_id = assume_role(document, principal=VENDOR_PRINCIPAL, role_arn=ROLE)
    assert (without_id.outcome, without_id.statement) == (EXPLICIT, 1)
    assert assume_role(document, principal=VENDOR_PRINCIPAL, role_arn=ROLE, external_id="x1").allowed


def test_what_is_known_of_the_caller_can_be_told():
    document = trust("*", Condition={"Bool": {"aws:MultiFactorAuthPresent": "true"}})
    known = {"aws:MultiFactorAuthPresent": "true"}
    assert assume_role(document, principal=VENDOR_PRINCIPAL, role_arn=ROLE, context=known).allowed


# --- Policies on buckets -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("elements", "expected"),
    [
        ({"Principal": {"AWS": VENDOR_PRINCIPAL}}, EXPLICIT),
        ({"Principal": {"AWS": OTHER_USER}}, DENY),
        ({"NotPrincipal": {"AWS": [OTHER_USER, "111122223333"]}}, EXPLICIT),
        ({"NotPrincipal": {"AWS": [VENDOR_PRINCIPAL, ROOT]}}, DENY),
        ({"NotPrincipal": {"AWS": [VENDOR_PRINCIPAL, ACCOUNT]}}, DENY),
        ({"NotPrincipal": {"AWS": VENDOR_PRINCIPAL}}, UNKNOWN),
        ({"NotPrincipal": {"AWS": ROOT}}, UNKNOWN),
        ({"NotPrincipal": {"AWS": "*"}}, DENY),
        ({"NotPrincipal": {"AWS": ["AIDACKCEVSQ6C2EXAMPLE", ROOT]}}, UNKNOWN),
        ({"NotPrincipal": "*"}, UNKNOWN),
        ({"NotPrincipal": {"Service": "s3.amazonaws.com"}}, UNKNOWN),
        ({"Principal": "*", "NotPrincipal": {"AWS": ROOT}}, UNKNOWN),
        ({}, UNKNOWN),
    ],
    ids=str,
)
def test_principals_of_a_bucket_policy(elements, expected):
    statements = [deny(**elements), allow(Principal={"AWS": "111122223333"})]
    decision = evaluate([policy(*statements)], GET, kind=PolicyKind.RESOURCE)
    assert decision.outcome is (DENY if expected is UNKNOWN else expected)
    # with an allow beside it, doubt and absence differ
    statements[1] = allow(Principal="*")
    after = {DENY: ALLOW}.get(expected, expected)
    assert evaluate([policy(*statements)], GET, kind=PolicyKind.RESOURCE).outcome is after


def test_a_trust_policy_takes_no_not_principal():
    document = policy(
        {
            "Effect": "Allow",
            "NotPrincipal": {"AWS": ["111122223333", OTHER_USER]},
            "Action": "sts:AssumeRole",
        }
    )
    assert assume_role(document, principal=VENDOR_PRINCIPAL, role_arn=ROLE).outcome is UNKNOWN

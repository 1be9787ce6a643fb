"""IAM's condition operators, one row a rule of the IAM User Guide ("Condition operators")."""

import pytest

from xmode_transfer.aws.policy import evaluate
from xmode_transfer.aws.policy.evaluate import Outcome, Request

YES, NO, UNKNOWN = Outcome.ALLOW, Outcome.IMPLICIT_DENY, Outcome.CANNOT_TELL
ACL = "s3:x-amz-acl"
ARN = "arn:aws:iam::111122223333:user/a"

TABLE = [
    # the key is there
    ({"StringEquals": {ACL: "a"}}, {ACL: "a"}, YES),
    ({"StringEquals": {ACL: "a"}}, {ACL: "A"}, NO),
    ({"StringEquals": {ACL: ["b", "a"]}}, {ACL: "a"}, YES),
    ({"StringEquals": {ACL: "a*"}}, {ACL: "ab"}, NO),
    ({"StringEquals": {ACL: "a*"}}, {ACL: "a*"}, YES),
    ({"StringEquals": {"S3:X-AMZ-ACL": "a"}}, {ACL: "a"}, YES),
    ({"StringNotEquals": {ACL: "a"}}, {ACL: "a"}, NO),
    ({"StringNotEquals": {ACL: "a"}}, {ACL: "b"}, YES),
    ({"StringNotEquals": {ACL: ["a", "b"]}}, {ACL: "b"}, NO),
    ({"StringNotEquals": {ACL: ["a", "b"]}}, {ACL: "c"}, YES),
    ({"StringEqualsIgnoreCase": {ACL: "aB"}}, {ACL: "Ab"}, YES),
    ({"StringEqualsIgnoreCase": {ACL: "ab"}}, {ACL: "ac"}, NO),
    ({"StringNotEqualsIgnoreCase": {ACL: "aB"}}, {ACL: "Ab"}, NO),
    ({"StringNotEqualsIgnoreCase": {ACL: "ab"}}, {ACL: "ac"}, YES),
    ({"StringLike": {ACL: "a*z"}}, {ACL: "a/b\nz"}, YES),
    ({"StringLike": {ACL: "a?"}}, {ACL: "ab"}, YES),
    ({"StringLike": {ACL: "a?"}}, {ACL: "a"}, NO),
    ({"StringLike": {ACL: "A*"}}, {ACL: "ab"}, NO),
    ({"StringLike": {ACL: "a.c"}}, {ACL: "abc"}, NO),
    ({"StringNotLike": {ACL: "a*"}}, {ACL: "ab"}, NO),
    ({"StringNotLike": {ACL: "a*"}}, {ACL: "b"}, YES),
    ({"Bool": {"aws:SecureTransport": "true"}}, {"aws:SecureTransport": "true"}, YES),
    ({"Bool": {"aws:SecureTransport": True}}, {"aws:SecureTransport": "True"}, YES),
    ({"Bool": {"aws:SecureTransport": "false"}}, {"aws:SecureTransport": "true"}, NO),
    ({"Bool": {"aws:SecureTransport": "yes"}}, {"aws:SecureTransport": "true"}, UNKNOWN),
    ({"ArnLike": {"aws:PrincipalArn": "arn:aws:iam::*:user/*"}}, {"aws:PrincipalArn": ARN}, YES),
    ({"ArnEquals": {"aws:PrincipalArn": "arn:aws:iam::*:user/*"}}, {"aws:PrincipalArn": ARN}, YES),
    ({"ArnLike": {"aws:PrincipalArn": "arn:aws:iam::*:role/*"}}, {"aws:PrincipalArn": ARN}, NO),
    ({"ArnLike": {"aws:PrincipalArn": "arn:aws:*:user/a"}}, {"aws:PrincipalArn": ARN}, UNKNOWN),
    ({"ArnLike": {"aws:PrincipalArn": "arn:aws:*::*"}}, {"aws:PrincipalArn": ARN}, UNKNOWN),
    ({"ArnNotLike": {"aws:PrincipalArn": "arn:aws:iam::*:user/*"}}, {"aws:PrincipalArn": ARN}, NO),
    ({"ArnNotEquals": {"aws:PrincipalArn": "arn:aws:iam::*:role/*"}}, {"aws:PrincipalArn": ARN}, YES),
    ({"ArnLike": {"aws:PrincipalArn": "user/a"}}, {"aws:PrincipalArn": ARN}, UNKNOWN),
    # the key is absent
    ({"StringEquals": {ACL: "a"}}, {}, NO),
    ({"StringLike": {ACL: "*"}}, {}, NO),
    ({"StringNotEquals": {ACL: "a"}}, {}, YES),
    ({"StringNotLike": {ACL: "*"}}, {}, YES),
    ({"StringNotEqualsIgnoreCase": {ACL: "a"}}, {}, YES),
    ({"ArnNotLike": {"aws:PrincipalArn": "arn:aws:iam::1:user/a"}}, {"aws:PrincipalArn": ()}, YES),
    ({"StringEqualsIfExists": {ACL: "a"}}, {}, YES),
    ({"StringLikeIfExists": {ACL: "a"}}, {}, YES),
    ({"StringNotEqualsIfExists": {ACL: "a"}}, {}, YES),
    ({"StringEqualsIfExists": {ACL: "a"}}, {ACL: "b"}, NO),
    ({"StringNotEqualsIfExists": {ACL: "a"}}, {ACL: "a"}, NO),
    ({"StringNotEqualsIfExists": {ACL: "a"}}, {ACL: "b"}, YES),
    ({"BoolIfExists": {"aws:SecureTransport": "true"}}, {"aws:SecureTransport": ()}, YES),
    ({"Null": {ACL: "true"}}, {}, YES),
    ({"Null": {ACL: "true"}}, {ACL: "a"}, NO),
    ({"Null": {ACL: "false"}}, {}, NO),
    ({"Null": {ACL: False}}, {ACL: "a"}, YES),
    ({"Null": {ACL: "perhaps"}}, {}, UNKNOWN),
    ({"NullIfExists": {ACL: "true"}}, {}, UNKNOWN),
    # a key that AWS fills in, and nobody told its value
    ({"StringEquals": {"aws:SourceIp": "10.0.0.1"}}, {}, UNKNOWN),
    ({"StringNotEquals": {"aws:PrincipalOrgID": "o-1"}}, {}, UNKNOWN),
    ({"StringEqualsIfExists": {"aws:SourceVpce": "vpce-1"}}, {}, UNKNOWN),
    ({"Null": {"aws:TokenIssueTime": "true"}}, {}, UNKNOWN),
    ({"Bool": {"aws:SecureTransport": "true"}}, {}, UNKNOWN),
    # several values
    ({"ForAllValues:StringEquals": {"aws:TagKeys": ["a", "b"]}}, {"aws:TagKeys": ("a", "b")}, YES),
    ({"ForAllValues:StringEquals": {"aws:TagKeys": ["a", "b"]}}, {"aws:TagKeys": ("a", "c")}, NO),
    ({"ForAllValues:StringEquals": {"aws:TagKeys": ["a", "b"]}}, {}, YES),
    ({"ForAllValues:StringNotEquals": {"aws:TagKeys": "a"}}, {"aws:TagKeys": ("a", "c")}, NO),
    ({"ForAllValues:StringNotEquals": {"aws:TagKeys": "a"}}, {"aws:TagKeys": ("b", "c")}, YES),
    ({"ForAnyValue:StringEquals": {"aws:TagKeys": ["a", "b"]}}, {"aws:TagKeys": ("a", "c")}, YES),
    ({"ForAnyValue:StringEquals": {"aws:TagKeys": ["a", "b"]}}, {"aws:TagKeys": ("c", "d")}, NO),
    ({"ForAnyValue:StringEquals": {"aws:TagKeys": ["a", "b"]}}, {}, NO),
    ({"ForAnyValue:StringNotEquals": {"aws:TagKeys": "a"}}, {"aws:TagKeys": ("a", "c")}, YES),
    ({"ForAnyValue:StringNotEquals": {"aws:TagKeys": "a"}}, {"aws:TagKeys": ("a",)}, NO),
    ({"ForAnyValue:StringLike": {"aws:TagKeys": "a*"}}, {"aws:TagKeys": "ab"}, YES),
    ({"ForAllValues:StringLikeIfExists": {"aws:TagKeys": "a*"}}, {}, YES),
    ({"ForAnyValue:StringEqualsIfExists": {"aws:TagKeys": "a"}}, {}, UNKNOWN),
    ({"StringEquals": {"aws:TagKeys": "a"}}, {"aws:TagKeys": ("a", "b")}, UNKNOWN),
    ({"StringEquals": {"aws:TagKeys": "a"}}, {"aws:TagKeys": ("a",)}, YES),
    # together
    ({"StringEquals": {ACL: "a"}, "StringLike": {"s3:prefix": "x*"}}, {ACL: "a", "s3:prefix": "x/"}, YES),
    ({"StringEquals": {ACL: "a"}, "StringLike": {"s3:prefix": "x*"}}, {ACL: "a", "s3:prefix": "y"}, NO),
    ({"StringEquals": {ACL: "a", "s3:prefix": "x"}}, {ACL: "a"}, NO),
    ({"StringEquals": {ACL: "a"}, "IpAddress": {"aws:SourceIp": "10.0.0.0/8"}}, {ACL: "b"}, NO),
    ({"StringEquals": {ACL: "a"}, "IpAddress": {"aws:SourceIp": "10.0.0.0/8"}}, {ACL: "a"}, UNKNOWN),
    ({}, {}, YES),
    # what is not understood is not guessed
    ({"NumericLessThan": {"s3:max-keys": 10}}, {"s3:max-keys": "5"}, UNKNOWN),
    ({"DateGreaterThan": {"aws:CurrentTime": "2026-01-01T00:00:00Z"}}, {}, UNKNOWN),
    ({"IpAddress": {"aws:SourceIp": "10.0.0.0/8"}}, {"aws:SourceIp": "10.0.0.1"}, UNKNOWN),
    ({"stringequals": {ACL: "a"}}, {ACL: "a"}, UNKNOWN),
    ({"ForSomeValues:StringEquals": {ACL: "a"}}, {ACL: "a"}, UNKNOWN),
    ({"StringEquals": "a"}, {}, UNKNOWN),
    ("StringEquals", {}, UNKNOWN),
    ({"StringEquals": {ACL: None}}, {}, UNKNOWN),
    ({"StringEquals": {ACL: []}}, {ACL: "a"}, UNKNOWN),
    ({"StringEquals": {ACL: [["a"]]}}, {ACL: "a"}, UNKNOWN),
    ({"StringEquals": {ACL: 7}}, {ACL: "7"}, YES),
    # policy variables
    ({"StringEquals": {ACL: "${aws:username}"}}, {ACL: "a"}, UNKNOWN),
    ({"StringEquals": {ACL: ["${aws:username}", "a"]}}, {ACL: "a"}, YES),
    ({"StringEquals": {ACL: "home/${aws:username}"}}, {ACL: "work/a"}, NO),
    ({"StringNotEquals": {ACL: "home/${aws:username}"}}, {ACL: "work/a"}, YES),
    ({"StringLike": {ACL: "home/${aws:username}/*"}}, {ACL: "home/a/b"}, UNKNOWN),
    ({"StringLike": {ACL: "a${*}"}}, {ACL: "a*"}, YES),
    ({"StringLike": {ACL: "a${*}"}}, {ACL: "ab"}, NO),
    ({"StringLike": {ACL: "a${?}${$}"}}, {ACL: "a?$"}, YES),
    ({"StringEquals": {ACL: "a${aws:username"}}, {ACL: "ab"}, UNKNOWN),
]


@pytest.mark.parametrize(("condition", "context", "expected"), TABLE, ids=str)
def test_operator(condition, context, expected):
    statement = {"Effect": "Allow", "Action": "s3:*", "Resource": "*", "Condition": condition}
    policy = {"Version": "2012-10-17", "Statement": statement}
    decision = evaluate([policy], Request("", "s3:PutObject", "arn:aws:s3:::b/k", context))
    assert decision.outcome is expected, decision.reason


@pytest.mark.parametrize("version", ["2008-10-17", None])
def test_an_old_policy_has_no_variables(version):
    statement = {
        "Effect": "Allow",
        "Action": "s3:*",
        "Resource": "*",
        "Condition": {"StringEquals": {ACL: "${aws:username}"}},
    }
    policy = {"Statement": statement} | ({"Version": version} if version else {})
    for value, outcome in (("${aws:username}", YES), ("a", NO)):
        request = Request("", "s3:PutObject", "arn:aws:s3:::b/k", {ACL: value})
        assert evaluate([policy], request).outcome is outcome

"""The policies that the sandbox's customers attach."""

from dataclasses import replace

import pytest

from xmode_transfer.aws.policy.documents import guide_permission_policy
from xmode_transfer.sandbox.accounts import permission_policy
from xmode_transfer.sandbox.model import CustomerSetup, Keys, Variant

ACME = CustomerSetup(
    name="acme",
    company="Acme Corp",
    account="111122223333",
    external_id="AcmeCorp",
    role_arn="arn:aws:iam::111122223333:role/XMode",
    bucket="acme-data",
    prefix="in/",
    region="us-east-1",
    variant=Variant.GUIDE,
    endpoint="http://127.0.0.1:1",
    root=Keys("111122223333", "secret"),
)


@pytest.mark.parametrize(
    "variant",
    [Variant.GUIDE, Variant.KMS_BUCKET, Variant.VERSIONED, Variant.NO_ROLE, Variant.WRONG_EXTERNAL_ID],
)
def test_variants_that_differ_elsewhere_have_the_guides_permission_policy(variant: Variant) -> None:
    assert permission_policy(replace(ACME, variant=variant)) == guide_permission_policy("acme-data")


def test_no_acl_condition_differs_by_that_alone() -> None:
    guide = guide_permission_policy("acme-data")
    del guide["Statement"][0]["Condition"]
    assert permission_policy(replace(ACME, variant=Variant.NO_ACL_CONDITION)) == guide


def test_prefix_only_names_the_prefix_in_every_grant() -> None:
    document = permission_policy(replace(ACME, variant=Variant.PREFIX_ONLY))
    writing, reading, *rest = document["Statement"]
    assert writing["Resource"] == reading["Resource"] == "arn:aws:s3:::acme-data/in/*"
    assert "s3:ListBucket" not in reading["Action"]
    assert rest[-1]["Condition"] == {"StringLike": {"s3:prefix": "in/*"}}

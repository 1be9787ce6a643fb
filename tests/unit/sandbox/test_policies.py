"""The documents that the sandbox's customers attach."""

import json
from typing import Any

import pytest

from xmode_transfer.aws.policy import documents
from xmode_transfer.sandbox import accounts
from xmode_transfer.sandbox.model import VENDOR_PRINCIPAL_ARN, Variant


def test_the_guides_documents_are_filled_in_and_otherwise_unchanged() -> None:
    trust = accounts.guide_trust_policy("AcmeCorp")
    assert trust["Statement"]["Principal"] == {"AWS": VENDOR_PRINCIPAL_ARN}
    assert trust["Statement"]["Condition"] == {"StringEquals": {"sts:ExternalId": "AcmeCorp"}}
    text = json.dumps([trust, accounts.guide_permission_policy("acme-data")])
    assert "EXTERNAL-ID" not in text
    assert "BUCKET" not in text


def test_the_sandbox_and_the_printed_policies_speak_of_the_same_guide() -> None:
    assert accounts.guide_trust_policy("AcmeCorp") == documents.guide_trust_policy("AcmeCorp")
    assert accounts.guide_permission_policy("acme") == documents.guide_permission_policy("acme")


def test_an_external_id_cannot_break_out_of_its_string() -> None:
    trust = accounts.guide_trust_policy('a"}},"x":{"y')
    assert trust["Statement"]["Condition"]["StringEquals"] == {"sts:ExternalId": 'a"}},"x":{"y'}


@pytest.mark.parametrize(
    "variant",
    [
        Variant.GUIDE,
        Variant.KMS_BUCKET,
        Variant.VERSIONED,
        Variant.NO_ROLE,
        Variant.WRONG_EXTERNAL_ID,
    ],
)
def test_variants_that_differ_elsewhere_have_the_guides_permission_policy(variant: Variant) -> None:
    expected = accounts.guide_permission_policy("acme-data")
    assert accounts.permission_policy(variant, "acme-data", "xmode/") == expected


def differences(variant: Variant) -> dict[str, Any]:
    document = accounts.permission_policy(variant, "acme-data", "in/")
    writing, reading, *rest = document["Statement"]
    return {"writing": writing, "reading": reading, "rest": rest}


def test_no_acl_condition_differs_by_that_alone() -> None:
    guide = accounts.guide_permission_policy("acme-data")
    del guide["Statement"][0]["Condition"]
    assert accounts.permission_policy(Variant.NO_ACL_CONDITION, "acme-data", "in/") == guide


def test_prefix_only_names_the_prefix_in_every_grant() -> None:
    found = differences(Variant.PREFIX_ONLY)
    assert found["writing"]["Resource"] == found["reading"]["Resource"] == "arn:aws:s3:::acme-data/in/*"
    assert "s3:ListBucket" not in found["reading"]["Action"]
    assert found["rest"][-1]["Condition"] == {"StringLike": {"s3:prefix": "in/*"}}

"""A sign-up, and the customer that is made of it."""

from dataclasses import replace
from typing import Any

import pytest

from xmode_transfer.access.sign_up import FROM_COMPANY, SignUp, drafted, guide_external_id, slug_of
from xmode_transfer.config import Customer, CustomerState

SIGN_UP = SignUp("Acme Corp", "111122223333", "acme-data", ("us-daily",))
KEY = "arn:aws:kms:eu-central-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab"
TOKEN = "0123456789abcdef0123456789abcdef"


def made(**changes: Any) -> Customer:
    customer, mistakes = drafted(replace(SIGN_UP, **changes), partition="aws", token=lambda: TOKEN)
    assert mistakes == ()
    assert customer is not None
    return customer


def mistakes_of(partition: str = "aws", **changes: Any) -> list[str]:
    customer, mistakes = drafted(replace(SIGN_UP, **changes), partition=partition, token=lambda: TOKEN)
    assert customer is None
    return list(map(str, mistakes))


# --- The sign-up ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("company", "slug"),
    [
        ("Acme Corp", "acme"),
        ("Acme, Inc.", "acme"),
        ("Globex GmbH & Co. KG", "globex"),
        ("Société Générale S.A.", "societe-generale"),
        ("Müßig & Söhne AG", "mussig-sohne"),
        ("L'Oréal", "loreal"),
        ("3M", "3m"),
        ("AG", "ag"),
        ("Corp Inc", "corp"),
        ("  spaced   out  ", "spaced-out"),
        ("x" * 80, "x" * 40),
        ("日本株式会社", ""),
        ("---", ""),
        ("", ""),
    ],
)
def test_a_short_name_is_made_of_the_companys(company: str, slug: str) -> None:
    assert slug_of(company) == slug


def test_the_guides_external_id_keeps_what_the_guide_keeps() -> None:
    assert guide_external_id("Acme Corp") == "AcmeCorp"
    assert guide_external_id("A+B {x} =,.@:/-_ é!") == "ABx=,.@:/-_"


def test_a_sign_up_becomes_a_pending_customer() -> None:
    customer = made()
    assert customer.name == "acme"
    assert customer.state is CustomerState.PENDING
    assert customer.external_id == f"acme-{TOKEN}"
    assert customer.role_arn == "arn:aws:iam::111122223333:role/XMode"
    assert (customer.destination.bucket, customer.destination.prefix) == ("acme-data", "xmode/")
    assert made(external_id=FROM_COMPANY).external_id == "AcmeCorp"
    assert made(external_id="Their-Own:1").external_id == "Their-Own:1"
    assert made(name="acme-eu").name == "acme-eu"


def test_the_region_follows_from_the_key() -> None:
    assert made(kms_key_arn=KEY).destination.region == "eu-central-1"


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"company": "  "}, "--company: write the company's name"),
        ({"company": "a\nb"}, "--company: write the company's name on one line"),
        ({"company": "x" * 300}, "--company: String should have at most 256 characters"),
        ({"company": "日本"}, "--name: the company name gives no short name"),
        ({"name": "Acme"}, "--name: 'Acme' cannot be a name"),
        ({"account": "11112222333"}, "did you mean 011112222333?"),
        ({"account": "1111-2222-3333"}, "did you mean 111122223333?"),
        ({"account": ""}, "--account: '' is not an AWS account ID"),
        ({"bucket": "Acme-Data"}, "did you mean acme-data?"),
        ({"bucket": "s3://acme-data/in"}, "did you mean bucket: acme-data"),
        ({"bucket": ""}, "--bucket: a bucket's name has 3 to 63 characters"),
        ({"prefix": "xmode"}, "did you mean xmode/?"),
        ({"prefix": "../x/"}, "--prefix: empty, '.' and '..' folders"),
        ({"region": "us-east-1a"}, "did you mean the region us-east-1?"),
        ({"region": "cn-north-1"}, "--region: region cn-north-1 is not in aws"),
        ({"role_name": "path/XMode"}, "--role-name: 'path/XMode' is not a valid role name"),
        ({"kms_key_arn": "1234abcd"}, "--kms-key: '1234abcd' is not the ARN of a KMS key"),
        ({"kms_key_arn": KEY, "region": "us-east-1"}, "only keys of the bucket's own region"),
        ({"feeds": ()}, "--feed: select at least one feed"),
        ({"feeds": ("us-daily", "us-daily")}, "--feed: us-daily is listed twice"),
        ({"external_id": "Acme Corp"}, "did you mean AcmeCorp?"),
        ({"external_id": "x"}, "--external-id: AWS takes external IDs of 2 to 1,224 characters"),
        ({"external_id": "a+b"}, "--external-id: '+' is not allowed"),
        (
            {"company": "é é", "name": "e", "external_id": FROM_COMPANY},
            "--external-id: the company's name has fewer",
        ),
    ],
)
def test_a_mistake_is_told_at_its_option(changes: dict[str, Any], told: str) -> None:
    (mistake,) = mistakes_of(**changes)
    assert told in mistake


def test_all_mistakes_are_told_at_once() -> None:
    told = mistakes_of(company="", account="1", bucket="A", feeds=())
    assert [line.partition(":")[0] for line in told] == ["--company", "--account", "--bucket", "--feed"]

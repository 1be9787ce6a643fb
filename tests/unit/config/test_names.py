"""External IDs, buckets, prefixes, regions and ARNs: what is taken, what is refused and what is suggested."""

import re
import string

import botocore.session
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from xmode_transfer.config.names import (
    EXTERNAL_ID_PATTERN,
    REGION_STEMS,
    check_account,
    check_bucket,
    check_company,
    check_external_id,
    check_kms_key,
    check_prefix,
    check_region,
    parse_iam,
    region_doubt,
    region_partition,
)

ALPHABET = string.ascii_letters + string.digits + "=,.@:/-_"


@given(st.text(st.sampled_from(ALPHABET), min_size=2, max_size=60))
@example("a" * 1224)
@example("--")
@example("null")
def test_no_external_id_in_the_guides_alphabet_is_refused(value: str) -> None:
    assert check_external_id(value) == value
    assert re.fullmatch(EXTERNAL_ID_PATTERN, value)


@given(st.text(max_size=60))
@example("")
@example("A")
@example("a" * 1225)
@example("Acme\n")
@example("Acme+Corp")  # AWS would take it, the guide does not offer it
@example("Acmé")
@example("\u0661\u0662")  # digits, but not ASCII
def test_no_other_external_id_is_accepted(value: str) -> None:
    legal = 2 <= len(value) <= 1224 and all(character in ALPHABET for character in value)
    if legal:
        assert check_external_id(value) == value
    else:
        with pytest.raises(ValueError):
            check_external_id(value)


@pytest.mark.parametrize(
    ("value", "told"),
    [
        ("{replace with input company name}", "the guide's template text was left in"),
        ("Acme Corp", "spaces"),
        ("Acme Corp", r"did you mean AcmeCorp\?"),
        ("Acmé", "'é' is not ASCII"),
        ("Acme&Co", "'&' is not allowed"),
        ("A", "2 to 1,224 characters; this one has 1"),
    ],
)
def test_a_refused_external_id_is_explained(value: str, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        check_external_id(value)


@pytest.mark.parametrize("value", ["abc", "a" * 63, "a.b-c.d", "1.2.3", "acme--data"])
def test_a_bucket_name_is_taken(value: str) -> None:
    assert check_bucket(value) == value


@pytest.mark.parametrize(
    ("value", "told"),
    [
        ("s3://acme-data/landing/xmode/", r"did you mean bucket: acme-data, prefix: landing/xmode/\?"),
        ("S3://acme-data", "not a URI"),
        ("acme-data/xmode", r"did you mean bucket: acme-data, prefix: xmode/\?"),
        ("arn:aws:s3:::acme-data/*", r"did you mean acme-data\?"),
        ("arn:aws:s3:us-east-1:111122223333:accesspoint-x", "not an ARN"),
        ("ab", "3 to 63 characters; this one has 2"),
        ("a" * 64, "this one has 64"),
        ("Acme_Data", r"did you mean acme-data\?"),
        ("s3://Acme_Data/x/", r"did you mean bucket: acme-data, prefix: x/\?"),
        ("arn:aws:s3:::Acme_Data/*", r"did you mean acme-data\?"),
        ("XN--Acme", "capital letters$"),
        ("s3://192.168.5.4/x", "not a URI or a path$"),
        ("acme_data", r"did you mean acme-data\?"),
        ("-acme", "at both ends"),
        ("acme\n", "at both ends"),
        ("acmé-data", "small letters"),
        ("a..b", "two dots"),
        ("192.168.5.4", "IP address"),
        ("xn--acme", "begin with xn--"),
        ("sthree-acme", "begin with sthree-"),
        ("acme-s3alias", "access points"),
        ("acme--ol-s3", "Object Lambda"),
        ("acme--use1-az4--x-s3", "directory buckets"),
        ("acme.mrap", "multi-region"),
        ("acme--table-s3", "table buckets"),
    ],
)
def test_a_refused_bucket_name_is_explained(value: str, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        check_bucket(value)


@pytest.mark.parametrize("value", ["", "a/b/c/", "dt=2026/", "données/", "a b/", "0" * 511 + "/"])
def test_a_prefix_is_taken(value: str) -> None:
    assert check_prefix(value) == value


@pytest.mark.parametrize(
    ("value", "told"),
    [
        ("xmode", r"ends with a slash \(did you mean xmode/\?\)"),
        ("/xmode/", r"leading slash.*did you mean xmode/\?"),
        ("/", r'did you mean ""\?'),
        ("s3://acme/xmode/", "path inside the bucket only"),
        ("a//b/", "empty"),
        ("a/./b/", "'.'"),
        ("../a/", "'..'"),
        ("a/*/", r"'\*' is not allowed"),
        ("a?/", r"'\?' is not allowed"),
        ("${aws:username}/", "is not allowed"),
        ("a\\b/", "is not allowed"),
        ("a\tb/", "is not allowed"),
        ("a./", "ends with a dot"),
        (" a/", "space at an end"),
        ("e\u0301/", "composed form"),
        ("é" * 256 + "/", "may have 512 bytes; this one has 513"),
    ],
)
def test_a_refused_prefix_is_explained(value: str, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        check_prefix(value)


@given(st.text(max_size=40))
def test_an_accepted_prefix_cannot_leave_its_folder(value: str) -> None:
    try:
        prefix = check_prefix(value)
    except ValueError:
        return
    assert not prefix or prefix.endswith("/")
    assert not set(prefix.split("/")[:-1]) & {"", ".", ".."}
    assert not set(prefix) & set("*?$")


@pytest.mark.parametrize(
    "value",
    ["us-east-1", "us-gov-west-1", "eusc-de-east-1", "auto"],
)
def test_a_region_is_taken(value: str) -> None:
    assert check_region(value) == value


@pytest.mark.parametrize(
    ("value", "told"),
    [
        ("us-east-1a", r"availability zone \(did you mean the region us-east-1\?\)"),
        ("useast1", r"did you mean us-east-1\?"),
        ("US-EAST-1", r"did you mean us-east-1\?"),
        ("us_east_1", r"did you mean us-east-1\?"),
        ("", "is not a region"),
        ("us east!", "is not a region"),
    ],
)
def test_a_refused_region_is_explained(value: str, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        check_region(value)


@pytest.mark.parametrize(
    ("region", "partition"),
    [
        ("us-east-1", "aws"),
        ("cn-north-1", "aws-cn"),
        ("us-gov-east-1", "aws-us-gov"),
        ("eusc-de-east-1", "aws-eusc"),
    ],
)
def test_a_region_is_in_a_partition(region: str, partition: str) -> None:
    assert region_partition(region) == partition


@pytest.mark.parametrize(
    ("arn", "account", "path", "name"),
    [
        ("arn:aws:iam::111122223333:role/XMode", "111122223333", "/", "XMode"),
        ("arn:aws:iam::000000000012:role/XMode", "000000000012", "/", "XMode"),
        ("arn:aws-cn:iam::012345678901:role/a/b/X+=,.@-_1", "012345678901", "/a/b/", "X+=,.@-_1"),
    ],
)
def test_a_role_arn_is_taken_apart(arn: str, account: str, path: str, name: str) -> None:
    role = parse_iam(arn, "role")
    assert (role.account_id, role.path, role.name) == (account, path, name)
    assert arn.startswith(f"arn:{role.partition}:")


@given(st.integers(0, 10**12 - 1))
def test_an_accounts_leading_zeros_survive(number: int) -> None:
    account = f"{number:012}"
    assert check_account(account) == account
    assert parse_iam(f"arn:aws:iam::{account}:role/x", "role").account_id == account


@pytest.mark.parametrize(
    ("arn", "told"),
    [
        ("", "is not an ARN"),
        ("XMode", "is not an ARN; a role is written like arn:aws:iam::111122223333:role/XMode"),
        ("arn:aws:iam::111122223333:policy/XMode", "ARN of policy, not of a role"),
        ("arn:aws:iam::111122223333:root", "ARN of root, not of a role"),
        ("arn:aws:s3:::acme-data", "an ARN of s3, not of iam"),
        (
            "arn:aws:sts::111122223333:assumed-role/XMode/me",
            r"role session.*did you mean arn:aws:iam::111122223333:role/XMode\?",
        ),
        ("arn:aws:iam:us-east-1:111122223333:role/x", "has no region"),
        ("arn:azure:iam::111122223333:role/x", "'azure' is not an AWS partition"),
        ("arn:aws:iam::12345670123:role/x", r"exactly 12 digits.*did you mean 012345670123\?"),
        ("arn:aws:iam::1111-2222-3333:role/x", r"did you mean 111122223333\?"),
        ("arn:aws:iam::\u0661" + "1" * 11 + ":role/x", "exactly 12 digits"),
        ("arn:aws:iam::111122223333:role/a b", "is not a valid role name"),
        ("arn:aws:iam::111122223333:role/" + "x" * 65, "is not a valid role name"),
        ("arn:aws:iam::111122223333:role/x\n", "is not a valid role name"),
    ],
)
def test_a_refused_role_arn_is_explained(arn: str, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        parse_iam(arn, "role")


@pytest.mark.parametrize(
    "arn",
    [
        "1234abcd-12ab-34cd-56ef-1234567890ab",
        "alias/mine",
        "arn:aws:kms::111122223333:key/x",
        "arn:aws:s3:::x",
    ],
)
def test_a_kms_key_is_named_in_full(arn: str) -> None:
    with pytest.raises(ValueError, match="write it in full"):
        check_kms_key(arn)


@pytest.mark.parametrize(
    "arn", ["arn:aws:kms:us-east-1:111122223333:key/mrk-1234", "arn:aws:kms:eu-west-1:111122223333:alias/a/b"]
)
def test_a_kms_key_or_alias_is_taken(arn: str) -> None:
    assert check_kms_key(arn) == arn


@given(st.text(st.sampled_from("Ab9-_. /:é\t"), max_size=12))
@example("s3://Acme_Data/x")
def test_a_bucket_or_prefix_that_is_suggested_is_taken(value: str) -> None:
    for check in (check_bucket, check_prefix):
        try:
            check(value)
        except ValueError as error:
            told = re.search(r"did you mean (?:bucket: )?([^,]*?)(?:, prefix: .*)?\?\)$", str(error))
            if told:
                check(told[1].replace('""', ""))


@pytest.mark.parametrize(
    ("region", "told"),
    [
        ("us-est-1", "(did you mean us-east-1 or us-west-1?)"),
        ("eu-cental-1", "(did you mean eu-central-1?)"),
        ("us-east", "(did you mean us-east-1?)"),
        ("ap-southest-2", "(did you mean ap-southeast-2?)"),
    ],
)
def test_a_region_that_is_misspelt_is_doubted(region: str, told: str) -> None:
    assert check_region(region) == region
    assert region_doubt(region).endswith(told)


@pytest.mark.parametrize(
    "region",
    [
        "us-east-1",
        "eusc-de-east-1",
        "ap-southeast-9",
        "us-east-005",
        "fr-par",
        "auto",
        "eu-frankfurt-1",
    ],
)
def test_a_region_of_another_store_or_a_new_one_is_not_doubted(region: str) -> None:
    assert region_doubt(region) == ""


def test_the_regions_are_those_that_botocore_knows() -> None:
    session = botocore.session.get_session()
    known = {
        region
        for partition in session.get_available_partitions()
        for region in session.get_available_regions("s3", partition)
    }
    assert {region.rpartition("-")[0] for region in known} == set(REGION_STEMS)


@pytest.mark.parametrize("value", ["Acme Corp", "Ünï & Söhne GmbH", "株式会社", "می\u200cخواهم"])
def test_a_company_is_taken(value: str) -> None:
    assert check_company(value) == value


@pytest.mark.parametrize(
    ("value", "told"),
    [
        ("Acme\xa0Corp", r"U\+00A0 \(no-break space\) cannot be seen.*did you mean 'Acme Corp'\?"),
        ("Acme\u202eproC", r"U\+202E \(right-to-left override\).*did you mean 'AcmeproC'\?"),
        ("Acme\u200bCorp", r"U\+200B \(zero width space\).*did you mean 'AcmeCorp'\?"),
        ("Ac\u200cme", r"U\+200C \(zero width non-joiner\)"),
        ("Acme\tCorp", r"U\+0009 \(a control character\).*did you mean 'Acme Corp'\?"),
        (" ", "write the company's name"),
        ("Acme\u2028Corp", "on one line"),
    ],
)
def test_a_company_with_what_cannot_be_seen_is_refused(value: str, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        check_company(value)

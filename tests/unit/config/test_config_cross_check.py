"""Two customers never claim the same external ID, role or place."""

from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xmode_transfer.config import Customer, Feed, Vendor
from xmode_transfer.config.configuration import Claim, Clash, cross_check

FEEDS = {"us-daily": Feed(name="us-daily", source="/d", period="day", partition="%Y/%m/%d")}


def customer(name: str, number: int = 0, **values: Any) -> Customer:
    """A customer that shares nothing with one of another number."""
    return Customer(
        **{
            "name": name,
            "company": name,
            "external_id": f"{name}-{number}",
            "role_arn": f"arn:aws:iam::{number:012}:role/XMode",
            "destination": {"bucket": f"bucket-{number}", "prefix": "xmode/"},
            "feeds": ["us-daily"],
            **values,
        }
    )


def clashes(*customers: Customer, **more: Any) -> list[Clash]:
    return cross_check({one.name: one for one in customers}, FEEDS, Vendor(), **more)


def test_customers_who_share_nothing_are_in_order() -> None:
    assert clashes(customer("a", 1), customer("b", 2)) == []


@pytest.mark.parametrize(
    ("one", "other", "path", "what"),
    [
        ({"external_id": "AcmeCorp"}, {"external_id": "acmecorp"}, ("external_id",), "the same external ID"),
        (
            {"role_arn": "arn:aws:iam::000000000009:role/x"},
            {"role_arn": "arn:aws:iam::000000000009:role/x"},
            ("role_arn",),
            "the same role",
        ),
        (
            {"destination": {"bucket": "shared", "prefix": "a/"}},
            {"destination": {"bucket": "shared", "prefix": "a/"}},
            ("destination",),
            "the same place",
        ),
        (
            {"destination": {"bucket": "shared", "prefix": "a/"}},
            {"destination": {"bucket": "shared", "prefix": "a/b/c/"}},
            ("destination",),
            "s3://shared/a/b/c/",
        ),
        (
            {"destination": {"bucket": "shared"}},
            {"destination": {"bucket": "shared", "prefix": "a/"}},
            ("destination",),
            "s3://shared/",
        ),
    ],
)
@pytest.mark.parametrize("swapped", [False, True])
def test_both_who_claim_the_same_are_told_with_both_files(
    one: dict[str, Any], other: dict[str, Any], path: tuple[str, ...], what: str, swapped: bool
) -> None:
    pair = [customer("one", 1, **one), customer("other", 2, **other)]
    found = clashes(*(reversed(pair) if swapped else pair))
    assert {clash.customer for clash in found} == {"one", "other"}
    for clash in found:
        assert clash.path == path
        assert "customers/one.yaml" in clash.message
        assert "customers/other.yaml" in clash.message
        assert what in clash.message


def test_neighbours_in_a_bucket_are_no_clash() -> None:
    places = ["a/", "ab/", "a-b/", "b/a/", "b/ab/"]
    shared = [
        customer(f"c{number}", number, destination={"bucket": "shared", "prefix": prefix})
        for number, prefix in enumerate(places)
    ]
    assert clashes(*shared) == []


def test_a_retired_customer_keeps_what_it_had() -> None:
    retired = customer("old", 1, external_id="AcmeCorp", state="retired")
    found = clashes(retired, customer("new", 2, external_id="AcmeCorp"))
    assert [clash.customer for clash in found] == ["new"]
    assert "customers/old.yaml (retired)" in found[0].message


def test_two_retired_customers_hurt_nobody() -> None:
    assert clashes(*(customer(name, 1, external_id="Same", state="retired") for name in ("a", "b"))) == []


def test_a_file_with_mistakes_still_claims_what_can_be_read() -> None:
    torn = Claim("torn", external_id="AcmeCorp")
    found = clashes(customer("acme", 1, external_id="AcmeCorp"), broken_customers=[torn])
    assert sorted(clash.customer for clash in found) == ["acme", "torn"]


def test_a_feed_that_does_not_exist_is_named_with_the_nearest() -> None:
    (clash,) = clashes(customer("a", 1, feeds=["us-daily", "us-dayly"]))
    assert clash.path == ("feeds", 1)
    assert clash.message == "there is no feed us-dayly, no feeds/us-dayly.yaml (did you mean us-daily?)"


def test_a_feed_with_mistakes_breaks_its_customers() -> None:
    (clash,) = clashes(customer("a", 1, feeds=["torn"]), customer("b", 2), broken_feeds={"torn"})
    assert (clash.customer, clash.message) == ("a", "feed torn is broken: fix feeds/torn.yaml")


def test_a_retired_customer_may_name_feeds_that_are_gone() -> None:
    assert clashes(customer("a", 1, feeds=["gone"], state="retired")) == []


def test_a_role_of_our_own_account_is_refused() -> None:
    (clash,) = clashes(customer("a", role_arn="arn:aws:iam::366810793500:role/x"))
    assert (clash.customer, clash.path) == ("a", ("role_arn",))
    assert "account 366810793500 is our own" in clash.message


def test_a_role_of_another_partition_is_refused() -> None:
    (clash,) = clashes(customer("a", role_arn="arn:aws-cn:iam::111122223333:role/x"))
    assert "aws-cn" in clash.message
    assert (
        cross_check({"a": customer("a", role_arn="arn:aws-cn:iam::111122223333:role/x")}, FEEDS, None) == []
    )


def test_of_very_many_only_some_are_named() -> None:
    found = clashes(*(customer(f"c{number}", number, external_id="Same") for number in range(3000)))
    assert len(found) == 3000
    assert found[0].message.count(".yaml") == 4
    assert "2996 more" in found[0].message


def overlapping(claims: Iterable[tuple[str, str]]) -> set[int]:
    """The rule at its plainest: one prefix begins with the other."""
    numbered = list(enumerate(claims))
    return {
        position
        for position, (bucket, prefix) in numbered
        for other, (other_bucket, other_prefix) in numbered
        if position != other
        and bucket == other_bucket
        and (prefix.startswith(other_prefix) or other_prefix.startswith(prefix))
    }


folders = st.lists(st.sampled_from(["a", "b", "ab", "a-", "a0", "é"]), max_size=3)
places = st.tuples(
    st.sampled_from(["one", "two"]), folders.map(lambda parts: "".join(f"{p}/" for p in parts))
)


@given(st.lists(places, max_size=8))
def test_overlaps_are_those_of_the_plain_rule(chosen: list[tuple[str, str]]) -> None:
    claims = [
        Claim(str(position), bucket=bucket, prefix=prefix) for position, (bucket, prefix) in enumerate(chosen)
    ]
    found = cross_check({}, {}, None, broken_customers=claims)
    assert sorted(int(clash.customer) for clash in found) == sorted(overlapping(chosen))
    for clash in found:
        assert clash.message.count("customers/") + int("more" in clash.message) >= 2

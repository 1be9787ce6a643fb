"""The whole configuration: cross-checks, reloading and JSON Schemas."""

import json
import re
from collections.abc import Iterable
from pathlib import Path
from types import MappingProxyType
from typing import Any

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from xmode_transfer.config import Configuration, Customer, Feed, Problem, Service, Vendor
from xmode_transfer.config.configuration import (
    Claim,
    Clash,
    cross_check,
    is_moved,
    json_schemas,
    needs_restart,
    reloaded,
)
from xmode_transfer.config.files import claim_of

OWNER = "000000000007"
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
            {"destination": {"bucket": "shared", "prefix": "a/", "bucket_owner": OWNER}},
            {"destination": {"bucket": "shared", "prefix": "a/", "bucket_owner": OWNER}},
            ("destination",),
            "the same location",
        ),
        (
            {"destination": {"bucket": "shared", "prefix": "a/", "bucket_owner": OWNER}},
            {"destination": {"bucket": "shared", "prefix": "a/b/c/", "bucket_owner": OWNER}},
            ("destination",),
            "s3://shared/a/b/c/",
        ),
        (
            {"destination": {"bucket": "shared", "bucket_owner": OWNER}},
            {"destination": {"bucket": "shared", "prefix": "a/", "bucket_owner": OWNER}},
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
        customer(
            f"c{number}", number, destination={"bucket": "shared", "prefix": prefix, "bucket_owner": OWNER}
        )
        for number, prefix in enumerate(places)
    ]
    assert clashes(*shared) == []


def test_a_bucket_has_one_owner() -> None:
    places = [{"bucket": "shared", "prefix": prefix} for prefix in ("a/", "b/", "c/")]
    one, two = customer("one", 1, destination=places[0]), customer("two", 2, destination=places[1])
    lent = {"bucket_owner": "000000000001"}
    three = customer("three", 3, destination=places[2] | lent)  # its role is in another account
    found = {clash.customer: clash.message for clash in clashes(one, two, three)}
    assert found["one"] == found["three"] != found["two"]
    assert found["two"] == (
        "bucket shared is the destination of customers/one.yaml in account 000000000001, not in account "
        "000000000002: one bucket has one owner"
    )
    assert clashes(one, three) == []
    china = {"role_arn": "arn:aws-cn:iam::000000000002:role/XMode", "destination": places[1]}
    claims = [Claim.of(one), Claim.of(customer("two", 2, **china))]
    assert cross_check({}, {}, None, broken_customers=claims) == []  # names are unique within a partition


def test_a_retired_customer_and_a_broken_file_keep_their_bucket() -> None:
    retired = customer("old", 1, destination={"bucket": "shared", "prefix": "a/"}, state="retired")
    torn = claim_of(
        "torn", {"role_arn": retired.role_arn, "destination": {"bucket": "shared", "prefix": "b/"}}
    )
    assert claim_of("bare", {"role_arn": "role/XMode", "destination": {"bucket": "x"}}).bucket_owner is None
    new = customer("new", 2, destination={"bucket": "shared", "prefix": "c/"})
    for other in (clashes(retired, new), clashes(new, broken_customers=[torn])):
        (clash,) = (clash for clash in other if clash.customer == "new")
        assert "in account 000000000001, not in account 000000000002" in clash.message


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


PROBLEM = Problem("customers/acme.yaml", 3, 1, "prefx", "unknown key")


def subscriber(name: str = "acme", **changes: Any) -> Customer:
    return Customer(
        **{
            "name": name,
            "company": name,
            "external_id": name.title(),
            "role_arn": f"arn:aws:iam::1111222233{len(name):02}:role/{name}",
            "destination": {"bucket": f"{name}-data", "prefix": "xmode/"},
            "feeds": ("us-daily",),
            **changes,
        }
    )


def feed(name: str = "us-daily", **changes: Any) -> Feed:
    return Feed(**{"name": name, "source": "/data", "period": "day", "partition": "%Y/%m/%d", **changes})


def configuration(
    *customers: Customer,
    feeds: tuple[Feed, ...] = (feed(),),
    broken: tuple[str, ...] = (),
    **service: Any,
) -> Configuration:
    return Configuration(
        Service(**service),
        MappingProxyType({one.name: one for one in feeds}),
        MappingProxyType({one.name: one for one in customers}),
        MappingProxyType(dict.fromkeys(broken, (PROBLEM,))),
        (PROBLEM,) * len(broken),
    )


def test_what_is_in_order_is_taken_over() -> None:
    before = configuration(subscriber(weight=1), subscriber("globex"))
    fresh = configuration(subscriber(weight=2), subscriber("hooli"))
    assert dict(reloaded(before, fresh).customers) == dict(fresh.customers)


def test_a_broken_customer_stays_as_it_was() -> None:
    before = configuration(subscriber(), subscriber("globex"))
    found = reloaded(before, configuration(subscriber("globex", weight=3), broken=("acme",)))
    assert found.customers["acme"] == subscriber()
    assert found.customers["globex"].weight == 3
    assert dict(found.broken) == {}
    assert found.problems == (PROBLEM,)


def test_a_broken_customer_that_never_was_in_order_is_not_served() -> None:
    found = reloaded(configuration(), configuration(broken=("acme",)))
    assert dict(found.customers) == {}
    assert set(found.broken) == {"acme"}


def test_a_broken_feed_keeps_its_last_version_for_those_who_subscribe() -> None:
    before = configuration(subscriber(), feeds=(feed(), feed("drops")))
    found = reloaded(before, configuration(feeds=(feed("drops"),), broken=("acme",)))
    assert found.feeds["us-daily"] == feed()
    assert "acme" in found.customers


@pytest.mark.parametrize(
    "taken",
    [
        {"external_id": "Acme"},
        {"role_arn": subscriber().role_arn},
        {"destination": {"bucket": "acme-data", "prefix": "xmode/inside/"}},
    ],
)
def test_what_belongs_to_another_by_now_is_not_used_for_two(taken: dict[str, Any]) -> None:
    before = configuration(subscriber())
    found = reloaded(before, configuration(subscriber("globex", **taken), broken=("acme",)))
    assert set(found.customers) == {"globex"}
    assert set(found.broken) == {"acme"}


def test_two_that_claim_the_same_on_disk_stay_as_they_were() -> None:
    before = configuration(subscriber(), subscriber("globex"))
    found = reloaded(before, configuration(broken=("acme", "globex")))
    assert dict(found.customers) == dict(before.customers)


def test_what_needs_a_restart_is_named() -> None:
    before = configuration()
    assert needs_restart(before, configuration(subscriber())) == []
    assert needs_restart(before, configuration(daemon={"tick_seconds": 5})) == []
    after = configuration(engine="portable", daemon={"workers": 3}, limits={"parallel_objects": 2})
    assert needs_restart(before, after) == ["engine", "limits", "daemon.workers"]
    assert needs_restart(before, configuration(ledger="env:LEDGER_URL")) == ["ledger"]
    assert needs_restart(before, configuration(cluster={"turn_bytes": "1GiB"})) == []
    assert needs_restart(before, configuration(cluster={"places": 3})) == ["cluster.places"]


@pytest.mark.parametrize(
    ("after", "moved"),
    [
        (configuration(subscriber()), False),
        (configuration(subscriber(weight=5, schedule={"cron": "0 7 * * *"})), False),
        (configuration(subscriber(feeds=("us-daily", "drops"))), False),
        (configuration(), True),
        (configuration(subscriber(state="retired")), True),
        (configuration(subscriber(role_arn="arn:aws:iam::111122223333:role/other")), True),
        (configuration(subscriber(destination={"bucket": "acme-data", "prefix": "new/"})), True),
        (configuration(subscriber(), feeds=(feed(source="/elsewhere"),)), True),
    ],
)
def test_what_runs_is_begun_anew_where_it_goes_elsewhere(after: Configuration, moved: bool) -> None:
    assert is_moved(configuration(subscriber()), after, "acme") is moved


@pytest.mark.parametrize("kind", ["service", "feed", "customer"])
def test_a_schema_is_one(kind: str) -> None:
    schema = json_schemas()[kind]
    jsonschema.Draft202012Validator.check_schema(schema)
    assert schema["additionalProperties"] is False
    assert "name" not in schema["properties"]
    assert "name" not in schema.get("required", [])


def keys(node: Any, path: str = "") -> list[tuple[str, dict[str, Any]]]:
    found = []
    if isinstance(node, dict):
        for name, schema in node.get("properties", {}).items():
            found += [(f"{path}.{name}", schema), *keys(schema, f"{path}.{name}")]
        for name, schema in node.get("$defs", {}).items():
            found += keys(schema, name)
    return found


@pytest.mark.parametrize("kind", ["service", "feed", "customer"])
def test_every_key_is_described(kind: str) -> None:
    for path, schema in keys(json_schemas()[kind]):
        assert schema.get("description"), path
        assert "\n" not in schema["description"], path


@pytest.mark.parametrize(
    ("kind", "document", "wrong"),
    [
        ("service", {}, None),
        ("service", {"limits": {"memory_bytes": "16MiB", "bandwidth_bytes_per_second": 5}}, None),
        ("service", {"limits": {"memory_bytes": "16 parsecs"}}, "16 parsecs"),
        ("service", {"limits": {"bandwidth_bytes_per_second": [{"from": "8:00", "limit": "1MB"}]}}, None),
        ("service", {"limits": {"bandwidth_bytes_per_second": [{"from": "08:00", "limit": None}]}}, None),
        ("service", {"limits": {"bandwidth_bytes_per_second": [{"from": "25:00", "limit": 1}]}}, "25:00"),
        ("service", {"limits": {"bandwidth_bytes_per_second": [{"form": "08:00"}]}}, "form"),
        ("service", {"alerts": ["x"]}, "x"),
        ("service", {"alerts": [{"name": "ops", "webhook": "env:OPS"}]}, None),
        ("service", {"alerts": [{"name": "ops", "webhook": "https://x"}]}, "https://x"),
        (
            "feed",
            {"source": "x", "period": "day", "partition": "%Y/%m/%d", "complete": {"marker": "m"}},
            None,
        ),
        ("feed", {"source": "x", "period": "daily"}, "daily"),
        ("feed", {"source": "x", "period": "none", "complete": {"markr": "m"}}, "markr"),
        ("customer", {"company": "x"}, "required"),
    ],
)
def test_an_editor_marks_what_is_wrong(kind: str, document: dict[str, Any], wrong: str | None) -> None:
    errors = [
        error.message for error in jsonschema.Draft202012Validator(json_schemas()[kind]).iter_errors(document)
    ]
    if wrong is None:
        assert errors == []
    else:
        assert any(wrong in message for message in errors), errors


def test_the_manual_has_every_key_and_no_other() -> None:
    manual = (Path(__file__).parents[3] / "docs" / "configuration.md").read_text(encoding="utf-8")
    documented = set(re.findall(r"^\| `([a-z0-9_.]+)` \|", manual, re.MULTILINE))
    assert documented == {name for schema in json_schemas().values() for name in leaves(schema)}


def leaves(schema: dict[str, Any], path: str = "") -> set[str]:
    """Every key that takes a value, dotted: ``destination.bucket``. Some take keys below them instead."""
    found = set()
    for name, node in schema["properties"].items():
        inner = [
            definition
            for target in re.findall(r"#/\$defs/(\w+)", json.dumps(node))
            if "properties" in (definition := schema["$defs"][target])
        ]
        for definition in inner:
            found |= leaves({**definition, "$defs": schema["$defs"]}, f"{path}{name}.")
        forms = node.get("anyOf", ())
        if not inner or any(
            "$ref" not in form and form.get("type") not in ("null", "array") for form in forms
        ):
            found.add(f"{path}{name}")
    return found

"""What is in use after the files were read again."""

from types import MappingProxyType
from typing import Any

import pytest

from xmode_transfer.config import Configuration, Customer, Feed, Problem, Service
from xmode_transfer.config.configuration import is_moved, needs_restart, reloaded

PROBLEM = Problem("customers/acme.yaml", 3, 1, "prefx", "unknown key")


def customer(name: str = "acme", **changes: Any) -> Customer:
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
    before = configuration(customer(weight=1), customer("globex"))
    fresh = configuration(customer(weight=2), customer("hooli"))
    assert dict(reloaded(before, fresh).customers) == dict(fresh.customers)


def test_a_broken_customer_stays_as_it_was() -> None:
    before = configuration(customer(), customer("globex"))
    found = reloaded(before, configuration(customer("globex", weight=3), broken=("acme",)))
    assert found.customers["acme"] == customer()
    assert found.customers["globex"].weight == 3
    assert dict(found.broken) == {}
    assert found.problems == (PROBLEM,)


def test_a_broken_customer_that_never_was_in_order_is_not_served() -> None:
    found = reloaded(configuration(), configuration(broken=("acme",)))
    assert dict(found.customers) == {}
    assert set(found.broken) == {"acme"}


def test_a_broken_feed_keeps_its_last_version_for_those_who_subscribe() -> None:
    before = configuration(customer(), feeds=(feed(), feed("drops")))
    found = reloaded(before, configuration(feeds=(feed("drops"),), broken=("acme",)))
    assert found.feeds["us-daily"] == feed()
    assert "acme" in found.customers


@pytest.mark.parametrize(
    "taken",
    [
        {"external_id": "Acme"},
        {"role_arn": customer().role_arn},
        {"destination": {"bucket": "acme-data", "prefix": "xmode/inside/"}},
    ],
)
def test_what_belongs_to_another_by_now_is_not_used_for_two(taken: dict[str, Any]) -> None:
    before = configuration(customer())
    found = reloaded(before, configuration(customer("globex", **taken), broken=("acme",)))
    assert set(found.customers) == {"globex"}
    assert set(found.broken) == {"acme"}


def test_two_that_claim_the_same_on_disk_stay_as_they_were() -> None:
    before = configuration(customer(), customer("globex"))
    found = reloaded(before, configuration(broken=("acme", "globex")))
    assert dict(found.customers) == dict(before.customers)


def test_what_needs_a_restart_is_named() -> None:
    before = configuration()
    assert needs_restart(before, configuration(customer())) == []
    assert needs_restart(before, configuration(daemon={"tick_seconds": 5})) == []
    after = configuration(engine="portable", daemon={"workers": 3}, limits={"parallel_objects": 2})
    assert needs_restart(before, after) == ["engine", "limits", "daemon.workers"]
    assert needs_restart(before, configuration(ledger="env:LEDGER_URL")) == ["ledger"]
    assert needs_restart(before, configuration(cluster={"turn_bytes": "1GiB"})) == []
    assert needs_restart(before, configuration(cluster={"places": 3})) == ["cluster.places"]


@pytest.mark.parametrize(
    ("after", "moved"),
    [
        (configuration(customer()), False),
        (configuration(customer(weight=5, schedule={"cron": "0 7 * * *"})), False),
        (configuration(customer(feeds=("us-daily", "drops"))), False),
        (configuration(), True),
        (configuration(customer(state="retired")), True),
        (configuration(customer(role_arn="arn:aws:iam::111122223333:role/other")), True),
        (configuration(customer(destination={"bucket": "acme-data", "prefix": "new/"})), True),
        (configuration(customer(), feeds=(feed(source="/elsewhere"),)), True),
    ],
)
def test_what_runs_is_begun_anew_where_it_goes_elsewhere(after: Configuration, moved: bool) -> None:
    assert is_moved(configuration(customer()), after, "acme") is moved

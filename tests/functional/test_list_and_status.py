"""`xmode-transfer list` and `status` against the local AWS."""

import uuid
from collections.abc import Callable
from urllib.parse import urlsplit

import psycopg
import pytest

from tests import bucket
from xmode_transfer.sandbox.model import CustomerSetup, Variant

pytestmark = pytest.mark.sandbox

Make = Callable[..., "Project"]  # noqa: F821 - conftest's, which tests cannot import


def fill(project, *names: str) -> None:
    for name in names:
        project.write(f"2026/11/22/{name}", name.encode())
    project.write("2026/11/22/_SUCCESS", b"")


def test_list_tells_ours_from_theirs_and_from_what_is_gone(project: Make, acme: CustomerSetup) -> None:
    here = project(acme)
    fill(here, "a.csv", "b.csv", "c.csv")
    assert here.deliver().code == 0
    base = "xmode/us-daily/2026/11/22/"
    bucket.delete_object(acme, base + "b.csv")
    bucket.put_object(acme, base + "c.csv", b"the customer's own words")
    bucket.put_object(acme, "xmode/notes.txt", b"theirs")
    bucket.put_object(acme, "elsewhere/notes.txt", b"not below our prefix")
    answer = here.run("list", "--customer", "acme", "--json")
    assert answer.code == 0, answer.err
    found = {item["key"]: item["standing"] for item in answer.json["objects"]}
    assert found == {
        "xmode/notes.txt": "unmanaged",
        base + "a.csv": "ours",
        base + "b.csv": "missing",
        base + "c.csv": "changed",
        "xmode/us-daily/_manifests/2026-11-22/000001.json": "manifest",
    }
    assert answer.json["counts"] == {
        "ours": 1,
        "manifest": 1,
        "table": 0,
        "notice": 0,
        "changed": 1,
        "missing": 1,
        "elsewhere": 0,
        "superseded": 0,
        "withdrawn": 0,
        "unmanaged": 1,
    }
    told = here.run("list", "--customer", "acme", "--feed", "us-daily")
    assert "1 missing" in told.out
    assert "notes.txt" not in told.out


def test_list_of_a_customer_who_refuses_us_says_so(
    project: Make, customer_factory: Callable[..., CustomerSetup]
) -> None:
    here = project(customer_factory("initech", Variant.NO_ROLE))
    answer = here.run("list", "--customer", "initech")
    assert answer.code == 4
    assert "the customer" in answer.err


def test_status_says_who_has_what_and_who_must_act(
    project: Make, acme: CustomerSetup, customer_factory: Callable[..., CustomerSetup]
) -> None:
    initech = customer_factory("initech", Variant.NO_ROLE)
    hooli = customer_factory("hooli")
    here = project(acme, initech, hooli)
    fill(here, "a.csv")
    here.write("2026/11/23/a.csv", b"no marker yet")
    for name in ("acme", "initech"):
        here.deliver(name)
    (here.directory / "customers" / "hooli.yaml").write_text("company: Hooli\n")
    answer = here.run("status", "--json")
    assert answer.code == 0, answer.err
    found = {item["customer"]: item for item in answer.json["customers"]}
    assert {name: item["status"] for name, item in found.items()} == {
        "acme": "healthy",
        "initech": "blocked",
        "hooli": "broken",
    }
    (feed,) = found["acme"]["feeds"]
    assert feed["last_delivered"]["period"] == "2026-11-22"
    assert feed["waiting"][0]["period"] == "2026-11-23"
    (blocked,) = found["initech"]["feeds"][0]["open"]
    assert (blocked["cause"], blocked["responsible"]) == ("role_refused", "customer")
    told = here.run("status")
    assert "customer must act" in told.out
    assert "engine" in told.out
    one = here.run("status", "--customer", "acme")
    assert "initech" not in one.out
    assert here.run("status", "--customer", "nobody").code == 2


def test_status_looks_with_a_user_who_may_only_read_the_ledger(
    project: Make, acme: CustomerSetup, postgres_ledger: str
) -> None:
    here = project(acme, service={"ledger": "env:LEDGER_URL"})
    fill(here, "a.csv")
    name = f"reader_{uuid.uuid4().hex[:8]}"  # a role is the whole server's
    with psycopg.connect(postgres_ledger, autocommit=True) as owner:
        owner.execute(f"CREATE ROLE {name} LOGIN")
        owner.execute(f"GRANT SELECT ON ALL TABLES IN SCHEMA public TO {name}")
    try:
        only_reads = as_user(postgres_ledger, name)
        answer = here.run("status", "--look", "--json", LEDGER_URL=only_reads)
        assert answer.code == 0, answer.err
        (customer,) = answer.json["customers"]
        assert (customer["status"], customer["feeds"][0]["due"]) == ("due", ["2026-11-22"])
        assert "permission denied" in answer.json["not_recorded"]
        told = here.run("status", "--look", LEDGER_URL=only_reads).out
        assert "due: 2026-11-22" in told
        assert "the ledger did not record the result" in told
        known = here.run("status", "--no-look", "--json", LEDGER_URL=postgres_ledger).json
        assert known["customers"][0]["feeds"][0]["looked_at"] is None
        assert known["not_recorded"] is None
    finally:
        with psycopg.connect(postgres_ledger, autocommit=True) as owner:
            owner.execute(f"DROP OWNED BY {name}")
            owner.execute(f"DROP ROLE {name}")


def as_user(url: str, user: str) -> str:
    parts = urlsplit(url)
    return parts._replace(netloc=f"{user}@{parts.netloc.rpartition('@')[2]}").geturl()


def test_status_warns_of_an_identity_that_is_not_verified(project: Make, acme: CustomerSetup) -> None:
    here = project(acme, service={"vendor": {"verify_identity": False}})
    fill(here, "a.csv")
    here.deliver("acme")
    assert here.run("status", "--json").json["warnings"][0].startswith("vendor.verify_identity is false")
    assert "warning: vendor.verify_identity is false" in " ".join(here.run("status").out.split())
    checked = here.run("check-access", "--customer", "acme", "--json").json
    (identity,) = [item for item in checked["customers"][0]["findings"] if item["probe"] == "identity"]
    assert identity["result"] == "unknown"


def test_status_works_when_aws_does_not(project: Make, acme: CustomerSetup) -> None:
    here = project(acme)
    fill(here, "a.csv")
    answer = here.run("status", "--json", AWS_ENDPOINT_URL="http://127.0.0.1:9")
    assert answer.json["customers"][0]["status"] == "due"
    assert answer.json["customers"][0]["feeds"][0]["due"] == ["2026-11-22"]

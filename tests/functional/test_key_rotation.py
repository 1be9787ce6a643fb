"""The rotation of our own access key with two keys, step by step as docs/deployment.md has it."""

import os
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests import bucket
from xmode_transfer.sandbox import server
from xmode_transfer.sandbox.accounts import add_customer, root_client
from xmode_transfer.sandbox.model import REGION, VENDOR_ACCOUNT, VENDOR_USER, CustomerSetup, Sandbox

pytestmark = pytest.mark.sandbox

DAYS = ("2026/11/20", "2026/11/21")
SIZE = 400_000
Key = dict[str, Any]


@pytest.fixture
def sandbox(sandbox_home: Path) -> Iterator[Sandbox]:
    """One of its own: the key of the vendor's user is disabled in it."""
    with server.running(sandbox_home, {}) as running:
        yield running


@pytest.fixture
def iam(sandbox: Sandbox) -> Any:
    """What our administrator has."""
    return root_client(sandbox.endpoint, sandbox.root(VENDOR_ACCOUNT), "iam", REGION)


@pytest.fixture
def credentials(tmp_path: Path) -> Callable[[str, str], Path]:
    """Replaces the credentials file of the service whole, as `mv` does."""
    file = tmp_path / "aws"

    def put(key_id: str, secret: str) -> Path:
        fresh = tmp_path / "aws.new"
        fresh.write_text(f"[default]\naws_access_key_id = {key_id}\naws_secret_access_key = {secret}\n")
        fresh.chmod(0o400)
        fresh.replace(file)
        return file

    return put


@pytest.fixture
def service(project: Callable[..., Any], sandbox: Sandbox, credentials: Callable[[str, str], Path]) -> Any:
    """The service for two customers, with the key that it has today in a file. One is slow to deliver to."""
    acme, globex = add_customer(sandbox, "acme"), add_customer(sandbox, "globex")
    slow = {"limits": {"bandwidth_bytes_per_second": SIZE * 5 // 8}}
    here = project(acme, globex, overrides={"acme": slow})
    file = credentials(sandbox.vendor.access_key_id, sandbox.vendor.secret_access_key)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        del here.environment[name]
    here.environment["AWS_SHARED_CREDENTIALS_FILE"] = str(file)
    return here


def publish(service: Any, day: str, files: int = 2, size: int = SIZE) -> None:
    for number in range(files):
        service.write(f"{day}/part-{number}.bin", os.urandom(size))
    service.write(f"{day}/_SUCCESS", b"")


def manifests(customer: CustomerSetup) -> list[str]:
    return [key for key in bucket.list_keys(customer) if "/_manifests/" in key]


def wait_for_an_object(customer: CustomerSetup, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 120
    while not bucket.list_keys(customer):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.05)


def set_status(iam: Any, key_id: str, status: str) -> None:
    iam.update_access_key(UserName=VENDOR_USER, AccessKeyId=key_id, Status=status)


def test_a_key_is_replaced_while_a_process_delivers_and_nothing_is_lost(
    service: Any, sandbox: Sandbox, iam: Any, credentials: Callable[[str, str], Path]
) -> None:
    acme, globex = (sandbox.customer(name) for name in ("acme", "globex"))
    old = sandbox.vendor.access_key_id
    for day in DAYS:
        publish(service, day)

    # 1. A second key. Both are good: the new one passes the check of a customer, the old one delivers.
    new: Key = iam.create_access_key(UserName=VENDOR_USER)["AccessKey"]
    tried = service.run(
        *("check-access", "--customer", "globex", "--json"),
        AWS_ACCESS_KEY_ID=new["AccessKeyId"],
        AWS_SECRET_ACCESS_KEY=new["SecretAccessKey"],
    )
    assert tried.code in (0, 4), tried.err  # 4: what the guide's own documents leave to be mended
    identity = tried.json["customers"][0]["findings"][0]
    assert (identity["probe"], identity["result"]) == ("identity", "ok")

    # 2. and 3. The file is replaced and the old key disabled, while a process delivers to one customer and
    # has yet to ask for the role of the next.
    process = service.start("run", "--all")
    wait_for_an_object(acme, process)
    credentials(new["AccessKeyId"], new["SecretAccessKey"])
    set_status(iam, old, "Inactive")
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    assert [len(manifests(customer)) for customer in (acme, globex)] == [len(DAYS)] * 2, out
    assert err.count("credentials.replaced") == 1
    assert new["SecretAccessKey"] not in out + err

    # The old key is truly off, and a process that starts now does not need it.
    publish(service, "2026/11/22", files=1)
    refused = service.run(
        *("run", "--customer", "globex", "--json"),
        AWS_ACCESS_KEY_ID=old,
        AWS_SECRET_ACCESS_KEY=sandbox.vendor.secret_access_key,
    )
    assert (refused.code, refused.json["error"]["cause"]) == (3, "vendor_identity")
    assert service.deliver("globex").json["outcome"] == "delivered"

    # 4. The old key is removed. Again nothing is sent twice.
    iam.delete_access_key(UserName=VENDOR_USER, AccessKeyId=old)
    again = service.run("run", "--all", "--json")
    assert again.code == 0
    assert {one["customer"]: one["outcome"] for one in again.json["customers"]}["globex"] == "skipped"
    for customer in (acme, globex):
        assert len(bucket.list_versions(customer)) == len(bucket.list_keys(customer))


def test_a_disabled_key_can_be_put_back_and_a_wrong_one_touches_no_customer(
    service: Any, sandbox: Sandbox, iam: Any, credentials: Callable[[str, str], Path]
) -> None:
    """The way back, for as long as the old key is disabled only. A wrong key is one error."""
    publish(service, DAYS[0], files=1, size=1000)
    old = sandbox.vendor
    set_status(iam, old.access_key_id, "Inactive")
    assert service.deliver("globex").json["error"]["cause"] == "vendor_identity"
    set_status(iam, old.access_key_id, "Active")

    credentials(sandbox.vendor.access_key_id, "not-the-secret-of-that-key")
    answer = service.run("run", "--all")
    assert answer.code == 3
    told = [line for line in answer.err.splitlines() if not line.startswith("{")]
    assert sum("responsible " in line for line in told) == 1, answer.err
    assert "not-the-secret-of-that-key" not in answer.out + answer.err
    told_as_json = service.run("run", "--all", "--json")
    assert told_as_json.json["error"]["cause"] == "vendor_identity"
    assert told_as_json.json["error"]["responsible"] == "vendor"
    for name in ("acme", "globex"):
        assert bucket.list_keys(sandbox.customer(name)) == []
    credentials(sandbox.vendor.access_key_id, sandbox.vendor.secret_access_key)
    assert service.deliver("globex").json["outcome"] == "delivered"

"""`xmode-transfer daemon` against the local AWS: months of a service's life in a minute."""

import json
import os
import signal
import socket
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from tests import bucket
from xmode_transfer.sandbox import accounts
from xmode_transfer.sandbox.model import REGION, VENDOR_ACCOUNT, VENDOR_USER, CustomerSetup, Sandbox
from xmode_transfer.telemetry import SystemClock

pytestmark = pytest.mark.sandbox

Make = Callable[..., "Project"]  # noqa: F821 - conftest's, which tests cannot import
FAST = {
    "daemon": {
        "tick_seconds": 1,
        "first_retry_seconds": 1,
        "longest_retry_seconds": 2,
        "drain_seconds": 1,
        "workers": 4,
    },
    "status_page": "off",
}


QUICK = {"_WATCH_SECONDS": 0.25, "_STEP_SECONDS": 0.2, "_RECOVERY_SECONDS": 1.0}
"""How often the daemon looks, a tenth of what it has."""


class Hook:
    """A webhook on this machine: what it was sent."""

    def __init__(self) -> None:
        self.messages: list[dict[str, Any]] = []
        messages = self.messages

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                messages.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
                self.send_response(204)
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/hook"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def wait(self, event: str, cause: str) -> dict[str, Any]:
        until = time.monotonic() + 120
        while not (found := self.told(event, cause)):
            assert time.monotonic() < until, self.messages
            time.sleep(0.05)
        return found[0]

    def told(self, event: str, cause: str) -> list[dict[str, Any]]:
        return [m for m in self.messages if (m["event"], m["cause"]) == (event, cause)]


@pytest.fixture
def hook() -> Iterator[Hook]:
    hook = Hook()
    yield hook
    hook.server.shutdown()
    hook.server.server_close()


@contextmanager
def running(project: Any, **environment: str) -> Iterator[Any]:
    daemon = project.launch("daemon", **environment)
    daemon.wait("daemon.started")
    try:
        yield daemon
    finally:
        if daemon.process.poll() is None:
            daemon.process.kill()
            daemon.process.wait()


class VendorKeys:
    """Access keys of our own user, made and deleted as an operator does who rotates them."""

    def __init__(self, sandbox: Sandbox) -> None:
        self._iam = accounts.root_client(sandbox.endpoint, sandbox.root(VENDOR_ACCOUNT), "iam", REGION)
        self._made: list[str] = []

    def create(self) -> dict[str, str]:
        key: dict[str, str] = self._iam.create_access_key(UserName=VENDOR_USER)["AccessKey"]
        self._made.append(key["AccessKeyId"])
        return key

    def delete(self, key: dict[str, str]) -> None:
        self._made.remove(key["AccessKeyId"])
        self._iam.delete_access_key(UserName=VENDOR_USER, AccessKeyId=key["AccessKeyId"])

    def write(self, file: Any, key: dict[str, str]) -> None:
        new = file.with_suffix(".new")
        new.write_text(
            f"[default]\naws_access_key_id = {key['AccessKeyId']}\n"
            f"aws_secret_access_key = {key['SecretAccessKey']}\n"
        )
        new.replace(file)

    def close(self) -> None:
        for name in self._made:
            self._iam.delete_access_key(UserName=VENDOR_USER, AccessKeyId=name)


@pytest.fixture
def vendor_key(sandbox: Sandbox) -> Iterator[VendorKeys]:
    keys = VendorKeys(sandbox)
    yield keys
    keys.close()


def fill(project: Any, day: str, files: dict[str, bytes]) -> None:
    for name, data in files.items():
        project.write(f"{day}/{name}", data)
    project.write(f"{day}/_SUCCESS", b"")


def manifests(customer: CustomerSetup) -> list[str]:
    """The periods whose manifest is there."""
    keys = bucket.list_keys(customer)
    return sorted(key.split("/")[3] for key in keys if "/_manifests/" in key)


def delivered(daemon: Any, customer: str) -> list[str]:
    """The periods in the order in which they were delivered."""
    return [e["period"] for e in daemon.seen("delivery.finished", customer=customer, outcome="delivered")]


def watched_again(project: Any) -> None:
    """Waits for a round of the watch that began after now: the one after the next."""
    until = time.monotonic() + 120
    with closing(sqlite3.connect(project.directory / "var" / "ledger.db")) as ledger:

        def rounds() -> int:
            (generation,) = ledger.execute("SELECT generation FROM leases WHERE name = 'watch'").fetchone()
            return int(generation)

        before = rounds()
        while rounds() < before + 2:
            assert time.monotonic() < until
            time.sleep(0.1)


def until(condition: Callable[[], bool]) -> None:
    last = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < last
        time.sleep(0.05)


def edit(project: Any, customer: str, change: Callable[[str], str]) -> None:
    path = project.directory / "customers" / f"{customer}.yaml"
    path.write_text(change(path.read_text()))


def test_a_daemon_delivers_reloads_alerts_and_survives_a_deleted_role(
    project: Make, customer_factory: Callable[..., CustomerSetup], hook: Hook
) -> None:
    acme, globex = customer_factory("acme"), customer_factory("globex")
    alerts = {"alerts": [{"name": "ops", "webhook": "env:HOOK_URL"}]}
    here = project(acme, globex, service={**FAST, **alerts})
    here.environment["HOOK_URL"] = hook.url
    late = here.directory / "customers" / "globex.yaml"
    later = late.read_text()
    late.unlink()
    fill(here, "2026/11/20", {"a.csv": b"20"})
    with running(here) as daemon:
        # what is due is delivered, and what becomes due later
        daemon.wait("delivery.finished", customer="acme", period="2026-11-20", outcome="delivered")
        fill(here, "2026/11/21", {"a.csv": b"21"})
        daemon.wait("delivery.finished", customer="acme", period="2026-11-21", outcome="delivered")

        # a file that appears is noticed by itself
        late.write_text(later)
        daemon.wait("configuration.reloaded", added=["globex"])
        daemon.wait("delivery.finished", customer="globex", period="2026-11-21", outcome="delivered")

        # a mistake keeps the last good version in use
        edit(here, "acme", lambda text: text + "roll_arn: x\n")
        broken = daemon.wait("configuration.invalid")
        assert hook.wait("opened", "config_invalid")["responsible"] == "vendor"
        assert "customers/acme.yaml" in broken["problems"][0]
        fill(here, "2026/11/22", {"a.csv": b"22"})
        daemon.wait("delivery.finished", customer="acme", period="2026-11-22", outcome="delivered")
        edit(here, "acme", lambda text: text.replace("roll_arn: x\n", ""))
        daemon.wait("configuration.fixed")
        hook.wait("resolved", "config_invalid")

        # a customer whose role is gone is parked, told once, and holds up nobody
        bucket.delete_role(acme)
        for day in ("23", "24"):
            fill(here, f"2026/11/{day}", {"a.csv": day.encode()})
        daemon.wait("customer.suspended", customer="acme", period="2026-11-23")
        daemon.wait("delivery.finished", customer="globex", period="2026-11-24", outcome="delivered")
        daemon.wait("access.checked", customer="acme")
        daemon.wait("delivery.finished", customer="acme", outcome="blocked", count=3)
        assert len(daemon.seen("customer.suspended")) == 1
        assert manifests(acme) == ["2026-11-20", "2026-11-21", "2026-11-22"]
        opened = hook.wait("opened", "access_denied")
        assert (opened["responsible"], opened["customers"]) == ("customer", ["acme"])
        daemon.process.send_signal(signal.SIGHUP)  # a person asks: it is tried at once, and looked at again
        watched_again(here)
        assert len(hook.told("opened", "access_denied")) == 1
        assert not hook.told("resolved", "access_denied")

        # it has mended it: everything follows in order, without anybody's help
        accounts.restore_role(acme)
        daemon.wait("delivery.finished", customer="acme", period="2026-11-24", outcome="delivered")
        daemon.wait("customer.resumed", customer="acme")
        assert hook.wait("resolved", "access_denied")["fingerprint"] == opened["fingerprint"]
        assert delivered(daemon, "acme") == [f"2026-11-{day}" for day in range(20, 25)]
        assert delivered(daemon, "globex") == [f"2026-11-{day}" for day in range(20, 25)]

        # one daemon a ledger; a run may work beside it
        second = here.run("daemon")
        assert second.code == 5
        assert "another daemon uses this ledger" in second.err
        assert here.deliver("acme").code == 0

        # a customer that is removed is left alone
        late.unlink()
        daemon.wait("configuration.reloaded", removed=["globex"])
        fill(here, "2026/11/25", {"a.csv": b"25"})
        daemon.wait("delivery.finished", customer="acme", period="2026-11-25", outcome="delivered")
        assert "2026-11-25" not in manifests(globex)

        daemon.wait("access.checked", customer="acme", outcome="ok")  # since it lets us in again
        assert not hook.told("opened", "access_drift")  # what the check before had found is over
        assert daemon.end() == 0
        assert daemon.seen("daemon.stopped", ended=True)
        assert not daemon.other
        assert not daemon.seen("defect")


def test_invalid_files_do_not_stop_valid_customers(
    project: Make, customer_factory: Callable[..., CustomerSetup]
) -> None:
    here = project(customer_factory("acme"), customer_factory("globex"), service=FAST)
    customers = here.directory / "customers"
    text = (customers / "acme.yaml").read_text()
    with running(here) as daemon:
        (customers / "zz.yaml").symlink_to("zz.yaml")
        os.mkfifo(customers / "pipe.yaml")
        daemon.wait("configuration.invalid")
        (customers / ".link").symlink_to("acme.yaml")
        (customers / ".link").replace(customers / "acme.yaml")  # it is never away, as a file that is removed
        until = time.monotonic() + 30
        while not any(
            "customers/acme.yaml: is a symbolic link that leads back to itself" in problem
            for event in daemon.seen("configuration.invalid")
            for problem in event["problems"]
        ):
            assert time.monotonic() < until, daemon.told()
            time.sleep(0.05)
        fill(here, f"{SystemClock().now():%Y/%m/%d}", {"a.csv": b"1"})
        for name in ("acme", "globex"):
            daemon.wait("delivery.finished", customer=name, outcome="delivered")
        assert here.deliver("globex").code == 0
        assert here.run("run", "--customer", "zz").code == 2
        status = {one["customer"]: one["status"] for one in here.run("status", "--json").json["customers"]}
        assert (status["zz"], status["pipe"], status["globex"]) == ("broken", "broken", "healthy")
        for name in ("zz.yaml", "pipe.yaml"):
            (customers / name).unlink()
        (customers / ".text").write_text(text)
        (customers / ".text").replace(customers / "acme.yaml")
        daemon.wait("configuration.fixed")
        assert not daemon.seen("configuration.reloaded", removed=["acme"])
        assert daemon.end() == 0


def test_a_rotated_vendor_key_is_one_outage_and_needs_no_restart(
    project: Make,
    customer_factory: Callable[..., CustomerSetup],
    vendor_key: VendorKeys,
    tmp_path: Any,
) -> None:
    customers = [customer_factory(name) for name in ("acme", "globex", "initech")]
    here = project(*customers, service=FAST)
    here.constants |= QUICK
    file = tmp_path / "credentials"
    old = vendor_key.create()
    vendor_key.write(file, old)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        del here.environment[name]
    here.environment["AWS_SHARED_CREDENTIALS_FILE"] = str(file)
    fill(here, "2026/11/20", {"a.csv": b"20"})
    with running(here) as daemon:
        for customer in customers:
            daemon.wait("delivery.finished", customer=customer.name, outcome="delivered")

        # the key is gone before the new one is in place: everybody waits, and it is told once
        vendor_key.delete(old)
        fill(here, "2026/11/21", {"a.csv": b"21"})
        began = daemon.wait("outage.began")
        assert (began["cause"], began["responsible"]) == ("vendor_identity", "vendor")
        fill(here, "2026/11/22", {"a.csv": b"22"})
        time.sleep(1.5)  # it looks every second
        assert len(daemon.seen("outage.began")) == 1
        assert not daemon.seen("customer.suspended")
        assert len(daemon.seen("delivery.finished", outcome="failed")) <= len(customers)
        with closing(sqlite3.connect(here.directory / "var" / "ledger.db")) as ledger:
            until(
                lambda: (
                    ledger.execute("SELECT failure_cause FROM daemons").fetchall() == [("vendor_identity",)]
                )
            )

        # the new key is read without a restart
        new = vendor_key.create()
        vendor_key.write(file, new)
        daemon.wait("outage.recovered")
        for customer in customers:
            daemon.wait("delivery.finished", customer=customer.name, period="2026-11-22", outcome="delivered")
            assert delivered(daemon, customer.name) == ["2026-11-20", "2026-11-21", "2026-11-22"]

        # rotated as it should be, new before old is gone: nobody notices
        newest = vendor_key.create()
        vendor_key.write(file, newest)
        vendor_key.delete(new)
        fill(here, "2026/11/23", {"a.csv": b"23"})
        for customer in customers:
            daemon.wait("delivery.finished", customer=customer.name, period="2026-11-23", outcome="delivered")
        assert len(daemon.seen("outage.began")) == 1
        assert old["SecretAccessKey"] not in daemon.told() + json.dumps(daemon.events)
        assert daemon.end() == 0


def test_sigterm_and_sigkill_during_a_delivery_lose_and_repeat_nothing(
    project: Make, acme: CustomerSetup
) -> None:
    slow = {"limits": {"bandwidth_bytes_per_second": "100kB"}}
    here = project(acme, service=FAST, overrides={"acme": slow})
    files = {f"part-{n:02}.bin": bytes([n]) * 200_000 for n in range(20)}
    fill(here, "2026/11/20", files)

    with running(here) as daemon:
        daemon.wait("delivery.started")
        until(lambda: len(bucket.list_keys(acme)) >= 2)
        assert daemon.end() == 0
        assert daemon.seen("daemon.stopped", drained=False, ended=True)
        assert daemon.seen("delivery.finished", outcome="interrupted")
    sent = len(bucket.list_keys(acme))
    assert 0 < sent < 20

    with running(here) as daemon:
        daemon.wait("delivery.started", skipped=sent)
        until(lambda: len(bucket.list_keys(acme)) > sent)
        daemon.process.kill()
        assert daemon.process.wait(120) == -signal.SIGKILL
    again = len(bucket.list_keys(acme))
    assert sent < again < 20

    edit(here, "acme", lambda text: text.replace("100kB", "500MB"))
    with running(here) as daemon:
        daemon.wait("delivery.finished", outcome="delivered")
        daemon.process.send_signal(signal.SIGHUP)  # a person asks; nothing has changed
        time.sleep(0.5)
        assert daemon.end(signal.SIGINT) == 0
    keys = [key for key in bucket.list_keys(acme) if "/_manifests/" not in key]
    assert sorted(key.rpartition("/")[2] for key in keys) == sorted(files)
    assert len(bucket.list_versions(acme)) == len(keys) + 1
    for key in keys:
        assert bucket.read_object(acme, key) == files[key.rpartition("/")[2]]


def test_a_second_signal_ends_at_once(project: Make, acme: CustomerSetup) -> None:
    slow = {"limits": {"bandwidth_bytes_per_second": "100kB"}}
    patient = {**FAST, "daemon": {**FAST["daemon"], "drain_seconds": 600}}
    here = project(acme, service=patient, overrides={"acme": slow})
    fill(here, "2026/11/20", {f"part-{n:02}.bin": bytes(200_000) for n in range(20)})
    with running(here) as daemon:
        daemon.wait("delivery.started")
        daemon.process.send_signal(signal.SIGTERM)
        daemon.wait("daemon.stopping")
        began = time.monotonic()
        assert daemon.end(signal.SIGTERM) == 130
        assert time.monotonic() - began < 60  # the drain has ten minutes


def test_systemd_is_notified(project: Make, acme: CustomerSetup, tmp_path: Any) -> None:
    here = project(acme, service=FAST)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    listener.bind(str(tmp_path / "notify"))
    listener.settimeout(120)

    def heard(word: str) -> str:
        while word not in (message := listener.recv(4096).decode()):
            pass
        return message

    with running(here, NOTIFY_SOCKET=str(tmp_path / "notify")) as daemon:
        assert "STATUS=1 customers" in heard("READY=1")
        heard("WATCHDOG=1")
        daemon.process.send_signal(signal.SIGHUP)
        assert "MONOTONIC_USEC=" in heard("RELOADING=1")
        heard("READY=1")
        # a watchdog that is fed although the ledger takes nothing would be worth nothing
        with sqlite3.connect(here.directory / "var" / "ledger.db", isolation_level=None) as other:
            other.execute("BEGIN IMMEDIATE")
            listener.settimeout(0)
            with suppress(BlockingIOError):  # what was told before
                while listener.recv(4096):
                    pass
            deadline = time.monotonic() + 3
            fed = 0
            while time.monotonic() < deadline:
                with suppress(TimeoutError):
                    listener.settimeout(0.5)
                    fed += "WATCHDOG" in listener.recv(4096).decode()
            assert fed <= 1
            other.execute("ROLLBACK")
        other.close()
        listener.settimeout(120)
        heard("WATCHDOG=1")
        assert daemon.end() == 0
        heard("STOPPING=1")
    listener.close()

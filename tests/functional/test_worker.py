"""`xmode-transfer worker` and `daemon --engine procrastinate`: several processes, one ledger."""

import signal
import time
import urllib.request
from collections import Counter
from collections.abc import Callable
from typing import Any

import psycopg
import pytest

from tests import bucket
from xmode_transfer.sandbox.model import CustomerSetup

Make = Callable[..., "Project"]  # noqa: F821 - conftest's, which tests cannot import
SECONDS = 150.0
FAST = {
    "tick_seconds": 1,
    "first_retry_seconds": 1,
    "longest_retry_seconds": 2,
    "drain_seconds": 1,
    "workers": 4,
}


def fill(project: Any, day: str, files: dict[str, bytes]) -> None:
    for name, data in files.items():
        project.write(f"{day}/{name}", data)
    project.write(f"{day}/_SUCCESS", b"")


def manifests(customer: CustomerSetup) -> list[str]:
    """The periods whose manifest is there."""
    keys = bucket.list_keys(customer)
    return sorted(key.split("/")[3] for key in keys if "/_manifests/" in key)


def delivered(*processes: Any) -> Counter[tuple[str, str]]:
    """How often each period of each customer was delivered, by all of them together."""
    return Counter(
        (event["customer"], event["period"])
        for process in processes
        for event in process.seen("delivery.finished", outcome="delivered")
    )


def until(condition: Callable[[], bool], told: Callable[[], str] = lambda: "") -> None:
    last = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < last, told()
        time.sleep(0.1)


def page_of(daemon: Any) -> str:
    address: str = daemon.wait("page.started", seconds=SECONDS)["address"]
    return address.rstrip("/")


def read(url: str) -> str:
    with urllib.request.urlopen(url, timeout=60) as answer:
        text: str = answer.read().decode()
        return text


@pytest.fixture
def fleet(project: Make, postgres_url: str) -> Callable[..., Any]:
    """A project whose ledger lies in PostgreSQL; the processes of it that are launched end with the test."""

    def make(*customers: CustomerSetup, service: dict[str, Any] | None = None, **how: Any) -> Any:
        settings = {"ledger": postgres_url, "daemon": FAST, "status_page": "off", **(service or {})}
        return project(*customers, service=settings, **how)

    return make


def launch(here: Any, *arguments: str) -> Any:
    process = here.launch(*arguments)
    process.wait("daemon.started" if arguments[0] == "daemon" else "worker.started", seconds=SECONDS)
    return process


@pytest.mark.sandbox
def test_one_daemon_and_two_workers_deliver_once(
    fleet: Callable[..., Any], customer_factory: Callable[..., CustomerSetup]
) -> None:
    customers = [customer_factory(name) for name in ("acme", "globex", "initech", "hooli")]
    here = fleet(*customers, service={"status_page": {"listen": "127.0.0.1:0"}})
    days = ["20", "21", "22"]
    for day in days:
        fill(here, f"2026/11/{day}", {f"{n}.csv": f"{day} {n}".encode() for n in range(3)})
    workers = [launch(here, "worker", "--places", "2", "--metrics", "127.0.0.1:0") for _ in range(2)]
    daemon = launch(here, "daemon", "--engine", "procrastinate")
    page = page_of(daemon)
    for customer in customers:
        until(
            lambda customer=customer: manifests(customer) == [f"2026-11-{day}" for day in days], daemon.told
        )
    wanted = {(customer.name, f"2026-11-{day}") for customer in customers for day in days}
    until(lambda: delivered(*workers).keys() == wanted, daemon.told)
    assert set(delivered(*workers).values()) == {1}
    assert not delivered(daemon)
    measured = [read(f"{page_of(worker)}/metrics") for worker in workers]
    sent = [
        line
        for text in measured
        for line in text.splitlines()
        if 'objects_total{outcome="delivered"}' in line
    ]
    assert sum(float(line.split()[-1]) for line in sent) == len(wanted) * 3
    assert all(read(f"{page_of(worker)}/healthz").startswith("ok worker") for worker in workers)
    for customer in customers:
        assert manifests(customer) == [f"2026-11-{day}" for day in days]

    # the page and the metrics show the fleet as they show a daemon of one machine
    until(lambda: "xmode_daemon_slots 4.0" in read(f"{page}/metrics"), lambda: read(f"{page}/metrics"))
    assert all(customer.name in read(page) for customer in customers)

    # what becomes due later is delivered by whoever is left
    assert workers[0].end() == 0
    fill(here, "2026/11/23", {"a.csv": b"23"})
    for customer in customers:
        workers[1].wait(
            "delivery.finished",
            seconds=SECONDS,
            customer=customer.name,
            period="2026-11-23",
            outcome="delivered",
        )
    assert daemon.end() == 0
    assert workers[1].end() == 0
    for process in (daemon, *workers):
        assert not process.other
        assert not process.seen("defect")


@pytest.mark.sandbox
def test_another_worker_resumes_after_a_worker_stops(
    fleet: Callable[..., Any], customer_factory: Callable[..., CustomerSetup]
) -> None:
    acme = customer_factory("acme")
    slow = {"limits": {"bandwidth_bytes_per_second": "100kB"}}
    here = fleet(acme, overrides={"acme": slow})
    fill(here, "2026/11/20", {f"part-{n:02}.bin": bytes([n]) * 100_000 for n in range(40)})
    launch(here, "daemon", "--engine", "procrastinate")
    first = launch(here, "worker")
    first.wait("delivery.started", seconds=SECONDS, customer="acme")
    until(lambda: len(bucket.list_keys(acme)) >= 2)
    assert first.end() == 0  # the drain is shorter than the delivery
    assert first.seen("worker.stopped", drained=False, ended=True)
    customer = here.directory / "customers" / "acme.yaml"
    customer.write_text(customer.read_text().replace("100kB", "500MB"))
    second = launch(here, "worker")
    finished = second.wait("delivery.finished", seconds=SECONDS, customer="acme", outcome="delivered")
    assert 0 < finished["uploaded"] < 40
    assert manifests(acme) == ["2026-11-20"]
    assert second.end() == 0


@pytest.mark.sandbox
@pytest.mark.slow
def test_two_daemons_share_the_work_and_one_is_enough(
    fleet: Callable[..., Any], customer_factory: Callable[..., CustomerSetup]
) -> None:
    acme, globex = customer_factory("acme"), customer_factory("globex")
    here = fleet(acme, globex)
    fill(here, "2026/11/20", {"a.csv": b"20"})
    daemons = [launch(here, "daemon", "--engine", "procrastinate") for _ in range(2)]
    worker = launch(here, "worker")
    for customer in (acme, globex):
        worker.wait("delivery.finished", seconds=SECONDS, customer=customer.name, outcome="delivered")
    daemons[0].process.kill()
    fill(here, "2026/11/21", {"a.csv": b"21"})
    until(lambda: manifests(acme) == manifests(globex) == ["2026-11-20", "2026-11-21"], worker.told)
    assert set(delivered(worker).values()) == {1}
    assert daemons[1].end() == 0
    assert worker.end() == 0


@pytest.mark.sandbox
@pytest.mark.slow
def test_a_restart_of_the_database_loses_and_repeats_nothing(
    project: Make, customer_factory: Callable[..., CustomerSetup], own_postgres: Any
) -> None:
    acme, globex = customer_factory("acme"), customer_factory("globex")
    settings = {"ledger": own_postgres.url("xmode"), "daemon": FAST, "status_page": "off"}
    here: Any = project(acme, globex, service=settings)
    fill(here, "2026/11/20", {"a.csv": b"20"})
    daemon = launch(here, "daemon", "--engine", "procrastinate")
    worker = launch(here, "worker")
    until(lambda: manifests(acme) == manifests(globex) == ["2026-11-20"], worker.told)
    own_postgres.restart()
    fill(here, "2026/11/21", {"a.csv": b"21"})
    until(lambda: manifests(acme) == manifests(globex) == ["2026-11-20", "2026-11-21"], worker.told)
    until(lambda: len(delivered(worker)) == 4)
    assert set(delivered(worker).values()) == {1}
    for process in (daemon, worker):
        assert process.end() == 0
        assert not process.other
        assert not process.seen("defect")


@pytest.mark.sandbox
@pytest.mark.slow
def test_a_deleted_job_is_enqueued_again(
    fleet: Callable[..., Any], customer_factory: Callable[..., CustomerSetup], postgres_url: str
) -> None:
    acme = customer_factory("acme")
    here = fleet(acme)
    fill(here, "2026/11/20", {"a.csv": b"20"})
    daemon = launch(here, "daemon", "--engine", "procrastinate")
    daemon.wait("workers.missing", seconds=SECONDS)
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        assert connection.execute("DELETE FROM procrastinate_jobs").rowcount == 1
    worker = launch(here, "worker")
    worker.wait("delivery.finished", seconds=SECONDS, customer="acme", outcome="delivered")
    assert worker.end() == daemon.end() == 0


@pytest.mark.sandbox
@pytest.mark.slow
def test_a_busy_worker_takes_over_the_jobs_of_a_killed_one(
    fleet: Callable[..., Any], customer_factory: Callable[..., CustomerSetup]
) -> None:
    """Looking for turns that nobody holds needs no place, and no daemon."""
    acme, globex = customer_factory("acme"), customer_factory("globex")
    slow = {"limits": {"bandwidth_bytes_per_second": "200kB"}}
    here = fleet(acme, globex, overrides={"acme": slow, "globex": slow})
    fill(here, "2026/11/20", {f"part-{n:02}.bin": bytes([n]) * 100_000 for n in range(60)})
    daemon = launch(here, "daemon", "--engine", "procrastinate")
    workers = {}
    for _ in range(2):
        worker = launch(here, "worker", "--places", "1")
        until(lambda worker=worker: worker.seen("delivery.started") != [], worker.told)
        workers[worker.seen("delivery.started")[0]["customer"]] = worker
    assert workers.keys() == {"acme", "globex"}
    until(lambda: len(bucket.list_keys(globex)) >= 2)
    daemon.process.send_signal(signal.SIGSTOP)
    workers["globex"].process.kill()
    busy = workers["acme"]
    taken = busy.wait("job.reassigned", seconds=SECONDS, customer="globex")
    finished = busy.wait("delivery.finished", seconds=SECONDS, customer="acme", outcome="delivered")
    assert taken["timestamp"] < finished["timestamp"]
    finished = busy.wait("delivery.finished", seconds=SECONDS, customer="globex", outcome="delivered")
    assert finished["uploaded"] < 60
    daemon.process.send_signal(signal.SIGCONT)
    assert manifests(acme) == manifests(globex) == ["2026-11-20"]
    assert busy.end() == 0
    assert daemon.end() == 0


@pytest.mark.sandbox
def test_a_single_daemon_and_a_fleet_refuse_each_other(
    fleet: Callable[..., Any], customer_factory: Callable[..., CustomerSetup]
) -> None:
    here = fleet(customer_factory("acme"))
    alone = launch(here, "daemon")
    for command in (["worker"], ["daemon", "--engine", "procrastinate"]):
        refused = here.run(*command)
        assert refused.code == 5
        assert "a daemon with its own worker" in refused.err
        assert f"pid {alone.process.pid} on " in refused.err
    assert alone.end() == 0
    worker = launch(here, "worker")
    daemon = launch(here, "daemon", "--engine", "procrastinate")
    refused = here.run("daemon")
    assert refused.code == 5
    assert "a fleet uses this ledger: 1 daemon (" in refused.err
    assert "and 1 worker (" in refused.err
    assert daemon.end() == worker.end() == 0
    assert launch(here, "daemon").end() == 0


# --- Where it cannot work --------------------------------------------------------------------------------


@pytest.mark.sandbox
@pytest.mark.parametrize("command", [["worker"], ["daemon", "--engine", "procrastinate"]])
def test_a_fleet_refuses_a_ledger_in_sqlite(project: Make, acme: CustomerSetup, command: list[str]) -> None:
    here: Any = project(acme)
    answer = here.run(*command)
    assert answer.code == 2
    assert "PostgreSQL" in answer.err
    assert "ledger copy" in answer.err
    assert not (here.directory / "var").exists()


@pytest.mark.sandbox
@pytest.mark.parametrize(
    "command",
    [
        pytest.param(["worker"], id="worker"),
        pytest.param(["daemon", "--engine", "procrastinate"], id="daemon of a fleet", marks=pytest.mark.slow),
        pytest.param(["daemon"], id="daemon", marks=pytest.mark.slow),
    ],
)
def test_a_process_stops_on_request_without_its_database(
    project: Make, acme: CustomerSetup, own_postgres: Any, command: list[str]
) -> None:
    """In the middle of a delivery, where there is one; a server that is frozen never answers."""
    settings = {"ledger": own_postgres.url("xmode", patience=3600), "daemon": FAST, "status_page": "off"}
    slow = {"limits": {"bandwidth_bytes_per_second": "200kB"}}
    here: Any = project(acme, service=settings, overrides={"acme": slow})
    fill(here, "2026/11/20", {f"part-{n:02}.bin": bytes([n]) * 100_000 for n in range(60)})
    if command == ["worker"]:
        launch(here, "daemon", "--engine", "procrastinate")
    process = launch(here, *command)
    if command != ["daemon", "--engine", "procrastinate"]:
        process.wait("delivery.started", seconds=SECONDS)
    own_postgres.freeze()
    try:
        time.sleep(2)
        assert process.end(signal.SIGTERM, seconds=SECONDS) == 0, process.told()
        assert process.seen(f"{command[0]}.stopped")
        assert not process.seen("defect")
    finally:
        own_postgres.thaw()


@pytest.mark.slow
@pytest.mark.sandbox
def test_a_run_stops_on_request_without_its_database(
    project: Make, acme: CustomerSetup, own_postgres: Any
) -> None:
    slow = {"limits": {"bandwidth_bytes_per_second": "200kB"}}
    settings = {"ledger": own_postgres.url("xmode", patience=3600), "status_page": "off"}
    here: Any = project(acme, service=settings, overrides={"acme": slow})
    fill(here, "2026/11/20", {f"part-{n:02}.bin": bytes([n]) * 100_000 for n in range(60)})
    run = here.launch("--log-level", "info", "run", "--customer", "acme", "--json")
    run.wait("delivery.started", seconds=SECONDS)
    own_postgres.freeze()
    try:
        time.sleep(2)
        assert run.end(signal.SIGTERM, seconds=SECONDS) != 0
        assert not any("Traceback" in line for line in run.other)
    finally:
        own_postgres.thaw()
    answer = here.run("run", "--customer", "acme", "--json")
    assert answer.code == 0, answer.err
    assert manifests(acme) == ["2026-11-20"]


@pytest.mark.sandbox
def test_public_metrics_of_a_worker_require_a_token(fleet: Callable[..., Any], acme: CustomerSetup) -> None:
    here = fleet(acme)
    for address, told in (("0.0.0.0:0", "give it a token"), ("8322", "127.0.0.1:8322")):
        refused = here.run("worker", "--metrics", address)
        assert refused.code == 2
        assert told in refused.err

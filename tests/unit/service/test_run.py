"""Running customers, and how that is told."""

import gc
import json
import threading
import weakref
from collections.abc import Callable
from concurrent.futures import Future

import pytest

from tests.fakes import MemorySource
from tests.fakes.store import MemoryObjectStore
from xmode_transfer.aws.checksums import OpenFile
from xmode_transfer.aws.stores import PutAnswer, PutRequest
from xmode_transfer.cli import run as command
from xmode_transfer.delivery.run import run_customers
from xmode_transfer.model.errors import AlreadyRunning, worst
from xmode_transfer.model.jobs import customer_lease
from xmode_transfer.model.records import Delivery, SourceFile
from xmode_transfer.model.upkeep import Scope
from xmode_transfer.transfer.context import held

Make = Callable[..., "DaemonWorld"]  # noqa: F821 - conftest's, which tests cannot import
ALONE = pytest.mark.parametrize("daemon_world", ["threads"], indirect=True)


@ALONE
def test_a_mistake_of_ours_with_one_customer_hides_no_other_s_outcome(
    daemon_world: Make, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    world = daemon_world(customers={"acme": {}, "globex": {}, "initech": {}})
    world.produce("2026-11-20")
    calendar = world.ledger.deliveries.calendar

    def fails(customer: str, *which: str) -> list[Delivery]:
        if customer == "globex":
            raise ZeroDivisionError("a mistake")
        return calendar(customer, *which)

    monkeypatch.setattr(world.ledger.deliveries, "calendar", fails)
    names = ["acme", "globex", "initech"]
    results = run_customers(world.context("run"), world.configuration, names, Scope())
    assert worst(result.exit_code for result in results) == 1
    command.show(list(zip(names, results, strict=True)), as_json=True, everyone=True)
    told = {one["customer"]: one for one in json.loads(capsys.readouterr().out)["customers"]}
    assert {name: one["outcome"] for name, one in told.items()} == {
        "acme": "delivered",
        "globex": "failed",
        "initech": "delivered",
    }
    assert told["globex"]["error"]["cause"] == "defect"
    assert "ZeroDivisionError: a mistake" in told["globex"]["error"]["message"]


@ALONE
def test_of_several_plans_one_that_cannot_be_made_hides_no_other(
    daemon_world: Make, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    world = daemon_world()
    world.produce("2026-11-20")
    latest = world.ledger.deliveries.latest

    def fails(customer: str, *which: str) -> Delivery | None:
        return latest(customer, *which) if customer == "globex" else 1 // 0

    monkeypatch.setattr(world.ledger.deliveries, "latest", fails)
    code = command.show_preview(
        world.context("run"), world.configuration, ["acme", "globex"], Scope(), as_json=True
    )
    acme, globex = json.loads(capsys.readouterr().out)["customers"]
    assert (code, acme["outcome"], acme["error"]["cause"]) == (1, "failed", "defect")
    assert globex["deliveries"][0]["counts"] == {"upload": 1}


@ALONE
def test_it_waits_for_a_turn_of_a_moment(daemon_world: Make) -> None:
    world = daemon_world()
    world.produce("2026-11-20")
    lease = world.ledger.leases.claim(customer_lease("acme"), "daemon", 45)
    ending = threading.Timer(0.5, world.ledger.leases.release, [lease])
    ending.start()
    (result,) = run_customers(world.context("run"), world.configuration, ["acme"], Scope())
    ending.join()
    assert (result.outcome, result.exit_code) == ("delivered", 0)


@ALONE
def test_it_does_not_wait_for_a_delivery_nor_when_it_is_asked_to_end(daemon_world: Make) -> None:
    world = daemon_world()
    world.produce("2026-11-20")
    world.ledger.leases.claim(customer_lease("acme"), "daemon", 45)
    context = world.context("run")
    (result,) = run_customers(context, world.configuration, ["acme"], Scope())
    assert (result.outcome, result.exit_code) == ("already_running", 5)
    context.stop.set()
    with (
        pytest.raises(AlreadyRunning),
        held(context.ledger, "customer/acme", "run", wait_seconds=1e9, stop=context.stop),
    ):
        pass


@ALONE
def test_a_sent_file_is_freed_without_the_garbage_collector(
    daemon_world: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = daemon_world()
    world.produce("2026-11-20")
    opened: list[weakref.ref[object]] = []
    answering: list[threading.Timer] = []
    open_file, put = MemorySource.open, MemoryObjectStore.put

    def remembered(source: MemorySource, file: SourceFile) -> object:
        body = open_file(source, file)
        opened.append(weakref.ref(body))
        return body

    def answered_later(store: MemoryObjectStore, request: PutRequest, body: OpenFile) -> Future[PutAnswer]:
        answer = put(store, request, body).result()
        later: Future[PutAnswer] = Future()
        answering.append(threading.Timer(0.05, later.set_result, [answer]))
        answering[-1].start()
        return later

    monkeypatch.setattr(MemorySource, "open", remembered)
    monkeypatch.setattr(MemoryObjectStore, "put", answered_later)
    gc.disable()
    try:
        (result,) = run_customers(world.context("run"), world.configuration, ["acme"], Scope())
        while answering:
            answering.pop().join()
        kept = [body for body in opened if body() is not None]
    finally:
        gc.enable()
    assert result.outcome == "delivered"
    assert opened
    assert not kept

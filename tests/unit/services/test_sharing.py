"""One delivery sent by several workers: threads with a name and an open ledger each, and one customer in
memory."""

import json
import random
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Connection

from xmode_transfer.adapters import checksums
from xmode_transfer.adapters.clock import SystemClock
from xmode_transfer.adapters.ledger import Ledger, open_ledger
from xmode_transfer.adapters.ledger.leases import Leases
from xmode_transfer.adapters.ledger.subject import Subject
from xmode_transfer.adapters.memory import (
    MemoryBuckets,
    MemoryObjectStores,
    MemoryRoles,
    MemoryRoleSessions,
    MemorySource,
    StoredVersion,
)
from xmode_transfer.adapters.processes import this_process
from xmode_transfer.adapters.spool import SpooledFile
from xmode_transfer.domain.config import (
    Cluster,
    Configuration,
    Customer,
    Feed,
    Limits,
    Problem,
    Service,
    Vendor,
)
from xmode_transfer.domain.errors import (
    LeaseLost,
    LedgerError,
    SourceUnreadable,
    Unavailable,
    VendorIdentityError,
)
from xmode_transfer.domain.periods import Period, PeriodKind
from xmode_transfer.domain.policy import guide_permission_policy, guide_trust_policy
from xmode_transfer.domain.records import DeliveryOutcome, Status, UploadStatus
from xmode_transfer.services import large, sending
from xmode_transfer.services.deliver import deliver
from xmode_transfer.services.helping import Help, help_out
from xmode_transfer.services.workbench import Sharing, Workbench

LOOK = 0.02
DAY = "2026-11-20"


class _Silent:
    def __getattr__(self, name: str) -> Callable[..., None]:
        return lambda *arguments: None


class Progress(_Silent):
    def __init__(self) -> None:
        self.sent = 0

    def bytes_sent(self, count: int) -> None:
        self.sent += count


class Queue:
    def __init__(self) -> None:
        self.asked: list[int] = []

    def put_help(self, connection: Connection, delivery_id: str, customer: str, count: int) -> None:
        self.asked.append(count)

    def take_help_out(self, connection: Connection, delivery_id: str) -> None:
        pass


class World:
    """``names`` of files with their bytes, ten at first; every process has the ledger open by itself."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.clock = SystemClock()
        self.queue = Queue()
        self.source = MemorySource()
        self.buckets = MemoryBuckets(self.clock)
        self.roles = MemoryRoles(self.clock)
        self.read: Configuration | None = None
        self.customer = Customer(
            name="acme",
            company="Acme",
            external_id="Acme",
            role_arn="arn:aws:iam::111122223333:role/XMode",
            destination={"bucket": "acme-data", "prefix": "xmode/", "region": "us-east-1"},
            feeds=("us-daily",),
        )
        self.feed = Feed(
            name="us-daily",
            source="/data",
            period="day",
            partition="%Y/%m/%d",
            complete={"marker": "_SUCCESS"},
        )
        self.rules = Cluster(share_above_objects=3, chunk_objects=2, helpers=4)
        self.limits = Limits()
        self.bucket = self.buckets.create("acme-data", self.customer.account_id, versioned=True)
        self.permit(guide_permission_policy("acme-data"))
        self.write(*(f"{number:02}.csv" for number in range(10)))
        self.opened: list[Ledger] = []

    def permit(self, policy: dict[str, Any]) -> None:
        self.roles.put(
            self.customer.role_arn,
            trust_policy=guide_trust_policy("Acme"),
            permission_policies=[policy],
        )

    def write(self, *names: str, data: bytes = b"1234567890") -> None:
        period = Period.parse(DAY, PeriodKind.DAY)
        for name in names:
            self.source.write(f"{DAY}/{name}", data, period=period)
        self.source.set_state(period, complete=True, marker="m1")

    @property
    def configuration(self) -> Configuration:
        """As the helpers have read it."""
        return self.read or Configuration(
            service=Service(),
            feeds=MappingProxyType({"us-daily": self.feed}),
            customers=MappingProxyType({"acme": self.customer}),
            broken=MappingProxyType({}),
        )

    def ledger(self) -> Ledger:
        self.opened.append(open_ledger(f"sqlite:///{self.directory}/ledger.db", self.clock))
        return self.opened[-1]

    def bench(self, holder: str, *, faults: Any = None, threads: int = 2, **changes: Any) -> Workbench:
        """A process of its own. ``faults`` go wrong in its store."""
        ledger = self.ledger()
        bench = Workbench(
            vendor=Vendor(),
            limits=self.limits,
            sources=lambda feed: self.source,
            sessions=MemoryRoleSessions(self.roles),
            stores=MemoryObjectStores(self.buckets, self.roles, faults=faults, threads=threads),
            ledger=ledger,
            clock=self.clock,
            progress=_Silent(),  # type: ignore[arg-type]
            checksum_of=checksums.of,
            spool=SpooledFile,
            holder=holder,
            stop=threading.Event(),
            sharing=Sharing(ledger.shares(self.queue), self.rules, LOOK),
        )
        return replace(bench, **changes)

    def deliver(self, bench: Workbench) -> DeliveryOutcome:
        state = self.source.state(Period.parse(DAY, PeriodKind.DAY))
        assert state is not None
        return deliver(bench, self.customer, self.feed, state)

    @contextmanager
    def helpers(self, *benches: Workbench) -> Iterator[list[Help]]:
        """Processes that help with whatever there is to help with."""
        over = threading.Event()
        done: list[Help] = []

        def work(bench: Workbench) -> None:
            while not over.wait(LOOK / 4):
                for delivery in bench.ledger.deliveries.find(statuses=[Status.RUNNING]):
                    helped = help_out(bench, self.configuration, delivery.id)
                    if helped.chunks:
                        done.append(helped)

        threads = [threading.Thread(target=work, args=(bench,)) for bench in benches]
        for thread in threads:
            thread.start()
        try:
            yield done
        finally:
            over.set()
            for thread in threads:
                thread.join(120)
            assert not any(thread.is_alive() for thread in threads)

    def close(self) -> None:
        for ledger in self.opened:
            ledger.close()

    # --- What came of it

    @property
    def versions(self) -> list[StoredVersion]:
        return [version for key in self.bucket.contents() for version in self.bucket.versions(key)]

    def assert_once_and_whole(self) -> None:
        """Each file is one object with one version, and the one manifest names them all."""
        keys = [version.key for version in self.versions]
        assert len(keys) == len(set(keys))
        (manifest,) = [version for version in self.versions if "_manifests/" in version.key]
        named = {entry["key"] for entry in json.loads(manifest.body)["objects"]}
        assert named == set(keys) - {manifest.key}
        assert len(named) == 10

    def assert_nothing_is_left(self) -> None:
        ledger = self.ledger()
        assert ledger.uploads.find(statuses=[UploadStatus.OPEN]) == []
        with ledger._database.reading() as connection:
            assert connection.exec_driver_sql("SELECT count(*) FROM chunks").scalar_one() == 0
            left = connection.exec_driver_sql("SELECT count(*) FROM leases WHERE name LIKE 'chunk/%'")
            assert left.scalar_one() == 0


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path)
    yield made
    made.close()


def slowly(seconds: float = 0.03) -> Callable[..., None]:
    """A store that takes its time, so that others get some of the work."""

    def fault(operation: str, key: str, attempt: int) -> None:
        if operation in ("put", "upload_part"):
            time.sleep(seconds)

    return fault


# --- Together --------------------------------------------------------------------------------------------


def test_several_send_one_delivery(world: World) -> None:
    progress = Progress()
    closer = world.bench("closer", faults=slowly(), progress=progress)
    with world.helpers(world.bench("h1", faults=slowly()), world.bench("h2", faults=slowly())) as helped:
        outcome = world.deliver(closer)
    assert (outcome.outcome, outcome.uploaded, outcome.bytes, outcome.failed) == ("delivered", 10, 100, 0)
    assert sum(help_.uploaded for help_ in helped) > 0
    assert world.queue.asked[0] == 4
    world.assert_once_and_whole()
    world.assert_nothing_is_left()
    (run,) = closer.ledger.runs.newest()
    assert (run.uploaded, run.bytes) == (10, 100)


def test_a_closer_whom_nobody_helps_does_it_alone(world: World) -> None:
    outcome = world.deliver(world.bench("closer"))
    assert (outcome.outcome, outcome.uploaded) == ("delivered", 10)
    world.assert_once_and_whole()
    world.assert_nothing_is_left()


@pytest.mark.parametrize(
    ("rules", "limits"),
    [
        ({"share_above_objects": 10}, {}),
        ({"share_above_objects": 3, "helpers": 0}, {}),
        ({"share_above_objects": 3, "chunk_objects": 20}, {}),
        ({"share_above_objects": 3}, {"parallel_objects_per_customer": 1}),
    ],
)
def test_what_is_small_or_cannot_be_shared_is_not_divided(
    world: World, rules: dict[str, int], limits: dict[str, int]
) -> None:
    world.rules = Cluster(**rules)  # type: ignore[arg-type]
    world.limits = Limits(**limits)  # type: ignore[arg-type]
    assert world.deliver(world.bench("closer")).outcome == "delivered"
    assert world.queue.asked == []
    world.assert_once_and_whole()


def test_many_bytes_are_divided_too(world: World) -> None:
    world.rules = Cluster(share_above_bytes=50, chunk_bytes=20, helpers=2)
    assert world.deliver(world.bench("closer")).outcome == "delivered"
    assert world.queue.asked[0] == 2


# --- Limits ----------------------------------------------------------------------------------------------


def test_each_has_its_part_of_what_the_customer_may_take(world: World) -> None:
    closer = world.bench("closer", faults=slowly(0.05))
    helper = world.bench("h1", faults=slowly(0.05))
    seen: list[tuple[int, int]] = []
    sending_at = {"closer": 0, "h1": 0}

    def watched(name: str, bench: Workbench) -> None:
        inner = bench.stores.requests.faults  # type: ignore[attr-defined]

        def fault(operation: str, key: str, attempt: int) -> None:
            if operation == "put" and "_manifests/" not in key:
                sending_at[name] += 1
                if sending_at["h1"]:
                    stores = (closer.stores, helper.stores)
                    seen.append(tuple(one.participants.get("acme", 1) for one in stores))  # type: ignore[attr-defined, arg-type]
            inner(operation, key, attempt)

        bench.stores.requests.faults = fault  # type: ignore[attr-defined]

    watched("closer", closer)
    watched("h1", helper)
    with world.helpers(helper):
        assert world.deliver(closer).outcome == "delivered"
    # from the helper's first byte on, the two never had more than the whole
    assert seen
    assert all(1 / first + 1 / second <= 1 or 1 in (first, second) for first, second in seen)
    assert seen[0] == (2, 2)
    assert closer.stores.participants["acme"] == 1  # type: ignore[attr-defined]
    assert helper.stores.participants["acme"] == 1  # type: ignore[attr-defined]


# --- Who may not help ------------------------------------------------------------------------------------


@pytest.mark.parametrize("why", ["another destination", "no such customer", "no such feed", "broken"])
def test_who_has_read_other_files_does_not_help(world: World, why: str) -> None:
    closer = world.bench("closer", faults=slowly())
    acme, problem = world.customer, Problem("customers/acme.yaml", 1, 1, "feeds", "it has a mistake")
    elsewhere = acme.destination.model_copy(update={"prefix": "elsewhere/"})
    changes: dict[str, Any] = {
        "another destination": {"customers": {"acme": acme.model_copy(update={"destination": elsewhere})}},
        "no such feed": {"customers": {"acme": acme.model_copy(update={"feeds": ()})}},
        "no such customer": {"customers": {}},
        "broken": {"customers": {}, "broken": {"acme": (problem,)}},
    }
    world.read = replace(world.configuration, **changes[why])
    with world.helpers(world.bench("h1")) as helped:
        outcome = world.deliver(closer)
    assert outcome.outcome == "delivered"
    assert helped == []
    assert not [key for key in world.bucket.contents() if key.startswith("elsewhere")]


def test_a_process_does_not_help_itself(world: World) -> None:
    closer = world.bench("closer", faults=slowly())
    with world.helpers(replace(closer)) as helped:
        assert world.deliver(closer).outcome == "delivered"
    assert helped == []


def test_without_a_cluster_nobody_helps(world: World) -> None:
    bench = world.bench("h1", sharing=None)
    assert help_out(bench, world.configuration, "any") == Help()


def test_others_may_want_the_place(world: World) -> None:
    helper, results = world.bench("h1", faults=slowly()), []
    closer = world.bench("closer", faults=slowly(0.1), threads=1)
    over = threading.Thread(target=lambda: results.append(world.deliver(closer)))
    over.start()
    helped = Help()
    while over.is_alive() and not helped.chunks:
        for delivery in helper.ledger.deliveries.find(statuses=[Status.RUNNING]):
            helped = help_out(helper, world.configuration, delivery.id, enough=lambda: True)
    over.join(120)
    assert (helped.chunks, helped.reason) == (1, "others want the place")
    assert results[0].outcome == "delivered"
    world.assert_once_and_whole()


# --- Trouble ---------------------------------------------------------------------------------------------


def test_what_a_helper_cannot_read_counts_in_the_end(world: World) -> None:
    """The helper gives it back, the closer finds out for itself."""

    def unreadable(bench: Workbench) -> Workbench:
        class Source:
            def __getattr__(self, name: str) -> Any:
                return getattr(world.source, name)

            def open(self, file: Any) -> Any:
                raise SourceUnreadable(f"{file.name}: not mounted here")

        return replace(bench, sources=lambda feed: Source())  # type: ignore[arg-type, return-value]

    closer = world.bench("closer", faults=slowly())
    with world.helpers(unreadable(world.bench("h1"))) as helped:
        outcome = world.deliver(closer)
    assert (outcome.outcome, outcome.uploaded) == ("delivered", 10)
    assert helped == []
    world.assert_once_and_whole()


def test_failures_of_any_worker_keep_the_manifest_away(world: World) -> None:
    def breaks(operation: str, key: str, attempt: int) -> None:
        time.sleep(0.02)
        if operation == "put" and key.endswith(("03.csv", "08.csv")):
            raise Unavailable(f"{key}: connection reset", hint="tried again")

    benches = [world.bench(name, faults=breaks) for name in ("closer", "h1", "h2")]
    with world.helpers(*benches[1:]):
        outcome = world.deliver(benches[0])
    assert (outcome.outcome, outcome.uploaded, outcome.failed) == ("failed", 8, 2)
    assert outcome.failure is not None
    assert "2 of 10 files" in outcome.failure.message
    assert sorted(problem.name[-6:] for problem in outcome.problems) == ["03.csv", "08.csv"]
    assert len(world.versions) == 8
    world.assert_nothing_is_left()
    with world.helpers(world.bench("h3")):
        assert world.deliver(world.bench("closer-2")).outcome == "delivered"
    world.assert_once_and_whole()


def test_a_refusal_that_a_helper_meets_blocks_the_delivery(world: World) -> None:
    started = threading.Event()

    def refused(operation: str, key: str, attempt: int) -> None:
        if operation == "put":
            world.permit(guide_permission_policy("another-bucket"))
            started.set()

    def waits(operation: str, key: str, attempt: int) -> None:
        started.wait(120)

    closer = world.bench("closer", faults=waits, threads=1)
    with world.helpers(world.bench("h1", faults=refused)):
        outcome = world.deliver(closer)
    assert (outcome.outcome, outcome.uploaded) == ("blocked", 0)
    assert outcome.failure is not None
    assert (outcome.failure.cause, outcome.failure.party) == ("access_denied", "customer")
    assert outcome.ends_run
    assert world.versions == []
    world.assert_nothing_is_left()


def test_a_helper_s_own_identity_is_its_own_trouble(world: World) -> None:
    helper = world.bench("h1", sessions=MemoryRoleSessions(world.roles, identity=None))
    closer = world.bench("closer", faults=slowly(0.1), threads=1)
    results: list[DeliveryOutcome] = []
    thread = threading.Thread(target=lambda: results.append(world.deliver(closer)))
    thread.start()
    raised = False
    while thread.is_alive() and not raised:
        for delivery in helper.ledger.deliveries.find(statuses=[Status.RUNNING]):
            try:
                help_out(helper, world.configuration, delivery.id)
            except VendorIdentityError:
                raised = True
    thread.join(120)
    assert raised
    assert results[0].outcome == "delivered"


def test_content_that_changed_after_a_lost_answer_becomes_a_new_revision(world: World) -> None:
    """An object of ours that has older content is found by whoever sends its chunk, and superseded once."""
    first = world.bench("first", sharing=None)
    first = replace(first, ledger=_without_receipts(first.ledger, "05.csv"))
    assert world.deliver(first).outcome != "delivered"
    world.write("05.csv", data=b"corrected!")
    with world.helpers(world.bench("h1", faults=slowly()), world.bench("h2", faults=slowly())):
        outcome = world.deliver(world.bench("closer", faults=slowly()))
    assert (outcome.outcome, outcome.revision) == ("delivered", 2)
    (manifest,) = [version for version in world.versions if "_manifests/" in version.key]
    assert len(json.loads(manifest.body)["objects"]) == 10
    world.assert_nothing_is_left()


def _without_receipts(ledger: Ledger, end: str) -> Any:
    """A ledger whose answers are lost for some objects, as if the process had died before."""

    class Objects:
        def __getattr__(self, name: str) -> Any:
            return getattr(ledger.objects, name)

        def record_receipt(self, lease: Any, delivery_id: str, receipt: Any) -> Any:
            if receipt.name.endswith(end):
                future: Future[None] = Future()
                future.set_exception(LedgerError("the power is gone"))
                return future
            return ledger.objects.record_receipt(lease, delivery_id, receipt)

    class Cut:
        objects = Objects()

        def __getattr__(self, name: str) -> Any:
            return getattr(ledger, name)

    return Cut()


# --- Stopping --------------------------------------------------------------------------------------------


def test_a_helper_that_is_asked_to_stop_gives_its_chunk_back(world: World) -> None:
    helper = world.bench("h1")

    def stops(operation: str, key: str, attempt: int) -> None:
        helper.stop.set()

    helper.stores.requests.faults = stops  # type: ignore[attr-defined]
    with world.helpers(helper):
        outcome = world.deliver(world.bench("closer", faults=slowly(), threads=1))
    assert (outcome.outcome, outcome.uploaded) == ("delivered", 10)
    world.assert_once_and_whole()


def test_a_closer_that_is_asked_to_stop_ends_the_helpers_too(world: World) -> None:
    closer = world.bench("closer", faults=slowly())

    def stops(operation: str, key: str, attempt: int) -> None:
        time.sleep(0.02)
        closer.stop.set()

    with world.helpers(world.bench("h1", faults=stops), world.bench("h2", faults=slowly(0.1))):
        outcome = world.deliver(closer)
        assert outcome.outcome == "interrupted"
        world.assert_nothing_is_left()
    assert world.deliver(world.bench("closer-2")).outcome == "delivered"
    world.assert_once_and_whole()


# --- Large objects ---------------------------------------------------------------------------------------


def test_the_upload_of_a_helper_that_died_goes_on_from_its_journal(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sending, "LARGE_BYTES", 16)
    monkeypatch.setattr(large, "part_size", lambda size: 5 * 1024 * 1024)
    monkeypatch.setattr("xmode_transfer.services.leasing.TTL_SECONDS", 0.5)
    monkeypatch.setattr("xmode_transfer.services.leasing._RENEW_SECONDS", 0.1)
    body = random.Random(1).randbytes(16 * 1024 * 1024)
    world.write("09.csv", data=body)
    host, boot, _, _ = this_process().split("/")
    helper = world.bench(f"{host}/{boot}/4194300/1", threads=1)  # a process that is no more
    cut = threading.Event()

    def dies(operation: str, key: str, attempt: int) -> None:
        if operation == "upload_part" and key.endswith("#3"):
            while len(closer.ledger.uploads.find()[0].parts) < 2:  # what is not journalled is sent again
                time.sleep(0.01)
            cut.set()
            helper.ledger.close()  # type: ignore[attr-defined]
            raise Unavailable("cut off")

    helper.stores.requests.faults = dies  # type: ignore[attr-defined]
    order = threading.Event()

    def waits(operation: str, key: str, attempt: int) -> None:
        if not key.endswith("09.csv") and operation == "put" and "_manifests/" not in key:
            cut.wait(120)

    world.rules = Cluster(share_above_objects=3, chunk_objects=9, helpers=1)
    closer = world.bench("closer", faults=waits)

    def helps() -> None:
        while not order.wait(LOOK / 4):
            for delivery in closer.ledger.deliveries.find(statuses=[Status.RUNNING]):
                try:
                    help_out(helper, world.configuration, delivery.id)
                except LedgerError:
                    return

    thread = threading.Thread(target=helps)
    thread.start()
    outcome = world.deliver(closer)
    order.set()
    thread.join(120)
    assert cut.is_set()
    assert outcome.outcome == "delivered"
    (upload,) = closer.ledger.uploads.find(delivery_id=closer.ledger.deliveries.find()[0].id)
    assert upload.status is UploadStatus.COMPLETED
    sent = closer.stores.requests  # type: ignore[attr-defined]
    key = upload.key
    assert [sent.count("upload_part", f"{key}#{number}") for number in (1, 2, 3, 4)] == [0, 0, 1, 1]
    world.assert_once_and_whole()
    world.assert_nothing_is_left()


# --- Whatever happens ------------------------------------------------------------------------------------


class Cut:
    """A ledger that is gone after so many calls, as for a process that was killed or cut off."""

    def __init__(self, ledger: Any, calls: "int | Iterator[int]") -> None:
        self._ledger = ledger
        self._left = iter(range(calls)) if isinstance(calls, int) else calls
        self._lock = threading.Lock()

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._ledger, name)
        if isinstance(found, Subject | Leases):
            return Cut(found, self._left)
        if not callable(found):
            return found

        def call(*arguments: Any, **named: Any) -> Any:
            with self._lock:
                left = next(self._left, None)
            if left is None:
                raise LedgerError("it is gone")
            return found(*arguments, **named)

        return call


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    closer_calls=st.integers(5, 60),
    helper_calls=st.lists(st.integers(3, 40), min_size=1, max_size=3),
    chunk_objects=st.integers(1, 4),
)
def test_whoever_is_cut_off_when_each_object_is_there_once(
    tmp_path_factory: pytest.TempPathFactory,
    closer_calls: int,
    helper_calls: list[int],
    chunk_objects: int,
) -> None:
    with ExitStack() as stack:
        world = World(tmp_path_factory.mktemp("world"))
        stack.callback(world.close)
        world.rules = Cluster(share_above_objects=2, chunk_objects=chunk_objects, helpers=3)
        host, boot, _, _ = this_process().split("/")

        def dying(number: int, calls: int) -> Workbench:
            """It dies with its calls: others see at once that there is no such process."""
            bench = world.bench(f"{host}/{boot}/4194300/{number}", faults=slowly(0.002))
            ledger = Cut(bench.ledger, calls)  # type: ignore[arg-type]
            sharing = Sharing(Cut(bench.sharing.shares, calls), world.rules, LOOK)  # type: ignore[union-attr, arg-type]
            return replace(bench, ledger=ledger, sharing=sharing)  # type: ignore[arg-type]

        helpers = [dying(number + 2, calls) for number, calls in enumerate(helper_calls)]
        eyes = world.ledger()
        over = threading.Event()

        def helps(bench: Workbench) -> None:
            while not over.wait(LOOK / 4):
                for delivery in eyes.deliveries.find(statuses=[Status.RUNNING]):
                    try:
                        help_out(bench, world.configuration, delivery.id)
                    except LedgerError:
                        return

        threads = [threading.Thread(target=helps, args=(bench,)) for bench in helpers]
        for thread in threads:
            thread.start()
        try:
            with suppress(LedgerError, LeaseLost):
                world.deliver(dying(1, closer_calls))
            for number in range(4):
                outcome = world.deliver(world.bench(f"after-{number}"))
                if outcome.outcome in ("delivered", "skipped"):
                    break
        finally:
            over.set()
            for thread in threads:
                thread.join(120)
        assert eyes.deliveries.find()[0].status is Status.DELIVERED
        world.assert_once_and_whole()
        world.assert_nothing_is_left()

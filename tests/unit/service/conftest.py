"""A daemon's world in memory: customers by the guide, one feed by the day, and a clock that is moved."""

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest

from tests.fakes import (
    MemoryBuckets,
    MemoryClock,
    MemoryObjectStores,
    MemoryProber,
    MemoryRoles,
    MemoryRoleSessions,
    MemorySource,
)
from xmode_transfer.aws.policy.documents import VENDOR_PRINCIPAL, guide_permission_policy, guide_trust_policy
from xmode_transfer.config import Configuration, Customer, Feed, Limits, Problem, Service, Vendor
from xmode_transfer.ledger import Ledger, open_ledger
from xmode_transfer.model.jobs import JobRequest, JobState, QueueEntry, WorkQueue, customer_lease
from xmode_transfer.model.periods import Period, PeriodKind
from xmode_transfer.model.records import Lease, Status
from xmode_transfer.service.daemon import Daemon
from xmode_transfer.service.local_queue import LocalQueue
from xmode_transfer.service.worker import Worker
from xmode_transfer.transfer.context import Context


class _Silent:
    def __getattr__(self, name: str) -> Callable[..., None]:
        return lambda *arguments: None


class SharedQueue(LocalQueue):
    """The queue of a fleet whose daemons and workers are one process; it outlives them. What one of them
    lost is taken over."""

    def reap(self) -> list[str]:
        with self._lock:
            held = {lease.name for lease in self._leases.held("customer/")}  # type: ignore[attr-defined]
            lost = [name for name in self._running if customer_lease(name) not in held]
            for name in lost:
                job = self._running.pop(name).job
                if name in self._customers:
                    again = JobRequest(name, job.skip_backoff, job.serving_at)
                    self._enqueue_anew(self._customers[name], again)
        return lost


@dataclass
class DaemonWorld:
    """``customers`` by name with what their files say besides; ``service`` (below `daemon`) and ``cluster``
    likewise."""

    ledger: Ledger
    clock: MemoryClock
    customers: dict[str, dict[str, Any]] = field(default_factory=lambda: {"acme": {}, "globex": {}})
    service: dict[str, Any] = field(default_factory=dict)
    cluster: dict[str, Any] = field(default_factory=dict)
    settled: bool = False
    shared: bool = False  # a worker takes the jobs, and the daemon only calls

    def __post_init__(self) -> None:
        self.fleet = self.new_queue()
        self.worker: Worker | None = None
        self.source = MemorySource()
        self.buckets = MemoryBuckets(self.clock)
        self.roles = MemoryRoles(self.clock)
        self.sessions = MemoryRoleSessions(self.roles)
        self.problems: dict[str, Problem] = {}
        self.changes = 0
        self.number = 0
        self.daemon: Daemon | None = None
        for name in self.customers:
            self.sign_up(name)

    # --- The world ---------------------------------------------------------------------------------------

    def sign_up(self, name: str) -> None:
        self.customers.setdefault(name, {})
        self.number += 1
        self.buckets.create(f"{name}-data", self._account(name))
        self.mend(name)

    def mend(self, name: str) -> None:
        self.roles.put(
            self.customer(name).role_arn,
            trust_policy=guide_trust_policy(name.title()),
            permission_policies=[guide_permission_policy(f"{name}-data")],
        )

    def refuse(self, name: str) -> None:
        self.roles.delete(self.customer(name).role_arn)
        self.sessions = MemoryRoleSessions(self.roles)  # no session outlives it

    def produce(self, *days: str, data: bytes = b"1", marker: str = "m1") -> None:
        """A day of the feed becomes complete."""
        for day in days:
            period = Period.parse(day, PeriodKind.DAY)
            self.source.write(f"{day}/a.csv", data, period=period)
            self.source.set_state(period, complete=True, marker="" if self.settled else marker)

    def _account(self, name: str) -> str:
        return f"{100_000_000_000 + sorted(self.customers).index(name):012}"

    def customer(self, name: str) -> Customer:
        return Customer(
            name=name,
            company=name.title(),
            external_id=name.title(),
            role_arn=f"arn:aws:iam::{self._account(name)}:role/XMode",
            destination={"bucket": f"{name}-data", "prefix": "xmode/", "region": "us-east-1"},
            feeds=("us-daily",),
            **self.customers[name],
        )

    @property
    def configuration(self) -> Configuration:
        feed = Feed(
            name="us-daily",
            source="/data",
            period="day",
            partition="%Y/%m/%d",
            complete={"settle_seconds": 1} if self.settled else {"marker": "_SUCCESS"},
        )
        daemon = {"tick_seconds": 60, "workers": 4, "access_checks": None, **self.service}
        service = {"daemon": daemon, "cluster": self.cluster}
        return Configuration(
            service=Service(**service),
            feeds=MappingProxyType({"us-daily": feed}),
            customers=MappingProxyType(
                {name: self.customer(name) for name in self.customers if name not in self.problems}
            ),
            broken=MappingProxyType({name: (problem,) for name, problem in self.problems.items()}),
            problems=tuple(self.problems.values()),
        )

    # --- The daemon --------------------------------------------------------------------------------------

    def new_queue(self) -> WorkQueue:
        kind = SharedQueue if self.shared else LocalQueue
        return kind(self.clock, self.ledger.leases, self.ledger.daemons.serve)

    def start(self) -> Daemon:
        """A daemon of its own process; the one before is gone as if killed."""
        if self.daemon is not None:
            self.daemon.stop()
            assert self.daemon.drain(120)
            self.ledger.leases.release(self.lease)
        if self.shared:
            self.engage()
        else:
            self.fleet = self.new_queue()
        self.number += 1
        self.daemon, self.lease = self.new_daemon(f"process-{self.number}")
        if self.shared:
            self.daemon.attend()
        return self.daemon

    def new_daemon(self, holder: str) -> tuple[Daemon, Lease]:
        configuration = self.configuration
        lease = self.ledger.leases.claim(f"daemon/{holder}" if self.shared else "daemon", holder, 1e9)
        context = self.context(holder)

        def changed() -> None:
            self.changes += 1

        daemon = Daemon(
            context,
            MemoryProber(self.sessions, self.buckets),
            configuration,
            lambda: (self.configuration, ()),
            lease,
            self.fleet,
            alone=not self.shared,
            changed=changed,
        )
        return daemon, lease

    def reload(self) -> None:
        """The files have changed."""
        assert self.daemon is not None
        self.daemon.reload()
        if self.worker is not None:
            self.reload_worker()

    def engage(self) -> Worker:
        """A worker of its own process, in the place of the one before."""
        if self.worker is not None:
            self.worker.stop()
            assert self.worker.drain(120)
            self.worker.close()
        self.number += 1
        self.worker = self.new_worker(f"worker-{self.number}")
        return self.worker

    def reload_worker(self) -> None:
        assert self.worker is not None
        self.worker.reload(lambda: (self.configuration, ()))

    def new_worker(self, holder: str) -> Worker:
        configuration = self.configuration
        return Worker(self.context(holder), self.fleet, configuration, version="1.2.3")

    def context(self, holder: str) -> Context:
        world = self

        class Sessions:
            """Whatever the world's are by now."""

            def __getattr__(self, name: str) -> Any:
                return getattr(world.sessions, name)

        return Context(
            vendor=Vendor(),
            limits=Limits(),
            sources=lambda feed: self.source,
            sessions=Sessions(),  # type: ignore[arg-type]
            stores=MemoryObjectStores(self.buckets, self.roles),
            ledger=self.ledger,
            clock=self.clock,
            progress=_Silent(),  # type: ignore[arg-type]
            holder=holder,
            stop=threading.Event(),
        )

    def tick(self, *, after: float = 60.0) -> None:
        """Lets time pass, ticks, and waits until nothing runs any more."""
        assert self.daemon is not None
        self.clock.advance(after)
        if self.worker is not None:
            self.worker.attend()
            self.daemon.attend()
        self.daemon.tick()
        self.settle()

    def settle(self) -> None:
        """What runs calls for more: a check for a job, a job for a check."""
        assert self.daemon is not None
        for _ in range(3):
            self.daemon.attend()
            self.work()
            self.daemon.attend()
            assert self.daemon.drain(120)

    def work(self) -> None:
        """The worker takes what is queued, one after the other, until nothing is."""
        worker = self.worker
        if worker is None and self.daemon is not None:
            worker = self.daemon._worker
        while worker is not None and worker.takes_jobs:
            if all(entry.state is not JobState.QUEUED for entry in self.fleet.snapshot()):
                return
            self.step(worker)
            assert worker.drain(120)

    def step(self, worker: Worker) -> None:
        """The worker takes the job of whoever is first, of each queue."""
        slots, worker.slots = worker.slots, worker.busy + 1
        waiting_slots, worker.waiting_slots = worker.waiting_slots, worker.waiting + 1
        try:
            worker.fetch()
        finally:
            worker.slots, worker.waiting_slots = slots, waiting_slots

    def entry(self, name: str = "acme") -> QueueEntry:
        assert self.daemon is not None
        return next(entry for entry in self.daemon.jobs() if entry.customer == name)

    def lose_key(self) -> None:
        self.sessions = MemoryRoleSessions(self.roles, identity=None)

    def find_key(self) -> None:
        self.sessions = MemoryRoleSessions(self.roles, identity=VENDOR_PRINCIPAL)

    # --- What came of it ---------------------------------------------------------------------------------

    def delivered(self, name: str = "acme") -> list[str]:
        """The periods, in the order in which they were delivered."""
        found = self.ledger.deliveries.find(customer=name, statuses=[Status.DELIVERED])
        return [delivery.period for delivery in sorted(found, key=lambda one: (one.delivered_at, one.period))]

    def attempts(self, name: str, period: str) -> int:
        latest = self.ledger.deliveries.latest(name, "us-daily", period)
        return latest.attempts if latest else 0


@pytest.fixture(params=["threads", "fleet"])
def daemon_world(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Callable[..., DaemonWorld]]:
    """Worlds in which the daemon takes the jobs itself, and worlds in which a worker does. Tests of one of
    them say so by `indirect`."""
    made: list[DaemonWorld] = []

    def make(**how: Any) -> DaemonWorld:
        clock = MemoryClock()
        ledger = open_ledger(f"sqlite:///{tmp_path}/ledger.db", clock)
        made.append(DaemonWorld(ledger, clock, shared=request.param == "fleet", **how))
        return made[-1]

    yield make
    for world in made:
        if world.daemon is not None:
            world.daemon.stop()
            world.daemon.break_off()
            world.daemon.drain(120)
        if world.worker is not None:
            world.worker.break_off()
            world.worker.stop()
            world.worker.drain(120)
            world.worker.close()
        world.ledger.close()

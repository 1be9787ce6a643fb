"""The round of a fleet that lives in one process: for tests of those who call and take turns."""

import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Protocol

from xmode_transfer.domain import seats
from xmode_transfer.domain.errors import AlreadyRunning, LeaseLost
from xmode_transfer.domain.fleet import (
    QUIET_AFTER,
    Call,
    FleetTurn,
    FleetTurnEnd,
    Standing,
    Ticket,
    WorkerRecord,
)
from xmode_transfer.domain.records import Lease
from xmode_transfer.domain.schedule import Work
from xmode_transfer.domain.seats import REBASE_ABOVE, Seat
from xmode_transfer.ports import Clock

_REMEMBERED = timedelta(hours=1)


class Leases(Protocol):
    """Of the ledger, what the fleet needs."""

    def claim(self, name: str, holder: str, ttl_seconds: float) -> Lease: ...

    def renew(self, lease: Lease, ttl_seconds: float) -> Lease: ...

    def release(self, lease: Lease) -> None: ...

    def serve(self, customer: str, work: str, served_at: datetime) -> None: ...


class MemoryLeases:
    """Leases as the ledger keeps them. ``kill`` makes a holder one that is known to be dead."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._lock = threading.RLock()
        self._held: dict[str, Lease] = {}
        self._generations: dict[str, int] = {}
        self._dead: set[str] = set()
        self.visits: dict[tuple[str, str], datetime] = {}

    def kill(self, holder: str) -> None:
        self._dead.add(holder)

    def is_dead(self, holder: str) -> bool:
        return holder in self._dead

    def claim(self, name: str, holder: str, ttl_seconds: float) -> Lease:
        with self._lock:
            held = self._held.get(name)
            now = self._clock.now()
            if held is not None and held.expires_at > now and held.holder not in self._dead:
                raise AlreadyRunning(f"{name} is already being worked on, by {held.holder}.")
            generation = self._generations.get(name, 0) + 1
            self._generations[name] = generation
            lease = Lease(name, generation, holder, now + timedelta(seconds=ttl_seconds))
            self._held[name] = lease
            return lease

    def renew(self, lease: Lease, ttl_seconds: float) -> Lease:
        with self._lock:
            held = self._held.get(lease.name)
            if held is None or held.generation != lease.generation:
                raise LeaseLost(f"The lease on {lease.name} is no longer ours.")
            renewed = replace(lease, expires_at=self._clock.now() + timedelta(seconds=ttl_seconds))
            self._held[lease.name] = renewed
            return renewed

    def release(self, lease: Lease) -> None:
        with self._lock:
            held = self._held.get(lease.name)
            if held is not None and held.generation == lease.generation:
                del self._held[lease.name]

    def revoke_under(self, prefix: str, holder: str) -> None:
        """Takes the holder's leases whose names begin so from it."""
        with self._lock:
            for name, lease in list(self._held.items()):
                if name.startswith(prefix) and lease.holder == holder:
                    del self._held[name]
                    self._generations[name] += 1

    def serve(self, customer: str, work: str, served_at: datetime) -> None:
        self.visits[customer, work] = served_at


@dataclass(frozen=True, slots=True)
class Job:
    """What wakes a worker."""

    customer: str
    priority: int
    waiting: bool


class MemoryQueue:
    """The jobs of a fleet in memory. ``next`` is what a worker does: it takes the most urgent job out."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._jobs: dict[str, Job] = {}

    def put(self, job: Job) -> None:
        with self._lock:
            self._jobs.setdefault(job.customer, job)

    def take_out(self, customer: str) -> None:
        with self._lock:
            self._jobs.pop(customer, None)

    def next(self, *, waiting: bool = False) -> str | None:
        with self._lock:
            jobs = [job for job in self._jobs.values() if job.waiting is waiting]
            if not jobs:
                return None
            job = max(jobs, key=lambda job: job.priority)  # among equals the first
            del self._jobs[job.customer]
            return job.customer

    def job(self, customer: str) -> Job | None:
        with self._lock:
            return self._jobs.get(customer)


class MemoryFleet:
    """Passes the contract suite of the port ``Fleet``. ``leases`` is the ledger, where there is one; what a
    dead worker held of a customer besides its turn is taken from it only where ``leases`` is a
    ``MemoryLeases``."""

    def __init__(self, clock: Clock, queue: MemoryQueue | None = None, leases: Leases | None = None) -> None:
        self._clock = clock
        self.queue = queue or MemoryQueue()
        self.leases = leases or MemoryLeases(clock)
        self._lock = threading.RLock()
        self._seats: dict[str, Seat] = {}
        self._workers: dict[str, WorkerRecord] = {}
        self._serial = 0
        self._virtual = 0.0

    # --- Daemons

    def seat(self, weights: Mapping[str, int]) -> None:
        with self._lock:
            for name, seat in list(self._seats.items()):
                if name in weights:
                    self._seats[name] = seats.staying(seat, weights[name])
                elif not seat.is_running:
                    del self._seats[name]
                    self.queue.take_out(name)
                elif not seat.leaves:
                    self._seats[name] = seats.leaving(seat, self._next_serial())
            for name in sorted(weights.keys() - self._seats.keys()):
                self._seats[name] = seats.seated(name, weights[name], self._clock.now(), self._next_serial())

    def rest(self, turn: FleetTurn) -> None:
        with self._lock:
            seat = self._seats.get(turn.customer)
            if seat is not None:
                self._save(seat, seats.known(seat, turn, self._serial + 1))

    def call(self, name: str, *, hurried: bool = False, serving_at: datetime | None = None) -> None:
        self.call_all([Call(name, hurried, serving_at)])

    def call_all(self, calls: Iterable[Call]) -> None:
        with self._lock:
            for call in calls:
                seat = self._seats.get(call.customer)
                if seat is not None:
                    now, serial = self._clock.now(), self._serial + 1
                    self._save(seat, seats.called(seat, call, self._virtual, now, serial))

    def stop(self, name: str) -> None:
        with self._lock:
            seat = self._seats.get(name)
            if seat is not None:
                self._save(seat, seats.asked_to_stop(seat, self._serial + 1))

    def turns(self, after_serial: int = 0) -> list[FleetTurn]:
        with self._lock:
            found = [seat.turn for seat in self._seats.values() if seat.turn.serial > after_serial]
            return sorted(found, key=lambda turn: turn.serial)

    def reap(self) -> list[str]:
        with self._lock:
            taken = [name for name, seat in sorted(self._seats.items()) if self._take(seat)]
            if self._virtual > REBASE_ABOVE:
                for name, seat in self._seats.items():
                    self._seats[name] = seats.rebased(seat, self._virtual)
                    self.queue.take_out(name)
                self._virtual = 0.0
            for seat in sorted(self._seats.values(), key=lambda seat: seat.turn.serial):
                if seat.is_queued:
                    self._put(seat)  # where its job was lost
            return taken

    def _take(self, seat: Seat) -> bool:
        if not seat.is_running:
            return False
        holder = seat.turn.holder or ""
        try:
            self.leases.release(self.leases.claim(f"turn/{seat.customer}", "reaper", 60))
        except AlreadyRunning:
            return False
        if isinstance(self.leases, MemoryLeases):
            for kind in ("delivery", "chunk"):
                self.leases.revoke_under(f"{kind}/{seat.customer}/", holder)
        if seat.leaves:
            del self._seats[seat.customer]
        else:
            self._save(seat, seats.taken_over(seat, self._virtual, self._clock.now(), self._serial + 1))
        return True

    def workers(self) -> list[WorkerRecord]:
        with self._lock:
            since = self._clock.now() - _REMEMBERED
            found = [
                replace(worker, gone=self._is_gone(worker))
                for worker in self._workers.values()
                if worker.seen_at >= since
            ]
            return sorted(found, key=lambda worker: worker.seen_at, reverse=True)

    def _is_gone(self, worker: WorkerRecord) -> bool:
        silent = self._clock.now() - worker.seen_at >= QUIET_AFTER
        return silent and isinstance(self.leases, MemoryLeases) and self.leases.is_dead(worker.holder)

    # --- Workers

    def begin(self, name: str, holder: str, ttl_seconds: float) -> Ticket | None:
        with self._lock:
            seat = self._seats.get(name)
            if seat is None or not seat.is_queued:
                return None
            try:
                lease = self.leases.claim(f"turn/{name}", holder, ttl_seconds)
            except AlreadyRunning:
                return None
            self.queue.take_out(name)
            after, self._virtual = seats.begun(
                seat, self._virtual, self._clock.now(), self._serial + 1, holder, lease.generation
            )
            self._save(seat, after)
            return Ticket(name, lease, seat.hurried, seat.turn.ended_serial, seat.reread_at)

    def tell(self, ticket: Ticket, feed: str, period: str) -> None:
        with self._lock:
            seat = self._held(ticket)
            self._save(seat, seats.told(seat, self._serial + 1, feed, period))

    def end(self, ticket: Ticket, end: FleetTurnEnd) -> int:
        with self._lock:
            seat = self._held(ticket)
            if end.looked and seat.serving_at is not None:
                self.leases.serve(seat.customer, Work.DELIVER, seat.serving_at)
            self.leases.release(ticket.lease)
            after = seats.ended(seat, self._virtual, self._clock.now(), self._serial + 1, end)
            self._save(seat, after)
            if seat.leaves:
                del self._seats[seat.customer]
            return self._serial

    def _held(self, ticket: Ticket) -> Seat:
        seat = self._seats.get(ticket.customer)
        if seat is None or not seat.is_running or seat.generation != ticket.lease.generation:
            raise LeaseLost(f"The turn of {ticket.customer} was taken over.")
        self.leases.renew(ticket.lease, 60)
        return seat

    def beat(self, worker: WorkerRecord) -> Standing:
        with self._lock:
            now = self._clock.now()
            self._workers[worker.holder] = replace(worker, seen_at=now)
            return Standing(
                workers=sum(known.is_alive(now) for known in self._workers.values()),
                queued=sum(seat.is_queued and not seat.waiting for seat in self._seats.values()),
                to_stop=frozenset(
                    name
                    for name, seat in self._seats.items()
                    if seat.is_running and seat.turn.holder == worker.holder and seat.turn.stop_asked
                ),
            )

    # --- Both

    def _next_serial(self) -> int:
        self._serial += 1
        return self._serial

    def _save(self, before: Seat, after: Seat) -> None:
        self._serial = max(self._serial, after.turn.serial)
        self._seats[after.customer] = after
        if after.is_queued and not before.is_queued:
            self._put(after)

    def _put(self, seat: Seat) -> None:
        self.queue.put(Job(seat.customer, seat.priority, seat.waiting))

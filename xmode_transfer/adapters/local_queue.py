"""The work queue of one process: the port ``WorkQueue`` in memory, for a daemon that delivers itself.

What it knows is gone with the process; the next one finds what is due in the ledger. A customer's lease is
in the ledger all the same, so that a ``run`` beside the daemon never delivers to the same customer.
"""

import heapq
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Protocol

from xmode_transfer.domain import seats
from xmode_transfer.domain.errors import AlreadyRunning, LeaseLost
from xmode_transfer.domain.fleet import (
    Call,
    FleetTurn,
    FleetTurnEnd,
    Standing,
    Ticket,
    WorkerRecord,
    customer_lease,
)
from xmode_transfer.domain.records import Lease
from xmode_transfer.domain.schedule import Work
from xmode_transfer.domain.seats import REBASE_ABOVE, Seat
from xmode_transfer.ports import Clock

_REMEMBERED = timedelta(hours=1)
_BUSY_SECONDS = 5.0
"""A customer whose lease somebody else holds is tried again after this."""


class Leases(Protocol):
    """Of the ledger's leases, what the queue needs."""

    def claim(self, name: str, holder: str, ttl_seconds: float) -> Lease: ...

    def release(self, lease: Lease) -> None: ...


class LocalQueue:
    """Implements ``ports.WorkQueue``. Thread-safe; no method waits for the ledger with the lock held."""

    def __init__(self, clock: Clock, leases: Leases, serve: Callable[[str, str, datetime], None]) -> None:
        """``serve`` is the ledger's ``daemons.serve``."""
        self._clock = clock
        self._leases = leases
        self._serve = serve
        self._lock = threading.RLock()
        self._beginning = threading.Lock()  # one turn begins after the other
        self._seats: dict[str, Seat] = {}
        self._workers: dict[str, WorkerRecord] = {}
        self._serial = 0
        self._clock_of_turns = 0.0
        self._entries = 0
        self._entered: dict[str, int] = {}  # by customer, the number of its entry that counts
        self._heaps: dict[bool, list[tuple[int, int, str]]] = {False: [], True: []}  # by ``waiting``
        self._busy: dict[str, float] = {}  # until when a customer is not tried, in monotonic seconds

    # --- Daemons

    def seat(self, weights: Mapping[str, int]) -> None:
        with self._lock:
            for name, seat in list(self._seats.items()):
                if name in weights:
                    self._seats[name] = seats.staying(seat, weights[name])
                elif not seat.is_running:
                    self._remove(name)
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
                    self._save(seat, seats.called(seat, call, self._clock_of_turns, now, serial))

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
        """What this process has begun, it ends itself."""
        return []

    def workers(self) -> list[WorkerRecord]:
        with self._lock:
            since = self._clock.now() - _REMEMBERED
            found = [worker for worker in self._workers.values() if worker.seen_at >= since]
        return sorted(found, key=lambda worker: worker.seen_at, reverse=True)

    # --- Workers

    def next(self, holder: str, ttl_seconds: float, *, waiting: bool) -> Ticket | None:
        with self._beginning:
            while True:
                with self._lock:
                    name = self._first(waiting=waiting)
                if name is None:
                    return None
                ticket = self._begin(name, holder, ttl_seconds)
                if ticket is not None:
                    return ticket

    def _begin(self, name: str, holder: str, ttl_seconds: float) -> Ticket | None:
        with self._lock:
            seat = self._seats.get(name)
            if seat is None or not seat.is_queued:
                return None
        try:
            lease = self._leases.claim(customer_lease(name), holder, ttl_seconds)
        except AlreadyRunning:
            with self._lock:
                self._busy[name] = self._clock.monotonic() + _BUSY_SECONDS
            return None
        with self._lock:
            seat = self._seats.get(name)
            if seat is not None and seat.is_queued:
                self._busy.pop(name, None)
                now = self._clock.now()
                after, self._clock_of_turns = seats.begun(
                    seat, self._clock_of_turns, now, self._serial + 1, holder, lease.generation
                )
                self._save(seat, after)
                return Ticket(name, lease, seat.hurried, seat.turn.ended_serial, seat.reread_at)
        self._leases.release(lease)  # it was taken out of the queue meanwhile
        return None

    def tell(self, ticket: Ticket, feed: str, period: str) -> None:
        with self._lock:
            seat = self._held(ticket)
            self._save(seat, seats.told(seat, self._serial + 1, feed, period))

    def end(self, ticket: Ticket, end: FleetTurnEnd) -> int:
        with self._lock:
            seat = self._held(ticket)
        if end.looked and seat.serving_at is not None:
            self._serve(seat.customer, Work.DELIVER, seat.serving_at)
        self._leases.release(ticket.lease)
        with self._lock:
            seat = self._held(ticket)
            now, serial = self._clock.now(), self._next_serial()
            self._save(seat, seats.ended(seat, self._clock_of_turns, now, serial, end))
            if seat.leaves:
                self._remove(seat.customer)
            if self._clock_of_turns > REBASE_ABOVE:
                self._put_clock_back()
            return serial

    def _held(self, ticket: Ticket) -> Seat:
        seat = self._seats.get(ticket.customer)
        if seat is None or not seat.is_running or seat.generation != ticket.lease.generation:
            raise LeaseLost(f"The turn of {ticket.customer} was taken over.")
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

    # --- With the lock held

    def _next_serial(self) -> int:
        self._serial += 1
        return self._serial

    def _save(self, before: Seat, after: Seat) -> None:
        self._serial = max(self._serial, after.turn.serial)
        self._seats[after.customer] = after
        if after.is_queued and not before.is_queued:
            self._enter(after)

    def _enter(self, seat: Seat) -> None:
        self._entries += 1
        self._entered[seat.customer] = self._entries
        heapq.heappush(self._heaps[seat.waiting], (-seat.priority, self._entries, seat.customer))

    def _remove(self, name: str) -> None:
        del self._seats[name]
        self._entered.pop(name, None)
        self._busy.pop(name, None)

    def _first(self, *, waiting: bool) -> str | None:
        """The customer whose turn it is; it stays in the queue. Entries that count no more are removed."""
        heap, passed, found = self._heaps[waiting], [], None
        while heap and found is None:
            _, entry, name = heap[0]
            seat = self._seats.get(name)
            if seat is None or not seat.is_queued or self._entered.get(name) != entry:
                heapq.heappop(heap)
            elif self._busy.get(name, 0.0) > self._clock.monotonic():
                passed.append(heapq.heappop(heap))
            else:
                found = name
        for item in passed:
            heapq.heappush(heap, item)
        return found

    def _put_clock_back(self) -> None:
        clock, self._clock_of_turns = self._clock_of_turns, 0.0
        self._heaps = {False: [], True: []}
        for seat in sorted(self._seats.values(), key=lambda seat: self._entered.get(seat.customer, 0)):
            after = self._seats[seat.customer] = seats.rebased(seat, clock)
            if after.is_queued:
                self._enter(after)

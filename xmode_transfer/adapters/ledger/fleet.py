"""The round of the fleet in an SQL database: the port ``WorkQueue``, method by method.

What a call, a turn or a take-over makes of a seat is decided in ``domain.seats``; here it is read and written
in one transaction, together with the job that wakes a worker.
"""

from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Protocol

from sqlalchemy import Connection

from xmode_transfer.adapters import processes
from xmode_transfer.adapters.ledger import daemons, leases, turns, workers
from xmode_transfer.adapters.ledger.database import Database
from xmode_transfer.adapters.ledger.turns import Round
from xmode_transfer.adapters.ledger.writer import GroupCommit
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
    customer_lease,
)
from xmode_transfer.domain.schedule import Work
from xmode_transfer.domain.seats import REBASE_ABOVE, Seat

if TYPE_CHECKING:
    from xmode_transfer.ports import Clock

SWEEP_SECONDS = 15.0
"""So often the fleet looks for jobs that were lost, however many processes would do it."""
SETTLING_SECONDS = 20.0
"""After a server was away, its clients are given so long to renew their leases."""
_CALLS = 100
"""Calls to a transaction: while it lasts, no other turn begins or ends."""


class Queue(Protocol):
    """The queue of the database, which wakes a worker for each customer that is queued. Each method works in
    the transaction of the connection that it is handed, and leaves it open. It raises what the driver does.
    """

    def put(self, connection: Connection, customer: str, *, priority: int, waiting: bool) -> None:
        """Adds a job for the customer, in the queue of the regular turns or in that of those that may not
        get on; a higher priority goes first. Does nothing when a job of the customer is queued already."""
        ...

    def take(self, connection: Connection, *, waiting: bool) -> str | None:
        """Takes the most urgent job out of the queue; its customer."""
        ...

    def take_out(self, connection: Connection, customer: str) -> None:
        """Removes the customer's job that is queued, if there is one."""
        ...

    def lost(self, connection: Connection, customers: Sequence[str]) -> list[str]:
        """Of these queued customers, those that have no job that is queued."""
        ...


class SqlFleet:
    """Passes the contract suite of the port ``WorkQueue``; ``Ledger.fleet`` makes it."""

    def __init__(
        self,
        database: Database,
        writer: GroupCommit,
        clock: "Clock",
        queue: Queue,
        *,
        sweep_seconds: float = SWEEP_SECONDS,
    ) -> None:
        self._database = database
        self._writer = writer
        self._clock = clock
        self._queue = queue
        self._sweep_every = timedelta(seconds=sweep_seconds)
        self._life: str | None = None
        self._life_since = 0.0

    # --- Daemons

    def seat(self, weights: Mapping[str, int]) -> None:
        wanted = dict(weights)

        def action(connection: Connection) -> None:
            with self._changing(connection) as table:
                known = table.seats()
                for name in sorted(known.keys() - wanted.keys()):
                    self._unseat(table, known[name])
                for name in sorted(known.keys() & wanted.keys()):
                    seat, weight = known[name], wanted[name]
                    if seat.leaves or seat.weight != weight:
                        table.save(seats.staying(seat, weight))
                table.add(
                    [
                        seats.seated(name, wanted[name], table.now, table.next_serial())
                        for name in sorted(wanted.keys() - known.keys())
                    ]
                )

        if self._database.read(turns.weights) != wanted:
            self._writer.call(action, alone=True)

    def _unseat(self, table: Round, seat: Seat) -> None:
        if seat.is_running:
            if not seat.leaves:
                table.save(seats.leaving(seat, table.next_serial()))
            return
        table.remove(seat.customer)
        if seat.is_queued:
            self._queue.take_out(table.connection, seat.customer)

    def rest(self, turn: FleetTurn) -> None:
        def action(connection: Connection) -> None:
            with self._changing(connection) as table:
                seat = table.seat(turn.customer)
                if seat is not None:
                    self._save(table, seat, seats.known(seat, turn, table.serial + 1))

        seat = self._database.read(lambda c: turns.seat_of(c, turn.customer))
        if seat is not None and seats.known(seat, turn, seat.turn.serial) != seat:
            self._writer.call(action, alone=True)

    def call(self, name: str, *, hurried: bool = False, serving_at: datetime | None = None) -> None:
        self.call_all([Call(name, hurried, serving_at)])

    def call_all(self, calls: Iterable[Call]) -> None:
        waiting = list(calls)
        for start in range(0, len(waiting), _CALLS):
            self._call(waiting[start : start + _CALLS])

    def _call(self, calls: Sequence[Call]) -> None:
        def action(connection: Connection) -> None:
            with self._changing(connection) as table:
                known = turns.seats_of(connection, names)
                for call in wanted:
                    if (seat := known.get(call.customer)) is not None:
                        after = seats.called(seat, call, table.clock, table.now, table.serial + 1)
                        self._save(table, seat, after)
                        known[call.customer] = after

        named = [call.customer for call in calls]
        seen = self._database.read(lambda c: turns.seats_of(c, named))
        # Most calls find the customer queued, by another daemon too: they cost a look.
        wanted = [
            call
            for call in calls
            if (seat := seen.get(call.customer)) is not None and not seats.is_called(seat, call)
        ]
        names = [call.customer for call in wanted]
        if wanted:
            self._writer.call(action, alone=True)

    def stop(self, name: str) -> None:
        def action(connection: Connection) -> None:
            with self._changing(connection) as table:
                seat = table.seat(name)
                if seat is not None:
                    self._save(table, seat, seats.asked_to_stop(seat, table.serial + 1))

        self._writer.call(action, alone=True)

    def turns(self, after_serial: int = 0) -> list[FleetTurn]:
        return self._database.read(lambda c: turns.changed(c, after_serial))

    def reap(self) -> list[str]:
        life = self._young_life()
        found = self._database.read(
            lambda c: turns.sweep(c, self._database, self._clock, self._sweep_every, life)
        )
        if not found.abandoned and not found.is_due:
            return []

        def action(connection: Connection) -> list[str]:
            with self._changing(connection) as table:
                taken = [name for name, turn in found.abandoned if self._take(table, name, turn, life)]
                if table.is_sweep_due(self._sweep_every):  # no other process was quicker
                    self._sweep(table)
                return taken

        return self._writer.call(action, alone=True)

    def _sweep(self, table: Round) -> None:
        table.note_sweep()
        workers.forget(table.connection, table.now)
        lost = self._queue.lost(table.connection, turns.queued(table.connection))
        for seat in turns.seats_of(table.connection, lost).values():
            self._put_anew(table, seat)
        if table.clock > REBASE_ABOVE:
            for seat in table.put_clock_back():
                self._put_anew(table, seat)

    def _young_life(self) -> str | None:
        """The mark of the server's life, for as long as this process has not known it for long: the server
        was restarted, or another took its place, and those that it was away for have yet to renew their
        leases."""
        life, now = self._database.presence(processes.this_process()), self._clock.monotonic()
        if life != self._life:
            self._life, self._life_since = life, now
        return life if now - self._life_since < SETTLING_SECONDS else None

    def _take(self, table: Round, name: str, generation: int, life: str | None) -> bool:
        """Takes the turn over, if it is still as it was when it was looked at."""
        found = turns.abandoned(table.connection, self._database, table.now, life, name)
        seat = table.seat(name)
        if seat is None or found != [(name, generation)]:
            return False
        holder = seat.turn.holder or ""
        leases.revoke(table.connection, customer_lease(name), holder)
        leases.revoke_under(table.connection, f"delivery/{name}/", holder)
        self._queue.take_out(table.connection, name)
        if seat.leaves:
            table.remove(name)
        else:
            self._save(table, seat, seats.taken_over(seat, table.clock, table.now, table.serial + 1))
        return True

    def workers(self) -> list[WorkerRecord]:
        def action(connection: Connection) -> list[WorkerRecord]:
            now = self._database.now(connection, self._clock)
            return [
                replace(worker, gone=self._is_gone(connection, worker, now))
                for worker in workers.newest(connection, now)
            ]

        return self._database.read(action)

    def _is_gone(self, connection: Connection, worker: WorkerRecord, now: datetime) -> bool:
        if worker.stopped_at is not None or now - worker.seen_at < QUIET_AFTER:
            return False
        return leases.is_left_behind(connection, self._database, f"worker/{worker.holder}")

    # --- Workers

    def next(self, holder: str, ttl_seconds: float, *, waiting: bool) -> Ticket | None:
        begun: list[Ticket] = []  # what an attempt wrote whose commit was not answered

        def action(connection: Connection) -> Ticket | None:
            with self._changing(connection) as table:
                for written in begun:
                    if self._running(table, written) is not None:
                        return written
                while (name := self._queue.take(connection, waiting=waiting)) is not None:
                    ticket = self._begin(table, name, holder, presence, ttl_seconds)
                    if ticket is not None:
                        begun.append(ticket)
                        return ticket
                return None

        # Most look in vain, and must not hold up those who change something.
        if not self._database.read(lambda c: turns.count_queued(c, waiting=waiting)):
            return None
        presence = self._database.presence(holder)
        return self._writer.call(action, alone=True)

    def _begin(
        self, table: Round, name: str, holder: str, presence: str | None, ttl_seconds: float
    ) -> Ticket | None:
        seat = table.seat(name)
        if seat is None or not seat.is_queued:
            return None
        try:
            lease = leases.claim(
                table.connection,
                self._database,
                customer_lease(name),
                holder,
                presence,
                self._clock,
                ttl_seconds,
            )
        except AlreadyRunning:
            return None  # a `run` has it: the job counts as lost, and comes again
        after, table.clock = seats.begun(
            seat, table.clock, table.now, table.next_serial(), holder, lease.generation
        )
        table.save(after)
        return Ticket(name, lease, seat.hurried, seat.turn.ended_serial, seat.reread_at)

    def tell(self, ticket: Ticket, feed: str, period: str) -> None:
        def action(connection: Connection) -> None:
            with self._changing(connection) as table:
                seat = self._held(table, ticket)
                table.save(seats.told(seat, table.next_serial(), feed, period))

        self._writer.call(action, alone=True)

    def end(self, ticket: Ticket, end: FleetTurnEnd) -> int:
        ended: list[int] = []  # the serial of an attempt whose commit was not answered

        def action(connection: Connection) -> int:
            with self._changing(connection) as table:
                known = table.seat(ticket.customer)
                for serial in ended:
                    if known is None or known.turn.ended_serial == serial:
                        return serial
                seat = self._held(table, ticket)
                if end.looked and seat.serving_at is not None:
                    daemons.serve(connection, self._database, seat.customer, Work.DELIVER, seat.serving_at)
                leases.release(connection, ticket.lease)
                serial = table.next_serial()
                ended.append(serial)
                after = seats.ended(seat, table.clock, table.now, serial, end)
                if seat.leaves:
                    table.remove(seat.customer)
                else:
                    self._save(table, seat, after)
                return serial

        return self._writer.call(action, alone=True)

    def _held(self, table: Round, ticket: Ticket) -> Seat:
        """The seat whose turn the ticket stands for. Raises LeaseLost."""
        leases.check(table.connection, ticket.lease)
        seat = self._running(table, ticket)
        if seat is None:
            raise LeaseLost(
                f"The ledger does not know of the turn of {ticket.customer} that is to end.",
                hint="Nothing was written. The ledger was restored from a backup while the turn ran; the "
                "customer's next turn finds what was delivered.",
            )
        return seat

    def _running(self, table: Round, ticket: Ticket) -> Seat | None:
        """The seat, if the ticket's turn is the one that it has begun."""
        seat = table.seat(ticket.customer)
        if seat is None or not seat.is_running or seat.generation != ticket.lease.generation:
            return None
        return seat

    def beat(self, worker: WorkerRecord) -> Standing:
        def action(connection: Connection) -> Standing:
            now = self._database.now(connection, self._clock)
            workers.note(connection, self._database, worker, now)
            return Standing(
                workers=workers.count_alive(connection, now),
                queued=turns.count_queued(connection, waiting=False),
                to_stop=turns.stopped(connection, worker.holder),
            )

        return self._writer.call(action, alone=True)

    # --- Both

    def _save(self, table: Round, before: Seat, after: Seat) -> None:
        """Stores what changed; a customer that comes into the queue gets its job. A change that others may
        see has used the next serial."""
        if after == before:
            return
        table.serial = max(table.serial, after.turn.serial)
        table.save(after)
        if after.is_queued and not before.is_queued:
            self._put(table, after)

    def _put(self, table: Round, seat: Seat) -> None:
        self._queue.put(table.connection, seat.customer, priority=seat.priority, waiting=seat.waiting)

    def _put_anew(self, table: Round, seat: Seat) -> None:
        self._queue.take_out(table.connection, seat.customer)
        self._put(table, seat)

    def _changing(self, connection: Connection) -> AbstractContextManager[Round]:
        return turns.changing(connection, self._database, self._clock)

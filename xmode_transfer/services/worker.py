"""A worker of a fleet: it takes the turns of customers that the queue of the database gives it.

It knows no queue. ``entrypoints/worker`` calls ``take`` for each job, ``attend`` about once a second, and the
rest when a signal or a changed file asks for it.
"""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime

from xmode_transfer import telemetry
from xmode_transfer.domain.config import Configuration
from xmode_transfer.domain.config.reload import is_moved
from xmode_transfer.domain.errors import LeaseLost, LedgerError, XmodeError
from xmode_transfer.domain.fairness import STALLED_SECONDS, WAITING_PLACES
from xmode_transfer.domain.fleet import FleetTurnEnd, Standing, Ticket, WorkerRecord
from xmode_transfer.domain.records import Failure
from xmode_transfer.ports import Fleet
from xmode_transfer.services.daemon.fleet import REAP_SECONDS, tell_of_taking_over
from xmode_transfer.services.daemon.in_use import InUse, Read, read_again
from xmode_transfer.services.daemon.outages import is_held, makes_up
from xmode_transfer.services.daemon.running import Room, RunningTurn, Taken, taken
from xmode_transfer.services.daemon.trouble import Trouble
from xmode_transfer.services.daemon.turns import TurnEnd, Turns
from xmode_transfer.services.leasing import TTL_SECONDS, kept
from xmode_transfer.services.workbench import Workbench
from xmode_transfer.telemetry import Event

BEAT_SECONDS = 5.0
_MEND_SECONDS = 5.0
_MOST_WAITING = 256
"""Turns of either kind that may wait for destinations that do not answer: each has a thread."""
_REMEMBERED = 1000
"""Customers of whom this worker remembers what was due, should their next turn come to it again."""


class Worker:
    """``take`` never waits and may be called from an event loop; so may the properties and ``stop``. What
    else there is may wait for the ledger: ``attend``, ``reload``, ``wait`` and ``close`` are called by one
    thread, which is no event loop's."""

    def __init__(
        self,
        bench: Workbench,
        fleet: Fleet,
        configuration: Configuration,
        read: Read,
        *,
        places: int | None = None,
        version: str = "",
        stands: Callable[[Standing], None] = lambda _: None,
    ) -> None:
        """``read`` reads the files anew, as for ``Daemon``. ``places`` goes before ``cluster.places``.
        ``stands`` is called with what each sign of life was answered, by the thread that attends. Gives the
        first sign of life; raises LedgerError when the ledger does not take it."""
        self._bench = bench
        self._fleet = fleet
        self._read = read
        self._stands = stands
        self._version = version
        settings = configuration.service
        self.places = places or settings.cluster.places or settings.daemon.workers
        """Turns at once from the queue of those who get on: the concurrency for jobs that are not
        ``waiting``."""
        self.waiting_places = min(_MOST_WAITING, max(1, WAITING_PLACES * self.places // 2))
        """The same for the queue of those who are broken off. The worker has room for as many again that
        began in a regular place and make no progress."""
        now = bench.clock.now()
        self._started_at = now
        self._in_use = InUse.of(configuration, now, configuration.problems)
        self._turns = Turns(bench, lambda: self._in_use.configuration)
        self._trouble = Trouble(bench, began=lambda: None, ended=self._end_late)
        self._threads = ThreadPoolExecutor(self.places + 2 * self.waiting_places, thread_name_prefix="turn")
        self._lock = threading.Condition()
        self._taken: set[Taken] = set()
        self._ended: dict[str, int] = {}  # by customer, the serial at which its last turn here ended
        self._moved: set[str] = set()
        self._late: list[tuple[Ticket, TurnEnd]] = []  # ends that the ledger did not take
        self._stopping = False
        self._standing = Standing(1, 0)
        self._beaten = self._reaped = self._mended = bench.clock.monotonic()
        self._beat()

    # --- Turns -------------------------------------------------------------------------------------------

    def take(self, name: str, *, waiting: bool, freed: Callable[[], None]) -> None:
        """Takes the customer's turn on a thread of the worker's own, if the fleet still gives it to us.
        Returns at once, and raises nothing. ``freed`` is called exactly once, by any thread, when the place
        is free again: the turn is over, or there was none to take, or it makes no progress and goes on in
        the waiting room. Then the job is done, whatever came of the turn: that stands in the ledger. It must
        not raise. ``waiting`` says from which queue the job came."""
        taken = Taken(name, Room.BROKEN_OFF if waiting else Room.REGULAR, freed)
        with self._lock:
            if self.takes_turns:
                self._taken.add(taken)
                self._threads.submit(self._run, taken)
                return
        freed()

    @property
    def takes_turns(self) -> bool:
        """Whether jobs are to be fetched. Not after ``stop``, and not while something of ours (``trouble``)
        would meet every customer: a job that is given to ``take`` then is done without a turn, and the
        customer is queued again by whoever reaps."""
        return not self._stopping and self._trouble.now is None

    @property
    def trouble(self) -> Failure | None:
        """What of ours keeps this worker from taking turns."""
        return self._trouble.now

    @property
    def busy(self) -> int:
        """How many regular places are taken."""
        return self._count(Room.REGULAR)

    @property
    def waiting(self) -> int:
        """How many turns run besides: of broken off customers, and those that make no progress."""
        return self._count(Room.BROKEN_OFF, Room.STALLED)

    def _count(self, *rooms: Room) -> int:
        with self._lock:
            return sum(taken.room in rooms for taken in self._taken)

    def _run(self, taken: Taken) -> None:
        try:
            self._turn(taken)
        except XmodeError as error:  # the ledger or our identity, outside a turn: the job was in vain
            self._trouble.found(error)
        except Exception:  # noqa: BLE001 - a defect ends this turn, not the worker
            telemetry.exception(Event.DEFECT, customer=taken.customer)
        finally:
            with self._lock:
                self._taken.discard(taken)
                self._lock.notify_all()
                is_free = taken.room is Room.STALLED
            if not is_free:
                taken.freed()

    def _turn(self, taken: Taken) -> None:
        name = taken.customer
        ticket = self._fleet.begin(name, self._bench.holder, TTL_SECONDS)
        if ticket is None:
            return
        turn = self._begin(taken, ticket)
        with kept(self._bench.ledger, ticket.lease, lost=turn.stop.set):
            end = self._come_to(ticket, turn)
        try:
            self._end(ticket, end)
        except LedgerError as error:
            with self._lock:
                self._late.append((ticket, end))
            self._trouble.found(error)

    def _begin(self, taken: Taken, ticket: Ticket) -> RunningTurn:
        """Prepares the turn, so that it begins with what is right: what this worker knows of the customer, if
        it took the last turn itself, else what the ticket says."""
        name = ticket.customer
        turn = RunningTurn.beginning(self._bench)
        with self._lock:
            followed = self._ended.pop(name, None)
            moved = name in self._moved
            self._moved.discard(name)
            for other in self._taken:
                if other.customer == name and other.turn is not None:
                    other.turn.stop.set()  # frozen for so long that the turn was taken from it
            taken.turn = turn
            if self._bench.stop.is_set():
                turn.stop.set()  # asked to break off between the job and its turn
        if (
            followed is None
            or followed != ticket.follows
            or ticket.hurried
            or not makes_up(self.configuration, name)
        ):
            self._turns.look_anew(name, None if moved else ticket.reread_at)
        if ticket.hurried:
            self._turns.hurry(name)
        return turn

    def _come_to(self, ticket: Ticket, turn: RunningTurn) -> TurnEnd:
        name = ticket.customer

        def take() -> TurnEnd:
            if is_held(self._bench, self.configuration, name):
                telemetry.log(Event.TURN_HELD, customer=name)
                return TurnEnd(next_at=self._bench.clock.now())
            return self._turns.take(
                name, turn.stop, turn.watched, lambda *what: self._fleet.tell(ticket, *what)
            )

        return taken(name, take, self._bench, self._trouble.found)

    def _end(self, ticket: Ticket, end: TurnEnd) -> None:
        name = ticket.customer
        try:
            serial = self._fleet.end(
                ticket,
                FleetTurnEnd(
                    again=end.again,
                    looked=end.looked,
                    next_at=end.next_at,
                    feed=end.feed,
                    period=end.period,
                    reason=end.reason,
                    refused=end.refused,
                    backfill=end.backfill,
                    reread_at=self._turns.reread_at(name),
                ),
            )
        except LeaseLost:  # whoever took it over goes on
            telemetry.log(Event.LEASE_LOST, lease=ticket.lease.name)
            return
        forgotten: list[str] = []
        with self._lock:
            if sum(taken.customer == name for taken in self._taken) > 1:
                forgotten.append(name)  # a thread that lost its turn still runs: what it knows is old
            else:
                self._ended[name] = serial
            while len(self._ended) > _REMEMBERED:
                forgotten.append(next(iter(self._ended)))
                del self._ended[forgotten[-1]]
        for old in forgotten:
            self._turns.forget(old)

    def _end_late(self) -> None:
        """The ledger is back: it is told what it was not able to take."""
        with self._lock:
            late, self._late = self._late, []
        while late:
            try:
                self._end(*late[-1])
            except LedgerError as error:
                with self._lock:
                    self._late += late
                self._trouble.found(error)
                return
            late.pop()

    # --- All the time ------------------------------------------------------------------------------------

    def attend(self) -> None:
        """About once a second, also while it stops. Frees the places of turns that make no progress; stops
        turns that have had enough, where others are queued, and those that the fleet wants stopped; gives a
        sign of life and reaps every few seconds; tries whether its trouble is over. Raises nothing."""
        now = self._bench.clock.monotonic()
        self._make_room(now)
        try:
            if now - self._mended >= _MEND_SECONDS:
                self._mended = now
                self._trouble.mend()
            if now - self._beaten >= BEAT_SECONDS:
                self._beaten = now
                self._beat()
            if now - self._reaped >= REAP_SECONDS:
                self._reaped = now
                tell_of_taking_over(self._fleet.reap())
        except XmodeError as error:
            self._trouble.found(error)

    def _make_room(self, now: float) -> None:
        settings = self._in_use.configuration.service
        freed: list[Taken] = []
        with self._lock:
            stalled = sum(taken.room is Room.STALLED for taken in self._taken)
            for taken in self._taken:
                turn = taken.turn
                if turn is None:
                    continue
                if (
                    taken.room is Room.REGULAR
                    and now - turn.watched.moved_at > STALLED_SECONDS
                    and stalled < self.waiting_places
                ):
                    taken.room = Room.STALLED
                    stalled += 1
                    freed.append(taken)
                elif self._standing.queued > 0 and (
                    now - turn.began_at > settings.daemon.turn_seconds
                    or turn.watched.sent_bytes >= settings.cluster.turn_bytes
                ):
                    turn.stop.set()
        for taken in freed:
            telemetry.debug(Event.TURN_STALLED, customer=taken.customer)
            taken.freed()

    def _beat(self, stopped_at: datetime | None = None) -> None:
        trouble = self._trouble.now
        self._standing = standing = self._fleet.beat(
            WorkerRecord(
                holder=self._bench.holder,
                started_at=self._started_at,
                seen_at=self._bench.clock.now(),
                places=self.places,
                busy=self.busy,
                waiting=self.waiting,
                stopping=self._stopping,
                stopped_at=stopped_at,
                version=self._version,
                trouble=trouble.message if trouble is not None else "",
            )
        )
        with self._lock:
            for taken in self._taken:
                if taken.turn is not None and taken.customer in standing.to_stop:
                    taken.turn.stop.set()
        self._stands(standing)

    def reload(self) -> None:
        """Reads the files again and takes over what is in order; what runs for a customer that was moved
        stops where it can be resumed. Raises nothing. To try those who are broken off is the daemon's
        part."""
        before = self._in_use
        self._in_use = read_again(before, self._read, self._bench.clock.now())
        old, new = before.configuration, self._in_use.configuration
        moved = {name for name in old.customers if is_moved(old, new, name)}
        with self._lock:
            self._moved |= moved
            for name in moved:
                self._ended.pop(name, None)
            for taken in self._taken:
                if taken.customer in moved and taken.turn is not None:
                    taken.turn.stop.set()

    @property
    def configuration(self) -> Configuration:
        """What is in use now."""
        return self._in_use.configuration

    # --- The end: stop, wait (drain_seconds), break_off and wait again where that was not enough, close ---

    def stop(self) -> None:
        """No turn begins any more; what runs goes on. From any thread."""
        self._stopping = True

    def wait(self, seconds: float) -> bool:
        """Waits for the turns that run, and attends to them meanwhile; whether all have ended."""
        while True:
            with self._lock:
                if self._lock.wait_for(lambda: not self._taken, max(0.0, min(seconds, 1.0))):
                    return True
            seconds -= 1.0
            if seconds <= 0:
                return False
            began = self._bench.clock.monotonic()
            self.attend()
            seconds -= self._bench.clock.monotonic() - began  # it may have waited for the ledger

    def break_off(self) -> None:
        """Stops what still runs where it can be resumed. Does not wait for it."""
        self._bench.stop.set()
        with self._lock:
            for taken in self._taken:
                if taken.turn is not None:
                    taken.turn.stop.set()

    def close(self) -> None:
        """Notes the end in the ledger. A worker whose ledger is gone ends all the same: raises nothing."""
        self._stopping = True
        self._threads.shutdown(wait=False, cancel_futures=True)
        try:
            self._end_late()
            self._beat(stopped_at=self._bench.clock.now())
        except XmodeError as error:
            telemetry.warn(Event.END_NOT_NOTED, **error.log_context())

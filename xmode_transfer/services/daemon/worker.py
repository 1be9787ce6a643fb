"""A worker: it takes the turns of customers from a work queue, as many at once as it has places.

A daemon that delivers itself has one, over the queue of its own process; in a fleet any number work over the
queue in the database. A thread of the worker's own fetches; whoever runs the process calls ``attend`` about
once a second, and the rest when a signal or a changed file asks for it.
"""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime

from xmode_transfer import telemetry
from xmode_transfer.domain.config import Configuration
from xmode_transfer.domain.config.whole import is_moved
from xmode_transfer.domain.errors import LeaseLost, LedgerError, XmodeError
from xmode_transfer.domain.fleet import FleetTurnEnd, Standing, Ticket, WorkerRecord
from xmode_transfer.domain.records import Failure
from xmode_transfer.ports import WorkQueue
from xmode_transfer.services.daemon.dispatch import REAP_SECONDS, tell_of_taking_over
from xmode_transfer.services.daemon.in_use import InUse, Read, read_again
from xmode_transfer.services.daemon.outages import is_held, makes_up
from xmode_transfer.services.daemon.running import Room, RunningTurn, Taken, taken
from xmode_transfer.services.daemon.trouble import Trouble
from xmode_transfer.services.daemon.turns import TurnEnd, Turns
from xmode_transfer.services.leasing import TTL_SECONDS, kept
from xmode_transfer.services.workbench import Workbench
from xmode_transfer.telemetry import Event

BEAT_SECONDS = 5.0
POLL_SECONDS = 1.0
"""Customers that others queue are found within this; after a turn the next one is fetched at once."""
STALLED_SECONDS = 5.0
"""A turn that has made no progress for so long is stalled: a destination that does not answer must not keep a
place from those who would."""
WAITING_PLACES = 4
"""Places for customers that are broken off, and as many again for stalled turns, for each regular one."""
_MEND_SECONDS = 5.0
_MOST_WAITING = 256
"""Turns of either kind that may wait for destinations that do not answer: each has a thread."""
_REMEMBERED = 1000
"""Customers of whom this worker remembers what was due, should their next turn come to it again."""


class Worker:
    """The properties, ``wake`` and ``stop`` may be called by any thread. What else there is may wait for the
    ledger, and is called by one."""

    def __init__(
        self,
        bench: Workbench,
        queue: WorkQueue,
        configuration: Configuration,
        *,
        places: int | None = None,
        version: str = "",
        stands: Callable[[Standing], None] = lambda _: None,
        trouble: Trouble | None = None,
    ) -> None:
        """``places`` goes before ``cluster.places``. ``stands`` is called with what each sign of life was
        answered, by the thread that attends. ``trouble`` is the process's own, where a daemon has one. Gives
        the first sign of life; raises LedgerError when the ledger does not take it."""
        self._bench = bench
        self._queue = queue
        self._stands = stands
        self._version = version
        settings = configuration.service
        self.places = places or settings.cluster.places or settings.daemon.workers
        """Turns at once of those who get on."""
        self.waiting_places = min(_MOST_WAITING, WAITING_PLACES * self.places)
        """The same for those who are broken off. The worker has room for as many again that began in a
        regular place and make no progress."""
        now = bench.clock.now()
        self._started_at = now
        self._in_use = InUse.of(configuration, now, configuration.problems)
        self._turns = Turns(bench, lambda: self._in_use.configuration)
        self._trouble = trouble or Trouble(bench)
        self._trouble.ended.append(self._end_late)
        self._threads = ThreadPoolExecutor(self.places + 2 * self.waiting_places, thread_name_prefix="turn")
        self._fetcher = threading.Thread(target=telemetry.carry(self._fetch_on), name="queue", daemon=True)
        self._wanted = threading.Event()
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

    def start(self) -> None:
        """Fetches from now on, until ``stop``."""
        self._fetcher.start()

    def wake(self) -> None:
        """Somebody may have been queued."""
        self._wanted.set()

    def _fetch_on(self) -> None:
        while not self._stopping:
            self._wanted.wait(POLL_SECONDS)
            self._wanted.clear()
            self.fetch()

    def fetch(self) -> None:
        """Takes turns, each on a thread of its own, as long as there are places and customers for them. Does
        not wait for the turns, and raises nothing."""
        sizes = {Room.REGULAR: self.places, Room.BROKEN_OFF: self.waiting_places}
        try:
            for room, size in sizes.items():
                while self.takes_turns and self._count(room) < size:
                    waiting = room is Room.BROKEN_OFF
                    ticket = self._queue.next(self._bench.holder, TTL_SECONDS, waiting=waiting)
                    if ticket is None:
                        break
                    taken = Taken(ticket.customer, room)
                    with self._lock:
                        self._taken.add(taken)
                    self._threads.submit(self._run, taken, ticket)
        except XmodeError as error:
            self._trouble.found(error)
        except Exception:  # noqa: BLE001 - a defect here must not end the fetching for good
            telemetry.exception(Event.DEFECT)

    @property
    def takes_turns(self) -> bool:
        """Not after ``stop``, and not while something of ours (``trouble``) would meet every customer."""
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

    def _run(self, taken: Taken, ticket: Ticket) -> None:
        try:
            self._turn(taken, ticket)
        except XmodeError as error:  # the ledger or our identity, outside a turn
            self._trouble.found(error)
        except Exception:  # noqa: BLE001 - a defect ends this turn, not the worker
            telemetry.exception(Event.DEFECT, customer=taken.customer)
        finally:
            with self._lock:
                self._taken.discard(taken)
                self._lock.notify_all()
            self.wake()

    def _turn(self, taken: Taken, ticket: Ticket) -> None:
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
                name, turn.stop, turn.watched, lambda *what: self._queue.tell(ticket, *what)
            )

        return taken(name, take, self._bench, self._trouble.found)

    def _end(self, ticket: Ticket, end: TurnEnd) -> None:
        name = ticket.customer
        try:
            serial = self._queue.end(
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
                tell_of_taking_over(self._queue.reap())
        except XmodeError as error:
            self._trouble.found(error)

    def _make_room(self, now: float) -> None:
        settings = self._in_use.configuration.service
        freed: list[str] = []
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
                    freed.append(taken.customer)
                elif self._standing.queued > 0 and (
                    now - turn.began_at > settings.daemon.turn_seconds
                    or turn.watched.sent_bytes >= settings.cluster.turn_bytes
                ):
                    turn.stop.set()
        for customer in freed:
            telemetry.debug(Event.TURN_STALLED, customer=customer)
            self.wake()

    def _beat(self, stopped_at: datetime | None = None) -> None:
        trouble = self._trouble.now
        self._standing = standing = self._queue.beat(
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

    def reload(self, read: Read) -> None:
        """Reads the files again and takes over what is in order. Raises nothing. To try those who are broken
        off is the daemon's part."""
        self.use(read_again(self._in_use, read, self._bench.clock.now()))

    def use(self, in_use: InUse) -> None:
        """What runs for a customer that was moved stops where it can be resumed."""
        old, new = self._in_use.configuration, in_use.configuration
        self._in_use = in_use
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
        self.wake()

    def wait(self, seconds: float) -> bool:
        """Waits for the turns that run, and attends to them meanwhile; whether all have ended."""
        while True:
            pause = max(0.0, min(seconds, 1.0))
            if self._stopping and self._fetcher.is_alive():
                self._fetcher.join(pause)
            with self._lock:
                ended = self._lock.wait_for(lambda: not self._taken, pause)
            if ended and not (self._stopping and self._fetcher.is_alive()):
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

"""Who gives turns to customers: the queue of one process, or that of a whole fleet."""

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Protocol

from xmode_transfer.domain.fleet import Call, FleetTurn, FleetTurnEnd, Standing, Ticket, WorkerRecord


class WorkQueue(Protocol):
    """Each customer's place among all; a customer has one turn at a time, wherever it runs.

    ``adapters.local_queue`` is that of a daemon that delivers itself. In a fleet any number of daemons call
    customers, any number of workers take their turns, and the ledger decides: the job in the queue of the
    database is written in the same transaction as the place, so neither is there without the other; one that
    was lost is written again by ``reap``. Every method may raise what ``Ledger`` raises. Thread-safe. Times
    are the database's own where machines have to agree.
    """

    # --- daemons

    def seat(self, weights: Mapping[str, int]) -> None:
        """The customers that take part from now on, with their weights. Who no longer does is taken out of
        the queue, and its running turn is asked to stop. Idempotent: each daemon does it."""
        ...

    def rest(self, turn: FleetTurn) -> None:
        """What is known of a customer before its first turn in this fleet; changes nothing after that."""
        ...

    def call(self, name: str, *, hurried: bool = False, serving_at: datetime | None = None) -> None:
        """Gives the customer a turn as soon as it is its. One that is queued stays where it is; one whose
        turn is running is queued when that ends. ``serving_at`` is the time of its schedule that the turn
        serves: when a turn ends that has looked at everything, it is remembered as served
        (``ledger.daemons.serve``), in the same transaction. Nobody is called who has no seat."""
        ...

    def call_all(self, calls: Iterable[Call]) -> None:
        """As ``call``, for many at once: ten thousand customers cost a hundred transactions, not ten
        thousand. What was called before an error stays called."""
        ...

    def stop(self, name: str) -> None:
        """Asks the customer's running turn, if there is one, to end where it can be resumed."""
        ...

    def turns(self, after_serial: int = 0) -> list[FleetTurn]:
        """The places that changed after that serial, in the order of serials; all of them for 0."""
        ...

    def reap(self) -> list[str]:
        """Queues the customers again whose turns are held by nobody any more: their worker is dead, or its
        lease has ended. What that worker held of the customer (``customer/...``,
        ``delivery/<customer>/...``) is taken from it, so that it cannot write when it wakes. Also queues
        those again whose job was lost. Answers whose turns were taken over. Any process may do it at any
        time."""
        ...

    def workers(self) -> list[WorkerRecord]:
        """Those that live, and those that ended in the last hour; the one seen last first."""
        ...

    # --- workers

    def next(self, holder: str, ttl_seconds: float, *, waiting: bool) -> Ticket | None:
        """Takes the turn of the customer who is first in the queue, or in that of those who are broken off
        (``waiting``). None when nobody is queued there. One who is delivered to by a ``run`` is passed over,
        and comes again a few seconds later."""
        ...

    def tell(self, ticket: Ticket, feed: str, period: str) -> None:
        """What the turn delivers now. Raises LeaseLost."""
        ...

    def end(self, ticket: Ticket, end: FleetTurnEnd) -> int:
        """The turn is over: the lease is given back, and the customer is queued again where there is more to
        do (``again``, or it was called meanwhile); one that is broken off, in the queue of those whose turns
        may not get on. Answers the serial of the end. Raises LeaseLost, and changes nothing, when somebody
        else has taken over."""
        ...

    def beat(self, worker: WorkerRecord) -> Standing:
        """A sign of life, every few seconds."""
        ...

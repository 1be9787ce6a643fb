"""A worker of a fleet: it takes the turns of customers that the queue of the database gives it.

It knows no queue. ``entrypoints/worker`` calls ``take`` for each job, ``attend`` about once a second, and the
rest when a signal or a changed file asks for it.
"""

from collections.abc import Callable

from xmode_transfer.domain.config import Configuration
from xmode_transfer.domain.records import Failure
from xmode_transfer.ports import Fleet
from xmode_transfer.services.daemon.in_use import Read
from xmode_transfer.services.workbench import Workbench


class Worker:
    """``take`` never waits and may be called from an event loop; so may the properties and ``stop``. What
    else there is may wait for the ledger: ``attend``, ``reload``, ``wait`` and ``close`` are called by one
    thread, which is no event loop's."""

    places: int
    """Turns at once from the queue of those who get on: the concurrency for jobs that are not ``waiting``."""
    waiting_places: int
    """The same for the queue of those who are broken off. The worker has room for as many again that began in
    a regular place and make no progress."""

    def __init__(
        self,
        bench: Workbench,
        fleet: Fleet,
        configuration: Configuration,
        read: Read,
        *,
        places: int | None = None,
        version: str = "",
    ) -> None:
        """``read`` reads the files anew, as for ``Daemon``. ``places`` goes before ``cluster.places``. Gives
        the first sign of life; raises LedgerError when the ledger does not take it."""
        raise NotImplementedError

    # --- Turns

    def take(self, name: str, *, waiting: bool, freed: Callable[[], None]) -> None:
        """Takes the customer's turn on a thread of the worker's own, if the fleet still gives it to us.
        Returns at once, and raises nothing. ``freed`` is called exactly once, by another thread, when the
        place is free again: the turn is over, or there was none to take, or it makes no progress and goes on
        in the waiting room. Then the job is done, whatever came of the turn: that stands in the ledger.
        ``waiting`` says from which queue the job came."""
        raise NotImplementedError

    @property
    def takes_turns(self) -> bool:
        """Whether jobs are to be fetched. Not after ``stop``, and not while something of ours (``trouble``)
        would meet every customer: a job that is given to ``take`` then is done without a turn, and the
        customer is queued again by whoever reaps."""
        raise NotImplementedError

    @property
    def trouble(self) -> Failure | None:
        """What of ours keeps this worker from taking turns."""
        raise NotImplementedError

    @property
    def busy(self) -> int:
        """How many regular places are taken."""
        raise NotImplementedError

    @property
    def waiting(self) -> int:
        """How many turns run besides: of broken off customers, and those that make no progress."""
        raise NotImplementedError

    # --- All the time

    def attend(self) -> None:
        """About once a second, also while it stops. Frees the places of turns that make no progress; stops
        turns that have had enough, where others are queued, and those that the fleet wants stopped; gives a
        sign of life and reaps every few seconds; tries whether its trouble is over. Raises nothing."""
        raise NotImplementedError

    def reload(self, *, hurry: bool = False) -> None:
        """Reads the files again and takes over what is in order; what runs for a customer that was moved
        stops where it can be resumed. ``hurry`` is accepted for whoever answers SIGHUP as the daemon does;
        calling customers is the daemon's business. Raises nothing."""
        raise NotImplementedError

    @property
    def configuration(self) -> Configuration:
        """What is in use now."""
        raise NotImplementedError

    # --- The end: stop, wait (drain_seconds), break_off and wait again where that was not enough, close

    def stop(self) -> None:
        """No turn begins any more; what runs goes on. From any thread."""
        raise NotImplementedError

    def wait(self, seconds: float) -> bool:
        """Waits for the turns that run, and attends to them meanwhile; whether all have ended."""
        raise NotImplementedError

    def break_off(self) -> None:
        """Stops what still runs where it can be resumed. Does not wait for it."""
        raise NotImplementedError

    def close(self) -> None:
        """Notes the end in the ledger. A worker whose ledger is gone ends all the same: raises nothing."""
        raise NotImplementedError

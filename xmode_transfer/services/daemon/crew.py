"""Who gives turns to customers, and knows what each is doing."""

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Protocol

from xmode_transfer.domain.errors import XmodeError
from xmode_transfer.ports.board import Turn
from xmode_transfer.services.daemon.turns import TurnEnd, Turns


class Crew(Protocol):
    """``ThreadCrew`` is a pool of this process's own, ``FleetCrew`` any number of workers. Thread-safe.
    A method whose ledger is gone tells ``trouble`` of that, and raises nothing."""

    @property
    def alone(self) -> bool:
        """Whether this process gives all turns of this ledger out and takes them itself."""
        ...

    @property
    def workers(self) -> int:
        """How many turns run at once, at most."""
        ...

    @property
    def busy(self) -> int:
        """How many run."""
        ...

    def seat(self, weights: Mapping[str, int]) -> None:
        """The customers that take part from now on, with their weights; what runs for others is stopped
        where it can be resumed."""
        ...

    def rest(self, turn: Turn) -> None:
        """What is known of a customer before its first turn."""
        ...

    def call(self, name: str, *, hurried: bool = False, serving_at: datetime | None = None) -> None:
        """Gives the customer a turn as soon as it is its. ``hurried`` as in ``Turns.hurry``. ``serving_at``
        is the time of its schedule that the turn serves."""
        ...

    def stop(self, name: str) -> None:
        """The customer is to be looked at anew: its turn, if one runs, stops where it can be resumed."""
        ...

    def attend(self, turn_seconds: float) -> None:
        """Called every second or so: sees that turns get on, and that those that have had ``turn_seconds``
        make room where somebody waits for it."""
        ...

    def pause(self) -> None:
        """No turn begins until ``resume``: what is wrong would meet every customer. Workers of a fleet see
        to that themselves."""
        ...

    def resume(self) -> None: ...

    def close(self) -> None:
        """No turn begins any more by this process."""
        ...

    def stop_all(self) -> None:
        """Stops what this process runs where it can be resumed."""
        ...

    def wait(self, seconds: float) -> bool:
        """Waits for the turns that this process runs; whether all have ended."""
        ...

    def turns(self) -> list[Turn]:
        """One for each customer that takes part, by name."""
        ...

    def turn(self, name: str) -> Turn | None: ...


class Hire(Protocol):
    """Makes the crew of a daemon."""

    def __call__(
        self,
        turns: Turns,
        /,
        *,
        ended: Callable[[str, TurnEnd], None],
        trouble: Callable[[XmodeError], object],
    ) -> Crew:
        """``ended`` hears how each turn ended; ``trouble`` what concerns all customers. Both are called
        without a lock, by the thread of a turn or of ``attend``."""
        ...

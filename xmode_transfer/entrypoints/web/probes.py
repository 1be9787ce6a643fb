"""What machines ask: is the process alive, can it work.

A customer's failure is no reason to restart the process or to send nobody to it, so neither looks at one.
"""

import threading
from collections.abc import Callable, Sequence
from typing import NamedTuple

from xmode_transfer.adapters.ledger import Ledger
from xmode_transfer.domain.config import Configuration
from xmode_transfer.domain.daemons import longest_silence
from xmode_transfer.domain.errors import XmodeError
from xmode_transfer.ports import Clock
from xmode_transfer.ports.board import Board

KEPT_SECONDS = 5.0
"""A probe of the ledger writes to its disk; asked more often, the last answer is given again."""


class Check(NamedTuple):
    """One condition, whether it holds, and a word on it."""

    name: str
    holds: bool
    told: str


class Probes:
    """Thread-safe."""

    def __init__(
        self, ledger: Ledger, clock: Clock, configuration: Callable[[], Configuration], board: Board | None
    ) -> None:
        self._ledger = ledger
        self._clock = clock
        self._configuration = configuration
        self._board = board
        self._turn = threading.Lock()
        self._known: tuple[float, Check] | None = None

    def alive(self) -> Sequence[Check]:
        """Whether the process does anything at all: if not, it is to be restarted. Asks memory only."""
        if self._board is None:
            return [Check("page", holds=True, told="it answers")]
        pulse = self._board.pulse()
        age = self._clock.now() - pulse.ticked_at
        tick_seconds = self._configuration().service.daemon.tick_seconds
        told = f"the daemon's clock ticked {max(0, round(age.total_seconds()))} s ago"
        return [Check("daemon", age <= longest_silence(tick_seconds), told)]

    def ready(self) -> Sequence[Check]:
        """Whether it can do its work. A mistake in the configuration on disk does not count while what was in
        order before is still in use."""
        found = [self._ledger_check(), self._configuration_check()]
        if self._board is not None:
            pulse = self._board.pulse()
            found.append(Check("daemon", not pulse.stopping, "stopping" if pulse.stopping else "running"))
        return found

    def _ledger_check(self) -> Check:
        with self._turn:
            now = self._clock.monotonic()
            if self._known is None or now - self._known[0] > KEPT_SECONDS:
                try:
                    self._ledger.prove_writable()
                    answer = Check("ledger", holds=True, told="writable")
                except XmodeError as error:
                    answer = Check("ledger", holds=False, told=error.code)
                self._known = self._clock.monotonic(), answer
            return self._known[1]

    def _configuration_check(self) -> Check:
        try:
            count = len(self._configuration().customers)
        except XmodeError as error:
            return Check("configuration", holds=False, told=error.code)
        return Check("configuration", holds=True, told=f"{count} customers in order")

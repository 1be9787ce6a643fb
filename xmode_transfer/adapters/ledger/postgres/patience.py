"""Waiting for a server that is away for a moment: it restarts, or another one takes its place."""

import threading
import time
from collections.abc import Callable
from typing import TypeVar

from xmode_transfer import telemetry
from xmode_transfer.adapters.ledger.postgres import errors
from xmode_transfer.domain.errors import XmodeError

T = TypeVar("T")

_FIRST_PAUSE_SECONDS = 0.05
_LONGEST_PAUSE_SECONDS = 2.0
_GONE_SECONDS = 15.0
"""In a process that ends, nobody tries for so long what was tried in vain."""


class Patience:
    """Repeats what failed by a passing trouble (``errors.PASSING``), for ``seconds`` since it began. One line
    in the log says that the server is away, and one that it is back, however many threads wait for it."""

    def __init__(self, where: str, seconds: float) -> None:
        self._where = where
        self._seconds = seconds
        self._over = threading.Event()
        self._door = threading.Lock()
        self._away_since: float | None = None
        self._gone_since: float | None = None

    def run(self, attempt: Callable[[], T]) -> T:
        """What the attempt answers. Raises what it raises, and a trouble that did not pass as one that the
        caller need not wait for any more."""
        began: float | None = None
        pause = 0.0  # a connection that broke while it lay unused is replaced at once, and not told of
        while True:
            if self._is_gone():
                raise errors.for_good(errors.AWAY.error(self._where, "it does not answer"), 0)
            try:
                answer = attempt()
            except errors.PASSING as error:
                now = time.monotonic()
                is_first = began is None
                began = now if began is None else began
                waited = now - began
                # In a hurry, too, a connection that broke while it lay unused is replaced.
                if waited >= self._seconds or (self._over.is_set() and not is_first):
                    if isinstance(error, errors.Away):
                        self.gone()
                    raise errors.for_good(error, waited) from error
                if pause:
                    self._tell(error, began)
                self._over.wait(min(pause, self._seconds - waited))
                pause = min(max(pause * 2, _FIRST_PAUSE_SECONDS), _LONGEST_PAUSE_SECONDS)
            else:
                if self._away_since is not None:
                    self._tell_the_end()
                return answer

    def end(self) -> None:
        """Nobody waits any more: each goes on with one last attempt, and none while the server is known to be
        gone."""
        self._over.set()

    def gone(self) -> None:
        """The server was asked in vain."""
        self._gone_since = time.monotonic()

    def _is_gone(self) -> bool:
        since = self._gone_since
        return self._over.is_set() and since is not None and time.monotonic() - since < _GONE_SECONDS

    def _tell(self, error: XmodeError, since: float) -> None:
        if isinstance(error, errors.Contended):
            return
        with self._door:
            if self._away_since is not None:
                return
            self._away_since = since
        telemetry.log(telemetry.Event.LEDGER_AWAY, ledger=self._where, **error.log_context())

    def _tell_the_end(self) -> None:
        with self._door:
            since, self._away_since = self._away_since, None
        if since is not None:
            telemetry.log(
                telemetry.Event.LEDGER_BACK,
                ledger=self._where,
                seconds=round(time.monotonic() - since, 1),
            )

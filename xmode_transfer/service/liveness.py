"""Liveness signals of a process: systemd's watchdog, and without systemd a file that a probe checks for age.

They cover the process's own loop, not the ledger: a failover of the database must not get every worker killed
during its uploads.
"""

import contextlib
from pathlib import Path

from xmode_transfer.model.process import Clock
from xmode_transfer.service import sd_notify

EVERY_SECONDS = 5.0


class Liveness:
    """Creates and touches ``file``, if given. Belongs to the watched thread. Raises nothing."""

    def __init__(self, clock: Clock, file: Path | None = None) -> None:
        self._clock = clock
        self._file = file
        self._shown: float | None = None
        self._got_on = clock.monotonic()

    @property
    def silent_seconds(self) -> float:
        """Seconds since the loop made progress. Any thread may read it."""
        return self._clock.monotonic() - self._got_on

    def gets_on(self) -> None:
        """Report progress. Call it in every iteration of the loop."""
        now = self._got_on = self._clock.monotonic()
        if self._shown is not None and now - self._shown < EVERY_SECONDS:
            return
        self._shown = now
        sd_notify.watchdog()
        if self._file is not None:
            # On a full disk the file ages and the probe fails, as it should.
            with contextlib.suppress(OSError):
                self._file.touch()

    def close(self) -> None:
        """Remove the file: an ended process must not look alive."""
        if self._file is not None:
            with contextlib.suppress(OSError):
                self._file.unlink(missing_ok=True)

"""Showing that a process gets on, to whoever starts it anew when it does not: systemd's watchdog, and where
there is no systemd, a file that a probe finds old.

Only the process's own loop is shown. Whether the ledger answers is not: a database that fails over must not
have every worker killed in the midst of its uploads.
"""

import contextlib
from pathlib import Path

from xmode_transfer.model.process import Clock
from xmode_transfer.service import sd_notify

EVERY_SECONDS = 5.0


class Liveness:
    """``file`` is made and touched; None where nobody looks at one. For the one thread that is watched.
    Raises nothing."""

    def __init__(self, clock: Clock, file: Path | None = None) -> None:
        self._clock = clock
        self._file = file
        self._shown: float | None = None
        self._got_on = clock.monotonic()

    @property
    def silent_seconds(self) -> float:
        """How long ago the loop got on; from any thread."""
        return self._clock.monotonic() - self._got_on

    def gets_on(self) -> None:
        """Called from the loop as often as it likes."""
        now = self._got_on = self._clock.monotonic()
        if self._shown is not None and now - self._shown < EVERY_SECONDS:
            return
        self._shown = now
        sd_notify.watchdog()
        if self._file is not None:
            # On a full disk the probe finds it old: it asks for the process to be looked at, rightly.
            with contextlib.suppress(OSError):
                self._file.touch()

    def close(self) -> None:
        """What has ended leaves nothing behind that looks alive."""
        if self._file is not None:
            with contextlib.suppress(OSError):
                self._file.unlink(missing_ok=True)

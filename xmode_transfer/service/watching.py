"""Watching the configuration files for changes.

Only the configuration's three directories are watched, not their subdirectories: the ledger may be in the
same directory and is written all the time. On file systems without change events (some network mounts), set
WATCHFILES_FORCE_POLLING=1 to poll.
"""

import threading
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

from watchfiles import Change, watch

from xmode_transfer.config.files import CUSTOMERS, FEEDS

_QUIET_MILLISECONDS = 500
"""Changes are reported together, this long after the last one."""
_POLL_MILLISECONDS = 1000

_CLOCK_STEP_SECONDS = 0.1
"""File systems stamp changes with a clock that is coarser than ours."""


class FileWatch:
    """Calls ``changed`` soon after files change, from its own thread, until ``close``. Calls ``failed`` once
    with the reason if it stops watching."""

    def __init__(
        self,
        directory: Path,
        read_at: datetime,
        changed: Callable[[], None],
        failed: Callable[[str], None],
    ) -> None:
        """``read_at`` is when the files were last read: what changed after that and before the watch was in
        place counts, too."""
        self._directory = directory
        self._read_at: float | None = read_at.timestamp()
        self._changed = changed
        self._failed = failed
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="files", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Idempotent."""
        self._stop.set()
        self._thread.join(3)

    def _run(self) -> None:
        try:
            while not self._stop.is_set():
                self._watch(self._folders())
        except (OSError, RuntimeError) as error:  # no more inotify watches, the directory is gone
            self._failed(str(error))

    def _changed_before(self) -> bool:
        """Return whether files changed before the watch was in place; asked once, when it is. What cannot be
        looked at counts as changed: reading it says what is wrong."""
        if self._read_at is None:
            return False
        since, self._read_at = self._read_at - _CLOCK_STEP_SECONDS, None
        folders = self._folders()
        try:
            files = [path for folder in folders for path in folder.iterdir()]
            # Not the directory itself, nor what else is in it: the ledger may be, and changes all the time.
            seen = folders[1:] + [
                path for path in files if path.name.endswith(".yaml") or path.name.startswith("..")
            ]
            return any(path.lstat().st_ctime >= since for path in seen)
        except OSError:  # a file that is gone since, a folder that may not be listed
            return True

    def _folders(self) -> list[Path]:
        parts = (self._directory, self._directory / FEEDS, self._directory / CUSTOMERS)
        return [part for part in parts if part.is_dir()]

    def _watch(self, folders: list[Path]) -> None:
        """Watch until stopped, or until the set of folders changes."""
        for changes in watch(
            *folders,
            watch_filter=_is_configuration,
            debounce=_QUIET_MILLISECONDS * 4,
            step=_QUIET_MILLISECONDS,
            rust_timeout=_POLL_MILLISECONDS,
            yield_on_timeout=True,
            stop_event=self._stop,
            recursive=False,
            raise_interrupt=False,
        ):
            if changes or self._changed_before():
                self._changed()
            if self._folders() != folders:
                self._changed()
                return


def _is_configuration(_: Change, path: str) -> bool:
    """Accept configuration files, folders, and the links with which Kubernetes swaps a mounted directory
    (``..data``); ignore editors' temporary files."""
    name = Path(path).name
    return name.endswith(".yaml") or "." not in name or name.startswith("..")

"""Noticing that files of the configuration have changed.

Only the configuration's own three directories are watched, none below them: the ledger may lie in the same
place and is written all the time. Where the system tells of no changes (some network mounts),
WATCHFILES_FORCE_POLLING=1 makes watchfiles look by itself.
"""

import threading
from collections.abc import Callable
from pathlib import Path

from watchfiles import Change, watch

from xmode_transfer.config.files import CUSTOMERS, FEEDS

_QUIET_MILLISECONDS = 500
"""What changes together is told once: so long after the last change."""
_LOOK_MILLISECONDS = 1000


class FileWatch:
    """Calls ``changed`` soon after files have changed, from a thread of its own, until ``close``. ``failed``
    hears once why it no longer watches."""

    def __init__(self, directory: Path, changed: Callable[[], None], failed: Callable[[str], None]) -> None:
        self._directory = directory
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

    def _folders(self) -> list[Path]:
        parts = (self._directory, self._directory / FEEDS, self._directory / CUSTOMERS)
        return [part for part in parts if part.is_dir()]

    def _watch(self, folders: list[Path]) -> None:
        """Until it is to stop, or other folders are to be watched."""
        for _ in watch(
            *folders,
            watch_filter=_concerns_us,
            debounce=_QUIET_MILLISECONDS * 4,
            step=_QUIET_MILLISECONDS,
            rust_timeout=_LOOK_MILLISECONDS,
            yield_on_timeout=True,
            stop_event=self._stop,
            recursive=False,
            raise_interrupt=False,
        ):
            if _:
                self._changed()
            if self._folders() != folders:
                self._changed()
                return


def _concerns_us(_: Change, path: str) -> bool:
    """Files of ours, folders, and the links with which Kubernetes swaps a whole mounted directory
    (``..data``); not what an editor leaves beside them."""
    name = Path(path).name
    return name.endswith(".yaml") or "." not in name or name.startswith("..")

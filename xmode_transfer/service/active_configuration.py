"""The configuration in use: its schedules, reloading, and the watch on its files."""

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from watchfiles import Change, watch

from xmode_transfer import telemetry
from xmode_transfer.config import Configuration, Problem
from xmode_transfer.config.configuration import needs_restart, reloaded
from xmode_transfer.config.files import CUSTOMERS, FEEDS
from xmode_transfer.config.times import HOUSEKEEPING_SPREAD_SECONDS, Times, Work, times_of
from xmode_transfer.model.errors import ConfigError
from xmode_transfer.telemetry import Event

Read = Callable[[], tuple[Configuration, tuple[Problem, ...]]]
"""Return the configuration and the problems that stop all customers. Raises ConfigError."""


@dataclass(frozen=True, slots=True)
class ActiveConfiguration:
    """The configuration in use, when it was read, and the errors on disk now."""

    configuration: Configuration
    loaded_at: datetime
    problems: tuple[str, ...]

    def times(self, name: str, work: Work) -> Times | None:
        """Return a customer's schedule for that work. Without one (None), deliveries are checked at every
        tick and maintenance never starts by itself."""
        settings = self.configuration.service.daemon
        customer = self.configuration.customers[name]
        if work is Work.DELIVER:
            schedule, spread = customer.schedule, settings.spread_seconds
        elif work is Work.CHECK_ACCESS:
            schedule, spread = settings.access_checks, HOUSEKEEPING_SPREAD_SECONDS
        elif work is Work.RECALL:
            return None
        else:
            schedule = settings.cleanup if customer.retention is not None else None
            spread = HOUSEKEEPING_SPREAD_SECONDS
        return None if schedule is None else times_of(schedule, name, spread)


def loaded(configuration: Configuration, now: datetime) -> ActiveConfiguration:
    """Return a configuration that was just read for the first time."""
    return ActiveConfiguration(configuration, now, tuple(map(str, configuration.problems)))


def read_again(before: ActiveConfiguration, read: Read, now: datetime) -> ActiveConfiguration:
    """Reload the files and log what changed. Invalid parts keep their last valid version."""
    problems: Sequence[Problem | str]
    try:
        fresh, stopping = read()
    except ConfigError as error:
        problems, configuration = (error.problems or (error.message,)), before.configuration
    else:
        problems = fresh.problems
        configuration = before.configuration if stopping else reloaded(before.configuration, fresh)
    active = ActiveConfiguration(configuration, now, tuple(map(str, problems)))
    _log_reload(before, active)
    return active


def _log_reload(before: ActiveConfiguration, active: ActiveConfiguration) -> None:
    if active.problems:
        if active.problems != before.problems:
            telemetry.error(Event.CONFIGURATION_INVALID, problems=list(active.problems))
    elif before.problems:
        telemetry.log(Event.CONFIGURATION_FIXED)
    old, new = before.configuration, active.configuration
    if old == new:
        return
    telemetry.log(
        Event.CONFIGURATION_RELOADED,
        customers=len(new.customers),
        added=sorted(new.customers.keys() - old.customers.keys()),
        removed=sorted(old.customers.keys() - new.customers.keys()),
        changed=sorted(
            name
            for name in old.customers.keys() & new.customers.keys()
            if old.customers[name] != new.customers[name]
        ),
    )
    if keys := needs_restart(old, new):
        telemetry.warn(Event.CONFIGURATION_NEEDS_RESTART, keys=keys)


_QUIET_MILLISECONDS = 500
"""Changes are reported together, this long after the last one."""
_POLL_MILLISECONDS = 1000
_CLOCK_STEP_SECONDS = 0.1  # time stamps of file systems are coarser than the clock


class FileWatch:
    """Calls ``changed`` soon after files change, and ``failed`` if it stops watching, from its own thread."""

    def __init__(
        self,
        directory: Path,
        read_at: datetime,
        changed: Callable[[], None],
        failed: Callable[[str], None],
    ) -> None:
        """Changes since ``read_at``, when the files were last read, count too."""
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
        """Return True once if files changed before the watch was in place."""
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
        except OSError:  # a file is gone, or a folder may not be listed: reloading reports the error
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
    """Ignore editors' temporary files, but not ``..data``: Kubernetes swaps a directory by such links."""
    name = Path(path).name
    return name.endswith(".yaml") or "." not in name or name.startswith("..")

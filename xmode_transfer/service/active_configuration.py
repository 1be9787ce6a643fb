"""The configuration in use by a daemon or a worker, and how to reload it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime

from xmode_transfer import telemetry
from xmode_transfer.config import Configuration, Customer, Problem, Schedule
from xmode_transfer.config.times import HOUSEKEEPING_SPREAD_SECONDS, Times, Work, times_of
from xmode_transfer.config.whole import needs_restart, reloaded
from xmode_transfer.model.errors import ConfigError
from xmode_transfer.telemetry import Event

Read = Callable[[], tuple[Configuration, tuple[Problem, ...]]]
"""Read the files: return the configuration and the problems that stop all customers. Raises ConfigError when
the directory no longer exists."""


@dataclass(frozen=True, slots=True)
class ActiveConfiguration:
    """The configuration, when it was read, the errors on disk now, and the schedules computed from it."""

    configuration: Configuration
    loaded_at: datetime
    problems: tuple[str, ...]
    times: dict[tuple[str, Work], Times | None]

    @staticmethod
    def of(
        configuration: Configuration, loaded_at: datetime, problems: Sequence[Problem | str]
    ) -> "ActiveConfiguration":
        times = {
            (name, work): _times_for(configuration, customer, work)
            for name, customer in configuration.customers.items()
            for work in Work
            if work is not Work.CLEANUP or customer.retention is not None
        }
        return ActiveConfiguration(configuration, loaded_at, tuple(map(str, problems)), times)


def read_again(before: ActiveConfiguration, read: Read, now: datetime) -> ActiveConfiguration:
    """Reload the files. Valid parts replace the old ones; invalid parts keep their last valid version. Logs
    what changed."""
    problems: tuple[Problem | str, ...]
    try:
        fresh, stopping = read()
    except ConfigError as error:
        problems, configuration = (error.problems or (error.message,)), before.configuration
    else:
        problems = fresh.problems
        configuration = before.configuration if stopping else reloaded(before.configuration, fresh)
    active = ActiveConfiguration.of(configuration, now, problems)
    _log_reload(before, active)
    return active


def _log_reload(before: ActiveConfiguration, active: ActiveConfiguration) -> None:
    """Log what changed, if anything."""
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
    keys = needs_restart(old, new)
    if keys:
        telemetry.warn(Event.CONFIGURATION_NEEDS_RESTART, keys=keys)


def _times_for(configuration: Configuration, customer: Customer, work: Work) -> Times | None:
    """Return the schedule of the customer for that work. Without one (None), deliveries are checked at every
    tick and maintenance never starts by itself."""
    settings = configuration.service.daemon
    schedule: Schedule | None
    if work is Work.DELIVER:
        schedule, spread = customer.schedule, settings.spread_seconds
    elif work is Work.CLEANUP:
        schedule, spread = settings.cleanup, HOUSEKEEPING_SPREAD_SECONDS
    else:
        schedule, spread = settings.access_checks, HOUSEKEEPING_SPREAD_SECONDS
    return None if schedule is None else times_of(schedule, customer.name, spread)

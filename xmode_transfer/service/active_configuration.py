"""The configuration that a daemon or a worker has in use, and how it is read again."""

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
"""Reads the files anew: the configuration, and the problems that stop all customers. Raises ConfigError when
there is no such directory any more."""


@dataclass(frozen=True, slots=True)
class ActiveConfiguration:
    """It, when it was read, the mistakes that are on disk now, and what is computed from it once."""

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
    """What is in use after the files were read again: what is in order in them, and of the rest what was in
    use before. What changed is told in the log."""
    problems: tuple[Problem | str, ...]
    try:
        fresh, stopping = read()
    except ConfigError as error:
        problems, configuration = (error.problems or (error.message,)), before.configuration
    else:
        problems = fresh.problems
        configuration = before.configuration if stopping else reloaded(before.configuration, fresh)
    active = ActiveConfiguration.of(configuration, now, problems)
    _tell_of_reload(before, active)
    return active


def _tell_of_reload(before: ActiveConfiguration, active: ActiveConfiguration) -> None:
    """What changed, in the log: nothing, where nothing did."""
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
    waits = needs_restart(old, new)
    if waits:
        telemetry.warn(Event.CONFIGURATION_NEEDS_RESTART, keys=waits)


def _times_for(configuration: Configuration, customer: Customer, work: Work) -> Times | None:
    """The customer's own times for that work; None where it has none: then deliveries are looked for at every
    tick, and housekeeping never is done by itself."""
    settings = configuration.service.daemon
    schedule: Schedule | None
    if work is Work.DELIVER:
        schedule, spread = customer.schedule, settings.spread_seconds
    elif work is Work.CLEANUP:
        schedule, spread = settings.cleanup, HOUSEKEEPING_SPREAD_SECONDS
    else:
        schedule, spread = settings.access_checks, HOUSEKEEPING_SPREAD_SECONDS
    return None if schedule is None else times_of(schedule, customer.name, spread)

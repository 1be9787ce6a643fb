"""The configuration that the daemon has in use."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime

from xmode_transfer import telemetry
from xmode_transfer.domain.config import Configuration, Problem
from xmode_transfer.domain.config.whole import needs_restart, reloaded
from xmode_transfer.domain.errors import ConfigError
from xmode_transfer.domain.schedule import Times, Work
from xmode_transfer.services.daemon.agenda import times_for
from xmode_transfer.telemetry import Event

Read = Callable[[], tuple[Configuration, tuple[Problem, ...]]]
"""Reads the files anew: the configuration, and the problems that stop all customers. Raises ConfigError when
there is no such directory any more."""


@dataclass(frozen=True, slots=True)
class InUse:
    """It, when it was read, the mistakes that are on disk now, and what is computed from it once."""

    configuration: Configuration
    loaded_at: datetime
    problems: tuple[str, ...]
    times: dict[tuple[str, Work], Times | None]

    @staticmethod
    def of(configuration: Configuration, loaded_at: datetime, problems: Sequence[Problem | str]) -> "InUse":
        times = {
            (name, work): times_for(configuration, customer, work)
            for name, customer in configuration.customers.items()
            for work in Work
            if work is not Work.CLEANUP or customer.retention is not None
        }
        return InUse(configuration, loaded_at, tuple(map(str, problems)), times)


def read_again(before: InUse, read: Read, now: datetime) -> InUse:
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
    in_use = InUse.of(configuration, now, problems)
    _tell_of_reload(before, in_use)
    return in_use


def _tell_of_reload(before: InUse, in_use: InUse) -> None:
    """What changed, in the log: nothing, where nothing did."""
    if in_use.problems:
        if in_use.problems != before.problems:
            telemetry.error(Event.CONFIGURATION_BROKEN, problems=list(in_use.problems))
    elif before.problems:
        telemetry.log(Event.CONFIGURATION_MENDED)
    old, new = before.configuration, in_use.configuration
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

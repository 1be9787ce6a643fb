"""When each customer is due for what, without asking cron for everybody at every tick."""

from collections.abc import Mapping
from datetime import datetime

from xmode_transfer.domain.config import Configuration, Customer, Schedule
from xmode_transfer.domain.schedule import (
    HOUSEKEEPING_SPREAD_SECONDS,
    Times,
    Work,
    due_at,
    times_of,
)

_Key = tuple[str, Work]


class Agenda:
    """``served`` is what the ledger remembers. One thread asks; any may tell what was served."""

    def __init__(self, served: Mapping[tuple[str, str], datetime]) -> None:
        self._served: dict[tuple[str, str], datetime] = dict(served)
        self._asked: dict[_Key, tuple[Times, datetime, datetime]] = {}

    def serve(self, name: str, work: Work, served_at: datetime) -> None:
        self._served[name, work] = served_at

    def refresh(self, served: Mapping[tuple[str, str], datetime]) -> None:
        """What the ledger remembers by now, of whatever daemon or worker."""
        self._served.update(served)

    def due(self, name: str, work: Work, times: Times, now: datetime) -> datetime | None:
        """The time of the schedule that is to be served now, if one is."""
        asked = self._asked.get((name, work))
        if asked is not None:
            known, asked_at, next_at = asked
            if known == times and asked_at <= now < next_at:
                return None
        due = due_at(times, self._served.get((name, work)), now)
        if due is None:  # nothing before the next time, unless the clock is set back
            self._asked[name, work] = times, now, times.next(now)
        return due

    def next_time(self, name: str, work: Work) -> datetime | None:
        """The customer's next time, where it is known without asking cron."""
        asked = self._asked.get((name, work))
        return None if asked is None else asked[2]

    def first_time(self, name: str, work: Work) -> bool:
        """Whether the customer was never visited for that."""
        return (name, work) not in self._served


def times_for(configuration: Configuration, customer: Customer, work: Work) -> Times | None:
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

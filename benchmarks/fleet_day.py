"""A day of a fleet in virtual time: 10,000 customers of 24 periods a day, so many places, and what everybody
waits. Decided by the service's own rules (``model.jobs``); nothing is sent and no clock is asked.

    python benchmarks/fleet_day.py                                  the table of docs/scaling.md
    python benchmarks/fleet_day.py --places 64 --seconds 15

A period becomes due for everybody at the full hour, and is seen by the tick within ``spread`` seconds. One in a
hundred fills back a month, one in a thousand is a giant whose every period lasts two hours and gives way each
ten minutes. Seconds of a delivery are spread around their mean as lengths of files are (log-normal).
"""

import argparse
import heapq
import math
import random
import statistics
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import timedelta

from xmode_transfer.model.jobs import is_backfill, priority

HOUR, DAY = 3600.0, 86_400.0
TURN_SECONDS = 600.0
GIANT_SECONDS = 7_200.0
BACKFILL = 30 * 24
"""Periods of one that fills back."""


@dataclass(frozen=True)
class Fleet:
    """What is simulated. ``overhead`` is what a turn costs beside its delivery: queue, ledger, role."""

    customers: int = 10_000
    places: int = 64
    seconds: float = 20.0
    overhead: float = 0.1
    spread: float = 60.0
    days: float = 1.0
    backfilling: float = 0.01
    giants: float = 0.001


@dataclass
class Seat:
    """One customer. ``due`` holds since when each of its periods is due, the oldest first."""

    kind: str
    due: list[float] = field(default_factory=list)
    left: float = 0.0
    spent: float = 0.0
    busy: bool = False
    queued: bool = False


@dataclass
class Day:
    """What came of it. ``waits`` are seconds from due to delivered by kind of customer, ``depth`` the queue at
    each full minute."""

    waits: dict[str, list[float]] = field(default_factory=dict)
    depth: list[int] = field(default_factory=list)
    turns: int = 0
    busy_seconds: float = 0.0
    left: int = 0

    def percentile(self, kind: str, percent: float) -> float:
        values = sorted(self.waits.get(kind, ())) or [math.nan]
        return values[min(len(values) - 1, int(len(values) * percent / 100))]


class _Life:
    def __init__(self, fleet: Fleet, seed: int = 1) -> None:
        self.fleet = fleet
        self.chance = random.Random(seed)
        self.seats = [Seat(kind) for kind in self._kinds()]
        self.queue: list[tuple[int, int, int]] = []  # priority (turned round), when put, who
        self.events: list[tuple[float, int, str, int]] = []
        self.number = 0
        self.clock = 0.0
        self.free = fleet.places
        self.day = Day()

    def _kinds(self) -> Iterator[str]:
        giants = round(self.fleet.customers * self.fleet.giants)
        backfilling = round(self.fleet.customers * self.fleet.backfilling)
        for number in range(self.fleet.customers):
            yield ("giant" if number < giants else "backfill" if number < giants + backfilling else "live")

    def live(self) -> Day:
        for hour in range(int(24 * self.fleet.days)):
            for who in range(len(self.seats)):
                self._at(hour * HOUR + self.chance.uniform(0, self.fleet.spread), "due", who)
        for minute in range(int(self.fleet.days * 1440)):
            self._at(minute * 60.0, "look", 0)
        while self.events and self.events[0][0] <= self.fleet.days * DAY:
            now, _, what, who = heapq.heappop(self.events)
            if what == "look":
                self.day.depth.append(len(self.queue))
            elif what == "due":
                self._due(who, now)
            else:
                self._ended(who, now)
            self._give(now)
        self.day.left = sum(len(seat.due) for seat in self.seats if seat.kind == "live")
        return self.day

    def _due(self, who: int, now: float) -> None:
        seat = self.seats[who]
        if seat.kind == "giant" and (seat.due or seat.left):
            return  # its feed has a period each two hours, as long as it needs
        if seat.kind == "backfill" and now < HOUR:
            seat.due += [now] * BACKFILL
        seat.due.append(now)
        self._queue(who)

    def _queue(self, who: int) -> None:
        seat = self.seats[who]
        if seat.busy or seat.queued or not seat.due:
            return
        seat.queued = True
        seat.spent = max(seat.spent, self.clock)
        urgency = priority(
            seat.spent, backfill=is_backfill(len(seat.due), timedelta(hours=len(seat.due) - 1))
        )
        self.number += 1
        heapq.heappush(self.queue, (-urgency, self.number, who))

    def _give(self, now: float) -> None:
        while self.free and self.queue:
            _, _, who = heapq.heappop(self.queue)
            seat = self.seats[who]
            seat.queued, seat.busy = False, True
            self.clock = max(self.clock, seat.spent)
            seat.spent += 1
            if not seat.left:
                seat.left = GIANT_SECONDS if seat.kind == "giant" else self._seconds()
            # A turn gives way only where others wait for it.
            lasts = min(seat.left, TURN_SECONDS)
            seat.left -= lasts
            self.free -= 1
            self.day.turns += 1
            self.day.busy_seconds += lasts + self.fleet.overhead
            self._at(now + lasts + self.fleet.overhead, "ended", who)

    def _ended(self, who: int, now: float) -> None:
        seat = self.seats[who]
        seat.busy = False
        self.free += 1
        if seat.left < 1e-6:
            seat.left = 0.0
            self.day.waits.setdefault(seat.kind, []).append(now - seat.due.pop(0))
        self._queue(who)

    def _seconds(self) -> float:
        """Log-normal, with a tail of about ten times the mean."""
        return self.chance.lognormvariate(math.log(self.fleet.seconds) - 0.5, 1.0)

    def _at(self, when: float, what: str, who: int) -> None:
        self.number += 1
        heapq.heappush(self.events, (when, self.number, what, who))


def simulate(fleet: Fleet) -> Day:
    return _Life(fleet).live()


def table(cases: list[tuple[str, Fleet]]) -> Iterator[str]:
    yield (
        "| fleet | busy | queue, most | queue, median | live: median, 99 %, longest s | backfill: periods done "
        "| giants: periods done | live left over |"
    )
    yield "|---" * 8 + "|"
    for what, fleet in cases:
        day = simulate(fleet)
        busy = day.busy_seconds / (fleet.places * fleet.days * DAY)
        waits = ", ".join(f"{day.percentile('live', percent):,.0f}" for percent in (50, 99, 100))
        done = [len(day.waits.get(kind, ())) for kind in ("backfill", "giant")]
        yield (
            f"| {what} | {min(1.0, busy):.0%} | {max(day.depth):,} | {statistics.median(day.depth):,.0f} | {waits} | "
            f"{done[0]:,} | {done[1]:,} | {day.left:,} |"
        )


def cases(fleet: Fleet) -> list[tuple[str, Fleet]]:
    """Beside the fleet that is asked for: with fewer and more places, and without those who fill back."""
    found = []
    for factor in (0.75, 1.0, 1.25, 2.0):
        places = max(1, round(fleet.places * factor))
        found.append((f"{places} places", Fleet(**{**vars(fleet), "places": places})))
    alone = {"places": fleet.places, "backfilling": 0.0, "giants": 0.0}
    found.append((f"{fleet.places} places, only live customers", Fleet(**{**vars(fleet), **alone})))
    return found


def main() -> None:
    usual = Fleet()
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--customers", type=int, default=usual.customers)
    parser.add_argument("--places", type=int, default=usual.places)
    parser.add_argument("--seconds", type=float, default=usual.seconds, help="a delivery's, on average")
    parser.add_argument("--overhead", type=float, default=usual.overhead, help="seconds beside the delivery")
    parser.add_argument("--spread", type=float, default=usual.spread, help="daemon.spread_seconds")
    parser.add_argument("--days", type=float, default=usual.days)
    arguments = parser.parse_args()
    print("\n".join(table(cases(Fleet(**vars(arguments))))))


if __name__ == "__main__":
    main()

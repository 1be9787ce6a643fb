"""A day of a fleet in virtual time (benchmarks/fleet_day.py), small: the rules of priority keep promises."""

import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from types import ModuleType

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture(scope="module")
def day() -> Iterator[ModuleType]:
    sys.path.insert(0, str(BENCHMARKS))
    try:
        yield import_module("fleet_day")
    finally:
        sys.path.remove(str(BENCHMARKS))


def test_with_room_everybody_is_delivered_to(day: ModuleType) -> None:
    found = day.simulate(day.Fleet(customers=200, places=4, giants=0.0, backfilling=0.0))
    assert found.left == 0
    assert len(found.waits["live"]) == 200 * 24
    assert found.percentile("live", 100) < day.HOUR + day.TURN_SECONDS
    assert found.depth[-1] == 0


def test_who_fills_back_and_giants_get_on_and_hurt_nobody(day: ModuleType) -> None:
    """There is work for more places than there are, of backfill; live customers hardly feel it."""
    alone = day.simulate(day.Fleet(customers=200, places=2, giants=0.0, backfilling=0.0))
    crowded = day.simulate(day.Fleet(customers=200, places=2, giants=0.005, backfilling=0.05))
    assert crowded.busy_seconds > alone.busy_seconds
    assert len(crowded.waits["backfill"]) > 24, "it gets on"
    assert crowded.left == 0
    assert crowded.percentile("live", 99) < 1.5 * alone.percentile("live", 99) + day.TURN_SECONDS


def test_too_few_places_serve_everybody_alike(day: ModuleType) -> None:
    found = day.simulate(day.Fleet(customers=200, places=1, giants=0.0, backfilling=0.0))
    assert found.left > 0
    done = len(found.waits["live"])
    assert done + found.left >= 200 * 24
    assert found.busy_seconds > 0.99 * day.DAY

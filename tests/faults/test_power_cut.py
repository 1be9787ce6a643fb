"""The power fails at every point of a delivery, once before the call takes effect and once after.

Each case: deliver until the cut, look at the bucket as a customer would, start again on the same ledger,
and compare the end with the source. Ledger and destination are real adapters; from the cut on, nothing that
the old process does has any effect.
"""

from collections.abc import Callable
from typing import Any

import pytest

from tests.forms import points

SMALL = {f"2026/11/22/{name}": name.encode() * 3 for name in ("a.csv", "b.csv", "c.csv")}
LARGE = {"2026/11/22/large.bin": bytes(range(256)) * 2}


def nothing(world: Any) -> None:
    pass


def change_small(world: Any) -> None:
    world.source.write("2026/11/22/b.csv", b"corrected at the worst moment")


def change_large(world: Any) -> None:
    world.source.write("2026/11/22/large.bin", bytes(range(255, -1, -1)) * 2)


def add_and_remove(world: Any) -> None:
    world.source.write("2026/11/22/d.csv", b"late")
    world.source.remove("2026/11/22/c.csv")


@pytest.mark.short
@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("meanwhile", [nothing, change_small, change_large, add_and_remove])
def test_wherever_the_power_fails_the_next_run_ends_whole(
    make_world: Callable[..., Any],
    make_power: Callable[..., Any],
    after: bool,
    meanwhile: Callable[[Any], None],
) -> None:
    every = 6 if meanwhile is nothing else 16
    for at in points(every, first=1 + every // 2 * after):
        world = make_world({**SMALL, **LARGE})
        first = world.process(power := make_power(at, after=after))
        world.manifests()
        if not power.off:
            assert first is not None
            assert first.outcome == "delivered"
            break
        meanwhile(world)
        for _ in range(3):
            last = world.process()
            assert last is not None
            world.manifests()
            if last.outcome in ("delivered", "skipped"):
                break
        assert last is not None
        assert last.outcome in ("delivered", "skipped"), last
        world.check_end()
    assert at > 35

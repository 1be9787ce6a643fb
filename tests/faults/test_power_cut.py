"""The power fails at every single point of a delivery, once before the call takes effect and once after.

Each case: deliver until the cut, look at the bucket as a customer would, start again on the same ledger,
and compare the end with the source. Ledger and destination are real adapters; from the cut on, nothing that
the old process does has any effect.
"""

import os
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

import pytest

from xmode_transfer.domain.errors import Defect

SMALL = {f"2026/11/22/{name}": name.encode() * 3 for name in ("a.csv", "b.csv", "c.csv")}
LARGE = {"2026/11/22/large.bin": bytes(range(256)) * 2}


class PowerCutError(Defect):
    """What the old process meets from the cut on."""


class Power:
    """Fails at the ``at``-th call, before it takes effect or after."""

    def __init__(self, at: int, *, after: bool) -> None:
        self.left = at
        self.after = after
        self.off = False

    def call(self, work: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
        if self.off:
            raise PowerCutError("the power is off")
        self.left -= 1
        fails = self.left == 0
        if fails and not self.after:
            self.off = True
            raise PowerCutError("the power fails before the call")
        answer = work(*arguments, **options)
        if fails:
            if isinstance(answer, Future):
                answer.exception()
            self.off = True
            raise PowerCutError("the power fails after the call")
        return answer

    def adapter(self, inner: Any) -> "Powered":
        return Powered(inner, self)

    def stores(self, inner: Any) -> "PoweredStores":
        return PoweredStores(inner, self)


class Powered:
    """An adapter that runs on that power."""

    def __init__(self, inner: Any, power: Power) -> None:
        self.inner = inner
        self.power = power

    def __getattr__(self, name: str) -> Any:
        value = getattr(self.inner, name)
        if not callable(value):
            return value
        return lambda *arguments, **options: self.power.call(value, *arguments, **options)


class PoweredStores:
    def __init__(self, inner: Any, power: Power) -> None:
        self.info = inner.info
        self.inner = inner
        self.power = power

    def open(self, *arguments: Any) -> Any:
        return Powered(self.inner.open(*arguments), self.power)

    def close(self) -> None:
        self.inner.close()


def nothing(world: Any) -> None:
    pass


def change_small(world: Any) -> None:
    world.source.write("2026/11/22/b.csv", b"corrected at the worst moment")


def change_large(world: Any) -> None:
    world.source.write("2026/11/22/large.bin", bytes(range(255, -1, -1)) * 2)


def add_and_remove(world: Any) -> None:
    world.source.write("2026/11/22/d.csv", b"late")
    world.source.remove("2026/11/22/c.csv")


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("meanwhile", [nothing, change_small, change_large, add_and_remove])
def test_wherever_the_power_fails_the_next_run_ends_whole(
    make_world: Callable[..., Any], after: bool, meanwhile: Callable[[Any], None]
) -> None:
    cuts = 0
    every = 1 if meanwhile is nothing or "XMODE_SOAK" in os.environ else 4
    for at in range(1, 400, every):
        world = make_world({**SMALL, **LARGE})
        first = world.process(power := Power(at, after=after))
        world.manifests()
        if not power.off:
            assert first is not None
            assert first.outcome == "delivered"
            break
        cuts += 1
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
    assert cuts * every > 35

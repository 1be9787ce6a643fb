"""The power fails at every point of a cleanup, once before the call takes effect and once after.

At the cut, each manifest that a customer sees lists only what is there. The next cleanup ends whole: what
expired is gone and on record as removed by us, and nothing else was touched.
"""

import json
from collections.abc import Callable
from typing import Any

import pytest

from tests.fakes import StoredVersion
from tests.forms import points
from xmode_transfer.ledger import open_ledger
from xmode_transfer.model.periods import Period, PeriodKind
from xmode_transfer.model.upkeep import OperationKind, RemovalOutcome

DAYS = [Period.parse(f"2026-01-{day:02}", PeriodKind.DAY) for day in (1, 2, 3)]
THEIRS = {
    "xmode/us-daily/2026/01/01/a.csv.bak": b"looks like ours",
    "xmode/us-daily/2026/01/02/b.csv": b"their words under our key",
}


@pytest.fixture
def delivered(make_world: Callable[..., Any]) -> Callable[[], Any]:
    """Worlds in which three days of long ago are delivered, and the customer has put files of its own."""

    def make() -> Any:
        world = make_world({})
        for day in DAYS:
            for name in ("a.csv", "b.csv"):
                path = f"{day.start:%Y/%m/%d}/{name}"
                world.source.write(path, path.encode(), period=day)
            outcome = world.process(period=day)
            assert outcome is not None
            assert outcome.outcome == "delivered"
        for key, data in THEIRS.items():
            world.bucket.store(StoredVersion(key, "theirs", world.clock.now(), body=data, etag='"theirs"'))
        return world

    return make


def seen(world: Any) -> dict[str, bytes]:
    contents: dict[str, bytes] = world.bucket.contents()
    assert {key: contents.get(key) for key in THEIRS} == THEIRS
    return contents


def check_manifests(world: Any) -> None:
    """Every manifest lists only what is there; one key is the customer's now."""
    contents = seen(world)
    for key, body in contents.items():
        if "/_manifests/" in key:
            assert all(item["key"] in contents for item in json.loads(body)["objects"]), key


@pytest.mark.short
@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_wherever_the_power_fails_the_next_cleanup_ends_whole(
    delivered: Callable[[], Any], make_power: Callable[..., Any], after: bool
) -> None:
    for at in points(12, first=7 if after else 1):
        world = delivered()
        kept = {
            key: data for key, data in seen(world).items() if "/2026/01/03/" in key or "2026-01-03" in key
        }
        first = world.clean(power := make_power(at, after=after), days=30)
        check_manifests(world)
        if not power.off:
            assert first is not None
            assert first.outcome == "cleaned"
            break
        last = world.clean(days=30)
        assert last is not None
        assert last.outcome in ("cleaned", "nothing"), last
        assert seen(world) == kept | THEIRS
        check_record(world)
    assert at > 20


def check_record(world: Any) -> None:
    ledger = open_ledger(world.url, world.clock)
    try:
        acts = ledger.operations.newest("acme", OperationKind.CLEANUP, None)
        assert all(act.finished_at is not None for act in acts)
        outcomes = [item.outcome for act in acts for item in ledger.operations.removals(act.id)]
        assert outcomes.count(RemovalOutcome.CHANGED) == 1
        by_us = [outcome for outcome in outcomes if outcome is not RemovalOutcome.CHANGED]
        assert len(by_us) == 5
        # Whether the bucket keeps versions may not be known yet when a dead act is settled.
        assert set(by_us) <= {RemovalOutcome.HIDDEN, RemovalOutcome.DELETED}
        assert sum(act.objects for act in acts) == 5
        left = {item.key for item in ledger.keys.delivered("acme")}
        assert left == seen(world).keys() - THEIRS.keys()
    finally:
        ledger.close()

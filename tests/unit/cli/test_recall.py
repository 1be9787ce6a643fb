"""What `recall` prints about a recall: each outcome with its reason and the next step."""

import json
import shlex
from collections.abc import Callable

import jmespath
import pytest

from tests.fakes import StoredVersion
from tests.unit.upkeep.test_recall import BASE, World, empty, fill, make
from xmode_transfer.cli import recall
from xmode_transfer.cli.opening import Opened
from xmode_transfer.cli.terminal import Tally
from xmode_transfer.model.upkeep import purge_command

__all__ = ["empty", "make"]

NAMES = ("blocked", "held", "locked", "taken", "versions")
KEY = f"xmode/{BASE}b.csv"


@pytest.fixture
def five(make: Callable[..., World]) -> World:
    world = make(settings={**{name: {} for name in NAMES}, "held": {"hold": True}})
    world.bucket("versions").versioned = True
    fill(world)
    resource = f"arn:aws:s3:::locked-data/{KEY}"
    world.grant("locked", {"Effect": "Deny", "Action": "s3:DeleteObject", "Resource": resource})
    world.grant("blocked", external_id="another")
    world.bucket("taken").store(StoredVersion(KEY, None, world.clock.now(), body=b"x", etag='"x"'))
    return world


def test_each_outcome_has_its_reason_and_the_next_step(
    five: World, capsys: pytest.CaptureFixture[str]
) -> None:
    made = five.recalled("b.csv")
    recall._show_plan(made)
    planned = capsys.readouterr().out
    assert "held: 1 period, 1 object, 22 B, 1 held" in planned
    opened = Opened(five.configuration, five.context, five.stop, Tally())
    progress = five.ledger.recalls.progress(made.recall.id)
    code = recall._carry_out(opened, made.recall, progress, made, as_json=False)
    out = capsys.readouterr().out
    assert code == 4
    for said in (
        "an opt-out (by alice",
        "behind a delete marker",
        purge_command("versions-data", KEY),
        "--despite-hold REASON",
        "overwritten by someone else",
        "ask the customer to end the lock",
        "responsible  the customer",
    ):
        assert said in out, said

    recall._show_outcome(opened, made.recall, progress, as_json=True)
    document = json.loads(capsys.readouterr().out.splitlines()[-1])
    left = {item["customer"]: [one["outcome"] for one in item["left"]] for item in document["customers"]}
    assert left["taken"] == ["changed"]
    assert left["blocked"] == []


@pytest.mark.parametrize("key", ["a.csv", "it's a key.csv", 'say "yes" \\ $HOME `x`.csv'])
def test_a_purge_command_names_exactly_one_key(key: str) -> None:
    words = shlex.split(purge_command("acme-data", key))
    assert words.count(key) == 2
    query = words[words.index("--query") + 1]
    versions = [{"Key": name, "VersionId": name} for name in (f"{key}.gz", key)]
    assert jmespath.search(query, {"Versions": versions}) == [key]

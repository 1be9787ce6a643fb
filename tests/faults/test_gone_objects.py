"""Beside a customer that deletes and overwrites what was delivered: what a manifest lists was there when it
was put, wherever the power fails, and what no manifest names does not stay."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from tests.fakes import Fault, MemoryObjectStores
from tests.forms import points
from xmode_transfer.aws.policy.documents import guide_permission_policy
from xmode_transfer.config import Destination, Feed, Settled
from xmode_transfer.ledger import open_ledger
from xmode_transfer.model.errors import AccessDenied, Throttled
from xmode_transfer.model.periods import Period, PeriodKind
from xmode_transfer.model.records import Status
from xmode_transfer.transfer import rechecking
from xmode_transfer.transfer.planning import Planner
from xmode_transfer.transfer.publishing import publish

DAY = "2026/11/22"
PLACE = f"xmode/us-daily/{DAY}/"
FILES = {f"{DAY}/{name}.csv": name.encode() * 3 for name in "abcdef"} | {f"{DAY}/large.bin": bytes(512)}
Make = Callable[..., Any]


def read(world: Any, question: Callable[[Any], Any]) -> Any:
    ledger = open_ledger(world.url, world.clock)
    try:
        return question(ledger)
    finally:
        ledger.close()


def listed(manifest: dict[str, Any]) -> dict[str, str]:
    return {item["source"][len(DAY) + 1 :]: item["key"].removeprefix(PLACE) for item in manifest["objects"]}


def requests(world: Any, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The operations of every request from now on."""
    seen: list[str] = []
    opened = MemoryObjectStores.__init__

    def noting(self: Any, *arguments: Any, **how: Any) -> None:
        def fault(operation: str, key: str, attempt: int) -> None:
            seen.append(operation)

        opened(self, *arguments, **{**how, "faults": how.get("faults") or fault})

    monkeypatch.setattr(MemoryObjectStores, "__init__", noting)
    return seen


# --- Where the power fails ------------------------------------------------------------------------------


def corrected(world: Any) -> None:
    """Delivered, then partly deleted, overwritten and corrected: a correction is due that must send again."""
    assert world.process().outcome == "delivered"
    world.take(f"{PLACE}a.csv", f"{PLACE}large.bin")
    world.put(f"{PLACE}b.csv", b"theirs")
    world.source.write(f"{DAY}/c.csv", b"corrected")


def superseded(world: Any) -> None:
    """A first revision failed and changed: its successor is due, and one key is left to remove."""
    world.put(f"{PLACE}f.csv", b"in the way")
    assert world.process().outcome != "delivered"
    world.take(f"{PLACE}f.csv", f"{PLACE}large.bin")
    world.source.write(f"{DAY}/c.csv", b"corrected")


@pytest.mark.short
@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("prepare", [corrected, superseded])
def test_wherever_the_power_fails_what_is_listed_is_there(
    make_world: Make, make_power: Callable[..., Any], after: bool, prepare: Callable[[Any], None]
) -> None:
    since = 2 if prepare is corrected else 1
    for at in points(18, first=10 if after else 1):
        world = make_world(FILES)
        prepare(world)
        first = world.process(power := make_power(at, after=after))
        world.manifests(since=since)
        if not power.off:
            assert first is not None
            assert (first.outcome, first.missing) == ("delivered", 0)
        else:
            for _ in range(3):
                last = world.process()
                if last is not None and last.outcome in ("delivered", "skipped"):
                    break
            assert last is not None
            assert last.outcome in ("delivered", "skipped"), last
        world.clean()  # what a kill after the manifest has left to do
        end = world.manifests(since=since)[-1]
        assert set(listed(end)) == {name.removeprefix(f"{DAY}/") for name in FILES}
        contents = world.bucket.contents()
        named = {item["key"] for found in world.manifests(since=since) for item in found["objects"]}
        theirs = {f"{PLACE}b.csv"} if prepare is corrected else set()
        assert {key for key in contents if "/_manifests/" not in key} <= named | theirs
        assert contents[next(item["key"] for item in end["objects"] if item["source"].endswith("c.csv"))] == (
            b"corrected"
        )
        if not power.off:
            break
    assert at > 30


# --- What is asked for ----------------------------------------------------------------------------------


def test_a_run_that_sends_everything_itself_looks_at_nothing(
    make_world: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = make_world({name: data for name, data in FILES.items() if len(data) < 100})
    seen = requests(world, monkeypatch)
    assert world.process().outcome == "delivered"
    assert seen == ["put"] * 7
    seen.clear()
    world.source.write(f"{DAY}/c.csv", b"corrected")
    assert world.process().outcome == "delivered"
    assert sorted(seen) == ["list", "put", "put"]


def test_a_correction_of_a_correction_is_walked_beside_the_listing(
    make_world: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = make_world(FILES)
    world.process()
    for revision in (2, 3):
        world.source.write(f"{DAY}/{'abcd'[revision]}.csv", b"corrected")
        assert world.process().revision == revision
    seen = requests(world, monkeypatch)
    world.source.write(f"{DAY}/z.csv", b"late")
    outcome = world.process()
    assert (outcome.revision, outcome.uploaded, outcome.skipped, outcome.sent_again) == (4, 1, 7, 0)
    assert seen.count("list") == 3  # the period, and what the corrections have put
    assert seen.count("head") == 0


def test_pages_and_batches_may_be_small(make_world: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rechecking, "_BATCH", 3)
    files = {f"{DAY}/{number:04}.csv": str(number).encode() for number in range(60)}
    world = make_world(files)
    world.process()
    for number in range(0, 60, 3):
        world.take(f"{PLACE}{number:04}.csv")
        world.put(f"{PLACE}{number + 1:04}.csv", b"theirs")
    world.source.write(f"{DAY}/0002.csv", b"corrected")
    outcome = world.process()
    assert (outcome.revision, outcome.uploaded, outcome.sent_again, outcome.skipped) == (2, 41, 40, 19)
    assert len(listed(world.manifests(since=2)[-1])) == 60


# --- What cannot be looked at ---------------------------------------------------------------------------


def test_where_it_cannot_be_told_the_manifest_is_not_put(make_world: Make) -> None:
    world = make_world(FILES)
    world.process()
    document = guide_permission_policy("acme-data")
    document["Statement"][1]["Action"].remove("s3:ListBucket")
    document["Statement"][0]["Condition"] = {}
    world.grant(document)
    world.take(f"{PLACE}a.csv")
    world.source.write(f"{DAY}/b.csv", b"corrected")
    outcome = world.process()
    assert (outcome.outcome, outcome.exit_code) == ("blocked", 4)
    assert outcome.failure.cause == AccessDenied.code
    assert f"{PLACE}a.csv cannot be checked, so the manifest is not put" in outcome.failure.message
    assert "s3:ListBucket" in outcome.failure.hint
    assert len(world.manifests(since=2)) == 1
    world.grant(guide_permission_policy("acme-data"))
    assert world.process().sent_again == 1
    assert len(world.manifests(since=2)) == 2


def test_a_listing_that_breaks_off_concludes_nothing(make_world: Make) -> None:
    world = make_world(FILES)
    world.process()
    world.source.write(f"{DAY}/b.csv", b"corrected")

    def fault(operation: str, key: str, attempt: int) -> Fault | None:
        if operation == "list":
            raise Throttled("slow down")
        return None

    outcome = world.process(faults=fault)
    assert (outcome.outcome, outcome.failure.cause) == ("failed", "throttled")
    assert len(world.manifests()) == 1
    assert world.process().sent_again == 0


# --- What is not sent again -----------------------------------------------------------------------------


def test_a_manifest_that_was_put_before_a_crash_is_not_looked_behind(
    make_world: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its customer may have loaded and deleted everything by then."""
    world = make_world(FILES)

    def killed(*arguments: Any) -> None:
        publish(*arguments)
        raise Throttled("the process dies here")

    with monkeypatch.context() as patch:
        patch.setattr("xmode_transfer.transfer.publishing.publish", killed)
        patch.setattr("xmode_transfer.ledger.deliveries.Deliveries.update", _not_delivered())
        world.process()
    world.take(*(key for key in world.bucket.contents() if "/_manifests/" not in key))
    outcome = world.process()
    assert (outcome.outcome, outcome.revision, outcome.uploaded) == ("delivered", 1, 0)
    assert len([key for key in world.bucket.contents() if "/_manifests/" not in key]) == 0


def _not_delivered() -> Callable[..., None]:
    """The ledger never hears that the delivery is delivered."""
    from xmode_transfer.ledger.deliveries import Deliveries

    written = Deliveries.update

    def update(self: Any, lease: Any, delivery: Any) -> None:
        if delivery.status is not Status.DELIVERED:
            written(self, lease, delivery)

    return update


def test_what_is_consumed_while_it_is_sent_is_not_sent_twice(make_world: Make) -> None:
    """Some customers load and delete each object as it arrives."""
    world = make_world(FILES)
    world.process()
    world.source.write(f"{DAY}/b.csv", b"corrected")
    done: list[str] = []

    def fault(operation: str, key: str, attempt: int) -> Fault | None:
        if operation == "list":
            world.take(f"{PLACE}_r2/b.csv")
            done.append(key)
        return None

    world.clock.advance(1)
    outcome = world.process(faults=fault)
    assert done
    assert (outcome.outcome, outcome.uploaded, outcome.sent_again) == ("delivered", 1, 0)


# --- Drop folders, other prefixes -----------------------------------------------------------------------


@pytest.fixture
def drops(make_world: Make) -> Any:
    """A world with a drop folder, its first batch failed because of something in the way of c."""
    world = make_world({})
    world.feed = Feed(
        name="us-daily", source="/nowhere", period=PeriodKind.NONE, complete=Settled(settle_seconds=1)
    )
    for name in "abc":
        world.source.write(f"{name}.csv", name.encode() * 3, period=Period.none())
    world.put("xmode/us-daily/c.csv", b"in the way")
    assert world.process(period=Period.none()).outcome != "delivered"
    world.take("xmode/us-daily/c.csv")
    return world


def test_a_batch_that_was_superseded_is_delivered_with_the_next(drops: Any) -> None:
    drops.source.write("b.csv", b"changed", period=Period.none())
    drops.source.remove("a.csv")  # the producer clears what it has written
    outcome = drops.process(period=Period.none())
    assert (outcome.outcome, outcome.revision) == ("delivered", 2)
    (manifest,) = drops.manifests()
    assert {item["key"] for item in manifest["objects"]} == {
        "xmode/us-daily/a.csv",
        "xmode/us-daily/_r2/b.csv",
        "xmode/us-daily/c.csv",
    }
    assert "xmode/us-daily/b.csv" not in drops.bucket.contents()
    drops.source.write("d.csv", b"ddd", period=Period.none())
    drops.process(period=Period.none())
    assert [item["source"] for item in drops.manifests()[-1]["objects"]] == ["d.csv"]
    drops.source.remove("d.csv")  # no correction
    assert drops.process(period=Period.none()).outcome == "skipped"


def test_a_batch_is_looked_at_key_by_key(drops: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    drops.take("xmode/us-daily/a.csv")
    seen = requests(drops, monkeypatch)
    outcome = drops.process(period=Period.none())
    assert (outcome.outcome, outcome.uploaded, outcome.sent_again) == ("delivered", 2, 1)
    assert "list" not in seen
    assert len(drops.manifests()[0]["objects"]) == 3


def test_a_customer_that_has_moved_gets_the_whole_period_in_the_new_place(make_world: Make) -> None:
    world = make_world(FILES)
    world.process()
    moved = Destination(bucket="acme-data", prefix="new/", region="us-east-1")
    world.customer = world.customer.model_copy(update={"destination": moved})
    world.grant(guide_permission_policy("acme-data"))
    world.source.write(f"{DAY}/b.csv", b"corrected")
    outcome = world.process()
    assert (outcome.outcome, outcome.uploaded, outcome.sent_again) == ("delivered", 7, 6)
    manifest = next(found for found in world.manifests() if found["prefix"] == "new/")
    assert all(item["key"].startswith(f"new/us-daily/{DAY}/") for item in manifest["objects"])
    assert len(manifest["objects"]) == 7


# --- A renewed marker -----------------------------------------------------------------------------------


def test_a_file_that_is_withdrawn_before_its_revision_is_published_is_in_none(make_world: Make) -> None:
    world = make_world({f"{DAY}/{name}.csv": name.encode() for name in "abc"})
    world.renew_marker()
    world.put(f"{PLACE}c.csv", b"in the way")
    assert world.process().outcome != "delivered"
    world.take(f"{PLACE}c.csv")
    world.source.remove(f"{DAY}/a.csv")
    world.renew_marker()
    outcome = world.process()
    assert (outcome.outcome, outcome.revision) == ("delivered", 2)
    (manifest,) = world.manifests()
    assert listed(manifest) == {"b.csv": "b.csv", "c.csv": "c.csv"}
    assert f"{PLACE}a.csv" not in world.bucket.contents()  # no manifest ever named it


def test_a_file_that_the_source_has_cleaned_up_stays_listed(make_world: Make) -> None:
    """Without a renewed marker, as where files settle."""
    world = make_world({f"{DAY}/{name}.csv": name.encode() for name in "abc"})
    world.process()
    world.source.remove(f"{DAY}/a.csv")
    assert world.process().outcome == "skipped"
    assert set(listed(world.manifests()[-1])) == {"a.csv", "b.csv", "c.csv"}


# --- What the ledger says afterwards --------------------------------------------------------------------


def test_what_was_sent_again_is_one_object_for_every_revision_that_names_it(make_world: Make) -> None:
    """In parts an object gets another ETag each time: a cleanup must know it again."""
    world = make_world(FILES)
    world.process()
    world.take(f"{PLACE}large.bin")
    world.source.write(f"{DAY}/b.csv", b"corrected")
    assert world.process().sent_again == 1
    found = {item.key: item for item in read(world, lambda ledger: list(ledger.keys.delivered("acme")))}
    large = found[f"{PLACE}large.bin"]
    assert large.named_by == (1, 2)
    assert large.etag == world.bucket.current(large.key).etag
    world.clock.advance(timedelta(days=40).total_seconds())
    later = Period.parse("2026-12-30", PeriodKind.DAY)  # the newest of a feed stays
    world.source.write("2026/12/30/a.csv", b"1", period=later)
    world.process(period=later)
    assert world.clean(days=30).outcome == "cleaned"
    assert [key for key in world.bucket.contents() if "2026/11/22" in key or "2026-11-22" in key] == []


def test_the_plan_says_what_a_correction_would_leave_out(make_world: Make) -> None:
    world = make_world({f"{DAY}/{name}.csv": name.encode() for name in "ab"})
    world.renew_marker()
    world.process()
    world.source.remove(f"{DAY}/a.csv")

    def reasons() -> dict[str, str]:
        state = world.source.state(Period.parse("2026-11-22", PeriodKind.DAY))

        with world.context() as context:
            planner = Planner(context, world.customer, world.feed, state, world.source)
            return {entry.name: entry.reason for entry in planner.preview()}

    assert reasons()[f"{DAY}/a.csv"].endswith("stays as delivered")
    world.renew_marker()
    assert reasons()[f"{DAY}/a.csv"].endswith("not listed any more")

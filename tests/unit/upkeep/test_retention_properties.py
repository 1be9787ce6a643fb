"""Whatever the ledger holds, the policy says, the clock shows and the listing answers: what expires is ours,
unchanged, and named by the policy."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from xmode_transfer.config import Customer
from xmode_transfer.model.records import DeliveredKey, Delivery, Holding, ListedObject, Status
from xmode_transfer.upkeep.listing import compare
from xmode_transfer.upkeep.retention import Action, Reason, Verdict, decide, judge

START = datetime(2026, 1, 1, tzinfo=UTC)
FEEDS = ("us-daily", "drops")
PREFIX = "xmode/"
LABELS = {"us-daily": tuple(f"2026-01-{day:02}" for day in range(1, 7)), "drops": ("none",)}


@dataclass(frozen=True)
class World:
    """What the ledger holds."""

    deliveries: list[Delivery]
    keys: list[DeliveredKey]
    holdings: list[Holding]

    def key(self, name: str) -> DeliveredKey:
        return next(item for item in self.keys if item.key == name)


@st.composite
def worlds(draw: st.DrawFn) -> World:
    deliveries: list[Delivery] = []
    keys: list[DeliveredKey] = []
    for feed in FEEDS:
        for label in draw(st.lists(st.sampled_from(LABELS[feed]), unique=True)):
            count = draw(st.integers(1, 3))
            for revision in range(1, count + 1):
                last = revision == count
                status = draw(st.sampled_from(list(Status)) if last else st.just(Status.DELIVERED))
                at = START + timedelta(hours=draw(st.integers(0, 24 * 400)))
                deliveries.append(
                    Delivery(
                        id=f"{feed}-{label}-{revision}",
                        customer="acme",
                        feed=feed,
                        period=label,
                        revision=revision,
                        status=status,
                        created_at=at,
                        updated_at=at,
                        delivered_at=at if status is Status.DELIVERED else None,
                    )
                )
                folder = f"{PREFIX}{feed}/{label}/_r{revision}"
                for number in range(draw(st.integers(0, 2))):
                    named = draw(st.sets(st.integers(revision, count), max_size=2)) | {revision}
                    size = draw(st.integers(0, 9))
                    record = DeliveredKey(
                        f"{folder}/{number}",
                        size,
                        f'"{number}"',
                        feed,
                        label,
                        revision,
                        at,
                        tuple(sorted(named)),
                    )
                    keys.append(record)
                if status is Status.DELIVERED:
                    manifest = f"{PREFIX}{feed}/_manifests/{label}/{revision}"
                    keys.append(DeliveredKey(manifest, None, None, feed, label, revision, at, (revision,)))
    held: dict[tuple[str, str, int], int] = {}
    for item in keys:
        place = (item.feed, item.period, item.named_by[-1])
        held[place] = held.get(place, 0) + (item.size or 0)
    keys.sort(key=lambda item: item.key)
    return World(deliveries, keys, [Holding(*place, 1, size) for place, size in held.items()])


policies = st.fixed_dictionaries(
    {},
    optional={
        "days": st.integers(1, 400),
        "keep_last": st.integers(1, 5),
        "max_bytes": st.integers(1, 60),
        "by": st.sampled_from(["period", "delivery"]),
    },
).filter(lambda policy: bool(policy.keys() - {"by"}))
retentions = st.none() | st.builds(
    lambda policy, feeds: policy | {"feeds": feeds},
    policies,
    st.dictionaries(st.sampled_from(FEEDS), policies, max_size=2),
)
holds = st.booleans() | st.lists(
    st.sampled_from(["us-daily", "drops", "us-daily/2026-01-01", "us-daily/2026-01-03"]), min_size=1
)
clocks = st.datetimes(datetime(1970, 1, 1), datetime(2300, 1, 1)).map(lambda at: at.replace(tzinfo=UTC))  # noqa: DTZ001


@st.composite
def customers(draw: st.DrawFn) -> Customer:
    said: dict[str, Any] = {"retention": draw(retentions), "hold": draw(holds)}
    return Customer(
        name="acme",
        company="Acme Corp",
        external_id="AcmeCorp",
        role_arn="arn:aws:iam::111122223333:role/XMode",
        destination={"bucket": "acme-data", "prefix": PREFIX},
        feeds=list(FEEDS),
        **said,
    )


def perfect(world: World) -> list[ListedObject]:
    return [
        ListedObject(
            item.key, 7 if item.size is None else item.size, item.etag or '"manifest"', item.delivered_at
        )
        for item in world.keys
    ]


@st.composite
def listings(draw: st.DrawFn, world: World) -> list[ListedObject]:
    """What a bucket, or a store gone wrong, may answer: cut off, out of order, empty, with unmanaged objects,
    renamed and overwritten ones, look-alikes, repeated rows."""
    rows: list[ListedObject] = []
    for row in perfect(world):
        what = draw(
            st.sampled_from(["as put"] * 6 + ["gone", "other etag", "other size", "renamed", "twice"])
        )
        key, size, etag, at = row.key, row.size, row.etag, row.modified_at
        if what == "other etag":
            etag = '"theirs"'
        elif what == "other size":
            size += 1
        elif what == "renamed":
            key += draw(st.sampled_from([" ", "/", ".bak", "\u0301", "0", "%20"]))
        if what != "gone":
            rows += [ListedObject(key, size, etag, at)] * (2 if what == "twice" else 1)
    unmanaged = draw(
        st.lists(
            st.builds(
                lambda name, at: ListedObject(name, 1, '"0"', at),
                st.text("abx/_m0", min_size=1, max_size=6).map(lambda text: f"{PREFIX}us-daily/{text}"),
                st.just(START),
            ),
            max_size=4,
        )
    )
    rows = sorted(rows + unmanaged, key=lambda row: row.key)
    if draw(st.booleans()):
        rows = rows[: draw(st.integers(0, len(rows)))]
    return draw(st.permutations(rows)) if draw(st.booleans()) else rows


def expired(
    world: World, verdicts: dict[tuple[str, str, int], Verdict], listing: Sequence[ListedObject]
) -> dict[str, ListedObject]:
    return {
        item.key: item.there
        for item in compare(listing, world.keys, PREFIX)
        if item.known is not None
        and item.there is not None
        and decide(verdicts, item.known, item.there, PREFIX)[0] is Action.EXPIRE
    }


@settings(deadline=None)
@given(st.data(), worlds(), customers(), clocks)
def test_what_expires_is_ours_unchanged_and_named_by_the_policy(
    data: st.DataObject, world: World, customer: Customer, now: datetime
) -> None:
    verdicts = judge(customer, world.deliveries, world.holdings, now)
    everything = expired(world, verdicts, perfect(world))
    listing = data.draw(listings(world))
    found = expired(world, verdicts, listing)
    assert found.keys() <= everything.keys()  # what a listing says makes nothing expire
    ours = {item.key for item in world.keys}
    for key, there in found.items():
        assert key in ours
        record = world.key(key)
        assert there.key == key
        assert record.etag is None or (there.size, there.etag) == (record.size, record.etag)
        for revision in record.named_by:
            verdict = verdicts[record.feed, record.period, revision]
            assert verdict.expires or verdict.reason is Reason.EMPTY
    assert expired(world, verdicts, []) == {}


@settings(deadline=None)
@given(worlds(), customers(), clocks)
def test_what_must_stay_stays(world: World, customer: Customer, now: datetime) -> None:
    verdicts = judge(customer, world.deliveries, world.holdings, now)
    assert verdicts.keys() == {(one.feed, one.period, one.revision) for one in world.deliveries}
    goes = {key for key, verdict in verdicts.items() if verdict.expires}
    hold = customer.hold
    for feed, period, revision in goes:
        assert customer.retention is not None
        policy = customer.retention.policy_of(feed)
        assert policy is not None
        assert hold is False or (isinstance(hold, tuple) and not {feed, f"{feed}/{period}"} & set(hold))
        if policy.days is None and policy.max_bytes is None:
            assert verdicts[feed, period, revision].reason is Reason.BEYOND_LAST
    held = {(item.feed, item.period, item.revision) for item in world.holdings}
    for feed in FEEDS:
        of_feed = [one for one in world.deliveries if one.feed == feed]
        last = {one.period: max(o.revision for o in of_feed if o.period == one.period) for one in of_feed}
        for one in of_feed:
            if one.revision == last[one.period] and one.status not in (Status.DELIVERED, Status.SKIPPED):
                open_ones = [k for k in goes if k[:2] == (feed, one.period) and feed != "drops"]
                assert open_ones == []
                assert (feed, one.period, one.revision) not in goes
        complete = [
            key
            for key in (
                (one.feed, one.period, one.revision) for one in of_feed if one.status is Status.DELIVERED
            )
            if key in held
        ]
        assert not complete or set(complete) - goes, "nothing complete is left of a feed"

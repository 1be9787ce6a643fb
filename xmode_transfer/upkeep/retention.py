"""Decide what expires and what stays, each with its reason. Pure; docs/retention.md has the rules.

A key expires only if every delivery that names it expires, and if the bucket has what we put. The listing can
only keep a key, never make it expire.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from itertools import groupby
from typing import NamedTuple

from xmode_transfer.config import By, Customer, Policy, held_by
from xmode_transfer.model.periods import PeriodKind, period_labelled
from xmode_transfer.model.records import (
    FINISHED,
    DeliveredKey,
    Delivery,
    Holding,
    ListedObject,
    Status,
    same_object,
)


class Reason(StrEnum):
    """Why a delivery stays or expires."""

    EMPTY = "empty"  # only other deliveries have keys that are left
    NO_POLICY = "no_policy"  # stays
    HELD = "held"  # stays
    UNFINISHED = "unfinished"  # stays: it is being delivered or corrected
    UNDATED = "undated"  # stays: its period's label has no date
    NEWEST = "newest"  # stays: the newest complete delivery of its feed
    KEEP_LAST = "keep_last"  # stays: one of the newest deliveries
    YOUNG = "young"  # stays: it is younger than days
    FITS = "fits"  # stays: all deliveries fit into max_bytes
    TOO_OLD = "too_old"  # expires: it is older than days
    BEYOND_LAST = "beyond_last"  # expires: keep_last newer ones exist
    TOO_MUCH = "too_much"  # expires: max_bytes is exceeded, and it is the oldest


class Verdict(NamedTuple):
    """The decision on a delivery. ``words`` is the reason for people."""

    reason: Reason
    words: str

    @property
    def expires(self) -> bool:
        return self.reason in (Reason.TOO_OLD, Reason.BEYOND_LAST, Reason.TOO_MUCH)


DeliveryKey = tuple[str, str, int]  # feed, period, revision


@dataclass(frozen=True, slots=True)
class _Unit:
    """Deliveries that stay or expire together: a period; or (by delivery, and in a drop folder) one delivery
    with the superseded revisions that it carries over."""

    feed: str
    period: str
    revisions: tuple[int, ...]
    date: datetime | None  # None: unfinished, or its label has none
    unfinished: str  # in words; empty when it is complete
    bytes: int | None  # None: nothing of it is left

    @property
    def order(self) -> tuple[datetime, str, str, int]:
        assert self.date is not None  # only dated units are sorted
        return self.date, self.feed, self.period, self.revisions[-1]


def judge(
    customer: Customer, deliveries: Iterable[Delivery], holdings: Iterable[Holding], now: datetime
) -> dict[DeliveryKey, Verdict]:
    """Return a verdict on every delivery. ``deliveries`` are all revisions of the customer's."""
    bytes_of = {(held.feed, held.period, held.revision): held.bytes for held in holdings}
    retention = customer.retention
    own = retention.feeds if retention is not None else {}
    shared: list[_Unit] = []  # of feeds without their own policy
    verdicts: dict[DeliveryKey, Verdict] = {}

    def govern(policy: Policy | None, units: list[_Unit]) -> None:
        for unit, verdict in _by_policy(customer, policy, units, now).items():
            for revision in unit.revisions:
                verdicts[unit.feed, unit.period, revision] = verdict

    in_order = sorted(deliveries, key=lambda item: (item.feed, item.period, item.revision))
    for feed, of_feed in groupby(in_order, lambda item: item.feed):
        policy = retention.policy_of(feed) if retention is not None else None
        by = policy.by if policy is not None else By.PERIOD
        units = [
            unit
            for _, revisions in groupby(of_feed, lambda item: item.period)
            for unit in _units(list(revisions), by, bytes_of)
        ]
        if feed in own:
            govern(policy, units)
        else:
            shared += units
    govern(retention if retention is not None and not retention.is_empty else None, shared)
    return verdicts


def _units(revisions: list[Delivery], by: By, bytes_of: Mapping[DeliveryKey, int]) -> Iterator[_Unit]:
    feed, label = revisions[0].feed, revisions[0].period
    period = period_labelled(label)
    drop_folder = period is not None and period.kind is PeriodKind.NONE
    last = revisions[-1]

    def unit(members: list[Delivery], date: datetime | None, unfinished: str) -> _Unit:
        keys = [(feed, label, item.revision) for item in members]
        held = [bytes_of[key] for key in keys if key in bytes_of]
        numbers = tuple(item.revision for item in members)
        return _Unit(feed, label, numbers, date, unfinished, sum(held) if held else None)

    words = f"revision {last.revision} is {last.status}"
    if not drop_folder and last.status not in FINISHED:
        yield unit(revisions, None, words)  # it is being corrected
    elif by is By.PERIOD and not drop_folder:
        end = period.end.replace(tzinfo=UTC) if period is not None else None
        yield unit(revisions, end, "")
    else:
        members: list[Delivery] = []
        for item in revisions:
            members.append(item)
            if item.status is Status.DELIVERED and item.delivered_at is not None:
                yield unit(members, item.delivered_at, "")
                members = []
        if members:
            yield unit(members, None, words)


def _by_policy(
    customer: Customer, policy: Policy | None, units: list[_Unit], now: datetime
) -> dict[_Unit, Verdict]:
    """Applies days and keep_last by feed, then max_bytes to all."""
    verdicts = {unit: _first_verdict(customer, policy, unit, rank, now) for unit, rank in _ranked(units)}
    if policy is not None and policy.max_bytes is not None:
        total = sum(unit.bytes or 0 for unit, verdict in verdicts.items() if not verdict.expires)
        removable = [unit for unit, v in verdicts.items() if v.reason in (Reason.YOUNG, Reason.FITS)]
        for unit in sorted(removable, key=lambda unit: unit.order):
            if total <= policy.max_bytes:
                break
            verdicts[unit] = Verdict(Reason.TOO_MUCH, f"the oldest beyond {policy.max_bytes:,} bytes in all")
            total -= unit.bytes or 0
    return verdicts


def _ranked(units: Iterable[_Unit]) -> Iterator[tuple[_Unit, int]]:
    """Yield each unit with the number of newer complete units of its feed that still have objects."""
    by_feed: dict[str, list[_Unit]] = defaultdict(list)
    for unit in units:
        if unit.date is None or unit.bytes is None:
            yield unit, 0
        else:
            by_feed[unit.feed].append(unit)
    for dated in by_feed.values():
        dated.sort(key=lambda unit: unit.order, reverse=True)
        # If an old period was corrected lately, the newest delivery is not of the newest period: both stay.
        newest_period = max(dated, key=lambda unit: (unit.period, unit.revisions[-1]))
        for rank, unit in enumerate(dated):
            yield unit, 0 if unit is newest_period else rank


def _first_verdict(
    customer: Customer, policy: Policy | None, unit: _Unit, rank: int, now: datetime
) -> Verdict:
    if unit.bytes is None:
        return Verdict(Reason.EMPTY, "nothing of it is left")
    held = held_by(customer.hold, unit.feed, unit.period)
    if held is not None:
        return Verdict(Reason.HELD, f"held (hold: {held})")
    if policy is None:
        return Verdict(Reason.NO_POLICY, "no retention policy names it")
    if unit.unfinished:
        return Verdict(Reason.UNFINISHED, unit.unfinished)
    if unit.date is None:
        return Verdict(Reason.UNDATED, f"{unit.period!r} has no date")
    if rank == 0:
        return Verdict(Reason.NEWEST, "the newest complete delivery of its feed")
    if policy.keep_last is not None and rank < policy.keep_last:
        return Verdict(Reason.KEEP_LAST, f"one of the newest {policy.keep_last}")
    if policy.days is not None:
        age_days = (now - unit.date).total_seconds() / 86400
        if now - unit.date >= timedelta(days=policy.days):
            return Verdict(Reason.TOO_OLD, f"{int(age_days):,} days old, kept for {policy.days}")
        return Verdict(Reason.YOUNG, f"younger than {policy.days} days")
    if policy.max_bytes is None:
        return Verdict(Reason.BEYOND_LAST, f"older than the newest {policy.keep_last}")
    return Verdict(Reason.FITS, f"fits into {policy.max_bytes:,} bytes")


class Action(StrEnum):
    KEEP = "keep"
    EXPIRE = "expire"
    LEAVE_CHANGED = "leave_changed"  # would expire, but was overwritten: it is not ours any more
    LEAVE_GONE = "leave_gone"  # would expire, but is not listed


def decide(
    verdicts: Mapping[DeliveryKey, Verdict], known: DeliveredKey, there: ListedObject | None, prefix: str
) -> tuple[Action, str]:
    """Return what to do with a key, and why. ``there`` is its row in the listing: nothing expires without
    it. A key outside of the destination's ``prefix`` stays."""
    verdict = _of_key(verdicts, known)
    if not verdict.expires:
        return Action.KEEP, verdict.words
    if not known.key.startswith(prefix):
        return Action.KEEP, f"it is not below {prefix}"
    if there is None or there.key != known.key:
        return Action.LEAVE_GONE, verdict.words
    return Action.EXPIRE if same_object(known, there) else Action.LEAVE_CHANGED, verdict.words


def _of_key(verdicts: Mapping[DeliveryKey, Verdict], known: DeliveredKey) -> Verdict:
    """A delivery that stays keeps every key that it names."""
    decisive = Verdict(Reason.NO_POLICY, "no delivery that a policy names has it")
    for revision in known.named_by:
        verdict = verdicts.get((known.feed, known.period, revision))
        if verdict is None:
            return Verdict(Reason.NO_POLICY, f"revision {revision} is unknown")
        if verdict.expires:
            decisive = verdict
        elif verdict.reason is not Reason.EMPTY:
            if revision == known.revision:
                return verdict
            return Verdict(verdict.reason, f"revision {revision} names it: {verdict.words}")
    return decisive

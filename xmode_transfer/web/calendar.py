"""A customer's calendar: the state of each period of each feed."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from xmode_transfer.config.times import Deadlines
from xmode_transfer.model.health import SourceScan
from xmode_transfer.model.periods import Period, PeriodKind
from xmode_transfer.model.records import Delivery, Status

SHOWN = {PeriodKind.DAY: 35, PeriodKind.WEEK: 27, PeriodKind.MONTH: 18, PeriodKind.HOUR: 168}
"""The number of periods in a sheet, and the order of sheets."""


class Mark(StrEnum):
    DELIVERED = "delivered"  # in time
    DELIVERED_LATE = "delivered late"  # after its deadline
    CORRECTED = "corrected"  # delivered again, with what the source had changed
    RUNNING = "running"  # its objects are being sent, or were when the process ended
    BLOCKED = "blocked"  # waiting for the customer
    FAILED = "failed"  # retried
    QUARANTINED = "quarantined"  # a check before release failed
    REJECTED = "rejected"  # quarantined, and a person decided that it is not delivered
    LATE = "late"  # complete at the source, not delivered, and past its deadline
    MISSING = "missing"  # past its deadline, and not complete at the source
    DUE = "due"  # complete at the source, and there is time yet
    EXPECTED = "expected"  # not complete at the source, and there is time yet
    PASSED_OVER = "passed over"  # skipped after a downtime, as the customer's file asks
    NOTHING = "nothing"  # nothing is expected: another weekday, or before the first source scan


@dataclass(frozen=True, slots=True)
class Cell:
    """One period of one feed."""

    feed: str
    period: str
    mark: Mark
    delivery: Delivery | None = None
    note: str = ""


@dataclass(frozen=True, slots=True)
class Sheet:
    """The feeds of one kind of period: a row of cells each. ``periods`` are from old to new."""

    kind: PeriodKind
    periods: tuple[Period, ...]
    rows: tuple[tuple[str, tuple[Cell, ...]], ...]


@dataclass(frozen=True, slots=True)
class FeedRecord:
    """The records of one subscription, with the highest revision of each period's delivery. Only an
    ``active`` one expects periods."""

    feed: str
    deadlines: Deadlines
    deliveries: Mapping[str, Delivery]
    scan: SourceScan | None = None
    skipped: Collection[str] = ()
    active: bool = True


def window(kind: PeriodKind, now: datetime, back: int = 0) -> tuple[Period, ...]:
    """Return the periods of a sheet. ``back`` counts sheets before the current one. Not for a drop folder."""
    count = SHOWN[kind]
    newest = Period.around(now, kind).step(-back * count)
    return tuple(newest.step(step) for step in range(1 - count, 1))


def sheets(records: Sequence[FeedRecord], now: datetime, back: int = 0) -> Iterator[Sheet]:
    """Yield a sheet for each kind of period that the feeds have; drop folders have none."""
    for kind in SHOWN:
        periods = window(kind, now, back)
        rows = tuple(
            (record.feed, tuple(cell(record, period, now) for period in periods))
            for record in records
            if record.deadlines.kind is kind
        )
        if rows:
            yield Sheet(kind, periods, rows)


def cell(record: FeedRecord, period: Period, now: datetime) -> Cell:
    label = period.label
    delivery = record.deliveries.get(label)
    if delivery is not None:
        mark, note = _of_delivery(delivery, record.deadlines.of(period))
    elif not record.active:
        mark, note = Mark.NOTHING, ""
    else:
        mark, note = _of_source(record, period, now)
    return Cell(record.feed, label, mark, delivery, note)


STOPPED = {
    Status.BLOCKED: Mark.BLOCKED,
    Status.FAILED: Mark.FAILED,
    Status.QUARANTINED: Mark.QUARANTINED,
}


def _of_delivery(delivery: Delivery, deadline: datetime) -> tuple[Mark, str]:
    words = delivery.failure.message if delivery.failure else ""
    if delivery.status is Status.SKIPPED and delivery.failure is not None:
        return Mark.REJECTED, words
    if delivery.status in (Status.DELIVERED, Status.SKIPPED):
        if delivery.revision > 1:
            return Mark.CORRECTED, f"revision {delivery.revision}"
        if delivery.delivered_at is not None and delivery.delivered_at > deadline:
            return Mark.DELIVERED_LATE, f"deadline {deadline:%Y-%m-%d %H:%M} UTC"
        return Mark.DELIVERED, ""
    return STOPPED.get(delivery.status, Mark.RUNNING), words


def _of_source(record: FeedRecord, period: Period, now: datetime) -> tuple[Mark, str]:
    label, scan, deadline = period.label, record.scan, record.deadlines.of(period)
    passed, by = deadline <= now, f"deadline {deadline:%Y-%m-%d %H:%M} UTC"
    if label in record.skipped:
        return Mark.PASSED_OVER, ""
    if scan is None:
        return Mark.NOTHING, ""
    if label in scan.due:
        return (Mark.LATE if passed else Mark.DUE), by
    if not record.deadlines.expects(period):
        return Mark.NOTHING, ""
    reason = next((item.reason for item in scan.waiting if item.period == label), "")
    note = f"{reason}; {by}" if reason else by
    if not passed:
        return Mark.EXPECTED, note
    # If an older period was delivered, this one was expected too.
    first = not any(known < label for known in record.deliveries)
    if deadline <= scan.first_looked_at and not reason and first:
        return Mark.NOTHING, "before the first source scan"
    return Mark.MISSING, note

"""The snapshot of every subscription's state. It does not read the history: it steps from one subscription to
the next along an index, and takes the newest row of each."""

from collections.abc import Sequence
from typing import Any, TypeVar

import sqlalchemy as sa
from sqlalchemy import ColumnElement, Connection, Table, exists, func, select

from xmode_transfer.ledger import keys, watching
from xmode_transfer.ledger.database import Database
from xmode_transfer.ledger.deliveries import DELIVERIES, IS_NEWEST
from xmode_transfer.ledger.rows import Rows
from xmode_transfer.ledger.tables import (
    CAPABILITIES,
    DELIVERY,
    DISCREPANCY,
    JUDGEMENT,
    OPERATION,
    RECALL_PROGRESS,
    SCAN,
    access_checks,
    access_findings,
    capabilities,
    deliveries,
    discrepancies,
    judgements,
    objects,
    operations,
    periods,
    recall_customers,
    recalls,
    receipts,
    releases,
    runs,
    scans,
    skipped_periods,
    upload_parts,
    uploads,
)
from xmode_transfer.model.checks import Verdict
from xmode_transfer.model.findings import DISPROVED_BY_SENDING, Severity
from xmode_transfer.model.health import (
    CheckSummary,
    CleanupSummary,
    FailedVerdict,
    OpenDelivery,
    OpenRecall,
    OrphanedUploads,
    Snapshot,
    Subscription,
)
from xmode_transfer.model.recall import RecallState
from xmode_transfer.model.records import Delivery, Status, UploadStatus
from xmode_transfer.model.upkeep import Discrepancy, OperationKind

R = TypeVar("R")

SUMMED_OBJECTS = 50_000
"""The most planned objects of which a snapshot counts the sent ones: it is taken every few seconds."""
_DELIVERIES_AT_A_TIME = 500
_VERDICTS = 500  # the newest of each kind


def snapshot(database: Database) -> Snapshot:
    space = database.space()
    return database.read(lambda connection: _snapshot(connection, *space))


def _snapshot(connection: Connection, free: int | None, used: int) -> Snapshot:
    not_attested = select(periods.c.customer, periods.c.feed, func.count()).join_from(deliveries, periods)
    skipped = select(skipped_periods.c.customer, skipped_periods.c.feed, func.max(skipped_periods.c.period))
    return Snapshot(
        scans=_by_subscription(SCAN, connection, select(scans)),
        delivered=_delivered(connection),
        open=_open(connection),
        capabilities={
            row.customer: CAPABILITIES.record(row) for row in connection.execute(select(capabilities))
        },
        orphaned=_orphaned(connection),
        checks=_checks(connection),
        cleanups=_cleanups(connection),
        discrepancies=_discrepancies(connection),
        superseded=keys.superseded_left(connection),
        recalls=_recalls(connection),
        skipped=_each_value(connection, skipped),
        not_attested=_each_value(connection, not_attested.where(deliveries.c.not_attested.is_not(None))),
        verdicts=_verdicts(connection),
        daemon=next(iter(watching.newest(connection, 1)), None),
        free_bytes=free,
        used_bytes=used,
    )


def _by_subscription(rows: Rows[R], connection: Connection, query: sa.Select[Any]) -> dict[Subscription, R]:
    return {(row.customer, row.feed): rows.record(row) for row in connection.execute(query)}


def _each_value(connection: Connection, query: sa.Select[Any]) -> dict[Subscription, Any]:
    """Run a query for customer, feed and an aggregate."""
    rows = connection.execute(query.group_by(*list(query.selected_columns)[:2]))
    return {(customer, feed): value for customer, feed, value in rows}


def _delivered(connection: Connection) -> dict[Subscription, Delivery]:
    """Return each subscription's newest delivered period."""
    known = _each(periods, "customer", "feed")
    of_known, done, revision = periods.alias("of_known"), deliveries.alias("done"), deliveries.alias("last")
    delivered = Status.DELIVERED
    has_one = exists().where(done.c.period_id == of_known.c.id, done.c.status == delivered)
    newest = _newest(known, of_known, of_known.c.period, has_one)
    highest = (
        select(func.max(revision.c.revision))
        .where(revision.c.period_id == deliveries.c.period_id, revision.c.status == delivered)
        .correlate(deliveries)
        .scalar_subquery()
    )
    query = (
        select(deliveries, periods.c.customer, periods.c.feed, periods.c.period)
        .select_from(known)
        .join(periods, periods.c.id == newest)
        .join(deliveries, deliveries.c.period_id == periods.c.id)
        .where(deliveries.c.revision == highest)
    )
    return _by_subscription(DELIVERY, connection, query)


_STOPPED = (Status.FAILED, Status.BLOCKED, Status.QUARANTINED)


def _open(connection: Connection) -> dict[Subscription, tuple[OpenDelivery, ...]]:
    # The IDs of one delivery's runs sort as their times do (delivery/deliver.py), and are in the index.
    since_at = (
        select(runs.c.finished_at)
        .where(runs.c.delivery_id == deliveries.c.id, runs.c.outcome.in_(_STOPPED))
        .order_by(runs.c.id)
        .limit(1)
        .correlate(deliveries)
        .scalar_subquery()
    )
    query = (
        DELIVERIES.add_columns(since_at.label("since_at"))
        .where(deliveries.c.status.in_((Status.PLANNED, Status.RUNNING, *_STOPPED)), IS_NEWEST)
        .order_by(periods.c.period)
    )
    rows = connection.execute(query).all()
    begun = [DELIVERY.record(row) for row in rows]
    sent = _sent_bytes(connection, begun)
    found: dict[Subscription, list[OpenDelivery]] = {}
    for row, delivery in zip(rows, begun, strict=True):
        since = row.since_at if delivery.failure is not None else None
        item = OpenDelivery(delivery, since or delivery.created_at, sent.get(delivery.id, 0))
        found.setdefault((delivery.customer, delivery.feed), []).append(item)
    return {subscription: tuple(items) for subscription, items in found.items()}


def _sent_bytes(connection: Connection, begun: Sequence[Delivery]) -> dict[str, int]:
    """Return the bytes that were sent of each delivery; if there are too many objects to count, only of those
    with the largest objects."""
    chosen, left = [], SUMMED_OBJECTS
    for item in sorted(begun, key=lambda item: item.total_bytes / max(1, item.object_count), reverse=True):
        if 0 < item.object_count <= left:
            left -= item.object_count
            chosen.append(item.id)
    sent: dict[str, int] = {}
    for start in range(0, len(chosen), _DELIVERIES_AT_A_TIME):
        # By the plan's own names: a drop folder's period has the receipts of all its revisions.
        query = (
            select(deliveries.c.id, func.sum(objects.c.size))
            .join_from(deliveries, objects)
            .join(receipts)
            .where(deliveries.c.id.in_(chosen[start : start + _DELIVERIES_AT_A_TIME]))
            .group_by(deliveries.c.id)
        )
        sent |= {number: int(size) for number, size in connection.execute(query)}
    # Of unfinished large objects, the parts that were sent.
    of_parts = (
        select(uploads.c.delivery_id, func.sum(upload_parts.c.size))
        .join_from(uploads, upload_parts)
        .where(uploads.c.status == UploadStatus.OPEN)
        .group_by(uploads.c.delivery_id)
    )
    for number, size in connection.execute(of_parts):
        sent[number] = sent.get(number, 0) + int(size)
    return sent


def _orphaned(connection: Connection) -> dict[str, OrphanedUploads]:
    query = (
        select(
            uploads.c.customer,
            func.count(),
            func.sum(uploads.c.sent_bytes),
            func.min(uploads.c.opened_at),
            func.count() - func.count(uploads.c.abort_at),
            func.max(uploads.c.abort_at),
        )
        .where(uploads.c.status == UploadStatus.ORPHANED)
        .group_by(uploads.c.customer)
    )
    return {
        customer: OrphanedUploads(count, int(size or 0), oldest, kept, ends)
        for customer, count, size, oldest, kept, ends in connection.execute(query)
    }


def _checks(connection: Connection) -> dict[str, CheckSummary]:
    """Return each customer's last check; if it is not ok, with its grave findings and since when."""
    known = _each(access_checks, "customer")
    of_known, good, bad = (access_checks.alias(name) for name in ("of_known", "good", "bad"))
    newest = _newest(known, of_known, of_known.c.checked_at)
    last_good = (
        select(good.c.checked_at)
        .where(good.c.customer == access_checks.c.customer, good.c.outcome == "ok")
        .order_by(good.c.checked_at.desc())
        .limit(1)
        .correlate(access_checks)
        .scalar_subquery()
    )
    bad_since = (
        select(func.min(bad.c.checked_at))
        .where(
            bad.c.customer == access_checks.c.customer,
            bad.c.checked_at > func.coalesce(last_good, sa.literal("")),
        )
        .correlate(access_checks)
        .scalar_subquery()
    )
    query = select(access_checks, bad_since.label("bad_since")).select_from(known)
    rows = connection.execute(query.join(access_checks, access_checks.c.id == newest)).all()
    return {
        row.customer: CheckSummary(row.checked_at, row.outcome)
        if row.outcome == "ok"
        else _bad_check(connection, row)
        for row in rows
    }


def _bad_check(connection: Connection, row: Any) -> CheckSummary:
    grave = connection.execute(
        select(access_findings)
        .where(
            access_findings.c.check_id == row.id,
            access_findings.c.severity.in_([Severity.ERROR, Severity.CRITICAL]),
        )
        .order_by(access_findings.c.severity, access_findings.c.number)  # critical before error
    ).all()
    if any(item.cause in DISPROVED_BY_SENDING for item in grave) and _has_sent(connection, row):
        grave = [item for item in grave if item.cause not in DISPROVED_BY_SENDING]
    causes = tuple(dict.fromkeys(item.cause for item in grave if item.cause))
    first = next((item for item in grave if item.cause), None)
    return CheckSummary(
        row.checked_at,
        row.outcome,
        causes,
        first.responsible if first else None,
        first.message if first else "",
        row.bad_since,
    )


def _has_sent(connection: Connection, check: Any) -> bool:
    """Return True if a run that started after the check has sent an object to the customer."""
    query = (
        select(runs.c.id)
        .join(deliveries, deliveries.c.id == runs.c.delivery_id)
        .join(periods, periods.c.id == deliveries.c.period_id)
        .where(
            periods.c.customer == check.customer,
            deliveries.c.updated_at > check.checked_at,
            runs.c.started_at > check.checked_at,
            sa.or_(runs.c.outcome == Status.DELIVERED, runs.c.uploaded > 0),
        )
        .limit(1)
    )
    return connection.execute(query).first() is not None


def _cleanups(connection: Connection) -> dict[str, CleanupSummary]:
    known = _each(operations, "customer")
    of_known = operations.alias("of_known")
    ended = (of_known.c.kind == OperationKind.CLEANUP, of_known.c.finished_at.is_not(None))
    newest = _newest(known, of_known, of_known.c.started_at, *ended)
    query = select(operations).select_from(known).join(operations, operations.c.id == newest)
    done = [OPERATION.record(row) for row in connection.execute(query)]
    return {
        item.customer: CleanupSummary(item.finished_at, item.outcome or "", item.failed, item.failure)
        for item in done
        if item.finished_at is not None
    }


def _discrepancies(connection: Connection) -> dict[str, tuple[Discrepancy, ...]]:
    columns = discrepancies.c
    query = select(discrepancies).order_by(columns.customer, columns.feed, columns.period, columns.flaw)
    found: dict[str, list[Discrepancy]] = {}
    for row in connection.execute(query):
        found.setdefault(row.customer, []).append(DISCREPANCY.record(row))
    return {customer: tuple(items) for customer, items in found.items()}


def _verdicts(connection: Connection) -> dict[str, tuple[FailedVerdict, ...]]:
    """Return the newest failed verdicts by feed, with the customers for whom a person has decided."""
    identity = ("feed", "period", "name", "fingerprint")
    same = (releases.c[name] == judgements.c[name] for name in identity)
    decided = select(judgements, releases.c.customer.label("decided")).outerjoin(releases, sa.and_(*same))
    found: dict[str, dict[tuple[str, str], FailedVerdict]] = {}
    for verdict in (Verdict.QUARANTINED, Verdict.WARNED):
        newest = select(judgements.c.judged_at).where(judgements.c.verdict == verdict)
        oldest = newest.order_by(judgements.c.judged_at.desc()).offset(_VERDICTS).limit(1).scalar_subquery()
        which = (
            judgements.c.verdict == verdict,
            judgements.c.judged_at > func.coalesce(oldest, sa.literal("")),
        )
        for row in connection.execute(decided.where(*which).order_by(judgements.c.judged_at)):
            of_feed = found.setdefault(row.feed, {})
            known = of_feed.get((row.period, row.name))
            decided_for = (known.decided if known else frozenset()) | ({row.decided} - {None})
            of_feed[row.period, row.name] = FailedVerdict(JUDGEMENT.record(row), decided_for)
    return {feed: tuple(of_feed.values()) for feed, of_feed in found.items()}


def _recalls(connection: Connection) -> dict[str, tuple[OpenRecall, ...]]:
    columns = recall_customers.c
    query = (
        select(recall_customers, recalls.c.feed, recalls.c.started_at)
        .join(recalls, recalls.c.id == columns.recall)
        .where(columns.state != RecallState.DONE)
        .order_by(columns.customer, recalls.c.started_at)
    )
    found: dict[str, list[OpenRecall]] = {}
    for row in connection.execute(query):
        item = OpenRecall(row.feed, row.started_at, RECALL_PROGRESS.record(row))
        found.setdefault(row.customer, []).append(item)
    return {customer: tuple(items) for customer, items in found.items()}


def _newest(
    known: sa.CTE, table: Any, at: ColumnElement[Any], *which: ColumnElement[bool]
) -> sa.ScalarSelect[Any]:
    """The ID of the last row, by ``at``, of those that belong to a row of ``known``."""
    same = (table.c[column.name] == column for column in known.c)
    query = select(table.c.id).where(*same, *which).order_by(at.desc(), table.c.id.desc()).limit(1)
    return query.correlate(known).scalar_subquery()


def _each(table: Table, *names: str) -> sa.CTE:
    """Each combination of the leading columns of an index, by one step along the index for each, however many
    rows there are. The table has an ``id``."""
    beginning, beyond, following = table.alias("beginning"), table.alias("beyond"), table.alias("following")
    columns = [beginning.c[name] for name in names]
    first = select(*columns).order_by(*columns).limit(1).subquery("first")
    steps = select(*first.c).cte(f"each_of_{table.name}", recursive=True)
    past = [beyond.c[name] for name in names]
    next_id = (
        select(beyond.c.id)
        .where(sa.tuple_(*past) > sa.tuple_(*(steps.c[name] for name in names)))
        .order_by(*past)
        .limit(1)
        .correlate(steps)
        .scalar_subquery()
    )
    return steps.union_all(
        select(*(following.c[name] for name in names))
        .select_from(steps)
        .join(following, following.c.id == next_id)
    )

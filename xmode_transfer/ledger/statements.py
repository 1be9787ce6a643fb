"""Statements that run for every object or every job. A ``..._PAGE`` has the rows after a name, in order."""

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy import ColumnElement, and_, bindparam, exists, func, select, text
from sqlalchemy.dialects.postgresql import ARRAY

from xmode_transfer.ledger.rows import Time
from xmode_transfer.ledger.tables import (
    deliveries,
    missing,
    objects,
    periods,
    queue_customers,
    receipts,
    removals,
    staged_objects,
    withdrawn,
)
from xmode_transfer.model.jobs import BACKFILL_HANDICAP, PRIORITY_STEPS
from xmode_transfer.model.records import SUPERSEDED, Status
from xmode_transfer.model.upkeep import REMOVED, RemovalOutcome

LIKE_ESCAPE = "\\"

_LIMIT: Any = bindparam("limit", type_=sa.Integer)
_PERIOD: Any = bindparam("period_id", type_=sa.BigInteger)
_REVISION: Any = bindparam("revision", type_=sa.Integer)
_OBJECT = [objects.c[name] for name in ("name", "key", "size", "modified_ns", "identity", "carried")]
_PROOF = ["key", "size", "algorithm", "checksum", "etag", "delivered_at", "version_id", "sha256"]
_RECEIPT = [receipts.c[name] for name in _PROOF]


def _same_object(one: Any, other: Any) -> ColumnElement[bool]:
    return and_(*(one.c[name] == other.c[name] for name in ("period_id", "revision", "name")))


def _in_delivery(table: Any) -> ColumnElement[bool]:
    return and_(table.c.period_id == _PERIOD, table.c.revision == _REVISION)


SAME_OBJECT = _same_object(receipts, objects)


def was_removed(table: Any, key: Any = None) -> sa.Exists:
    """An operation removed the key of a row of ``receipts`` (or another table's ``key`` column) as that
    delivery had put it: a key that was delivered again exists."""
    return exists().where(
        removals.c.period_id == table.c.period_id,
        removals.c.key == (table.c.key if key is None else key),
        removals.c.delivered_at == table.c.delivered_at,
        sa.or_(
            *(removals.c.outcome == outcome for outcome in sorted(REMOVED)),
            # An overwritten object is no longer ours. A manifest is: while one exists, its objects stay.
            and_(removals.c.outcome == RemovalOutcome.CHANGED, ~removals.c.manifest),
        ),
    )


def is_superseded(table: Any = deliveries) -> ColumnElement[bool]:
    """A row of ``deliveries`` was replaced by another revision and never published: its manifest was not put,
    not even by a process that was killed before it recorded that."""
    cause = func.coalesce(table.c.failure_cause, "")
    return and_(table.c.status == Status.FAILED, cause == SUPERSEDED, table.c.manifest_key.is_(None))


_revision = deliveries.alias("its_revision")
OF_SUPERSEDED = exists().where(
    _revision.c.period_id == receipts.c.period_id,
    _revision.c.revision == receipts.c.revision,
    is_superseded(_revision),
)
"""A row of ``receipts`` belongs to such a revision."""

OF_WITHDRAWN = exists().where(
    withdrawn.c.feed == periods.c.feed,
    withdrawn.c.period == periods.c.period,
    *(withdrawn.c[name] == receipts.c[name] for name in ("name", "size", "algorithm", "checksum")),
    sa.or_(withdrawn.c.customer == "", withdrawn.c.customer == periods.c.customer),
)
"""A row of ``receipts``, joined with ``periods``, has content that a recall has withdrawn."""


def _page(
    table: sa.Table, source: sa.FromClause, *columns: Any, where: Sequence[ColumnElement[bool]] = ()
) -> sa.Select[Any]:
    return (
        select(*columns)
        .select_from(source)
        .where(_in_delivery(table), table.c.name > bindparam("after"), *where)
        .order_by(table.c.name)
        .limit(_LIMIT)
    )


_WITH_RECEIPTS = objects.outerjoin(receipts, SAME_OBJECT)
_REMOVED_SINCE = (objects.c.revision, was_removed(receipts))
PLANNED_PAGE = _page(objects, _WITH_RECEIPTS, *_OBJECT, *_RECEIPT)
PENDING_PAGE = _page(objects, objects, *_OBJECT, where=[~exists().where(SAME_OBJECT)])
PROVEN_PAGE = _page(objects, objects.join(receipts, SAME_OBJECT), *_OBJECT, *_RECEIPT, *_REMOVED_SINCE)
FOUND_PAGE = _page(
    objects,
    _WITH_RECEIPTS,
    *_OBJECT,
    *_RECEIPT,
    *_REMOVED_SINCE,
    where=[
        objects.c.name >= bindparam("first"),
        objects.c.name <= bindparam("last"),
        objects.c.name.ilike(bindparam("pattern", type_=sa.Text), escape=LIKE_ESCAPE),
    ],
)
MISSING_PAGE = _page(
    missing,
    missing,
    *(missing.c[name] for name in ("name", "key", "size", "algorithm", "checksum", "reason")),
)
# Every receipt has its object; the outer join makes sure that the receipts are walked in order, and the
# objects looked up.
DELIVERED_PAGE = (
    select(*_OBJECT, *_RECEIPT, receipts.c.revision, was_removed(receipts), OF_SUPERSEDED)
    .select_from(receipts.outerjoin(objects, SAME_OBJECT))
    .where(
        receipts.c.period_id == _PERIOD,
        sa.tuple_(receipts.c.name, receipts.c.revision)
        > sa.tuple_(bindparam("after"), bindparam("after_revision", type_=sa.Integer)),
    )
    .order_by(receipts.c.name, receipts.c.revision)
    .limit(_LIMIT)
)

_present = receipts.alias("present")
_STAGED_HAS_RECEIPT = exists().where(_in_delivery(_present), _present.c.name == staged_objects.c.name)
MERGED = (
    ["period_id", "revision", *staged_objects.c.keys()],
    select(_PERIOD, _REVISION, *staged_objects.c).where(~_STAGED_HAS_RECEIPT),
)
# Receipts of carried objects, each from the last revision before that put it under this key.
_earlier, _known = receipts.alias("earlier"), receipts.alias("known")
_LAST = (
    select(func.max(_known.c.revision))
    .where(
        _known.c.period_id == _PERIOD,
        _known.c.name == staged_objects.c.name,
        _known.c.key == staged_objects.c.key,
        _known.c.revision < _REVISION,
    )
    .scalar_subquery()
)
_same_name = and_(_earlier.c.period_id == _PERIOD, _earlier.c.name == staged_objects.c.name)
COPY_CARRIED = sa.insert(receipts).from_select(
    ["period_id", "revision", "name", *_PROOF],
    select(_PERIOD, _REVISION, staged_objects.c.name, *(_earlier.c[name] for name in _PROOF))
    .select_from(staged_objects.join(_earlier, and_(_same_name, _earlier.c.revision == _LAST)))
    .where(staged_objects.c.carried, ~_STAGED_HAS_RECEIPT),
)
NOT_CARRIED = select(func.count(), func.min(staged_objects.c.name)).where(
    staged_objects.c.carried, ~_STAGED_HAS_RECEIPT
)
_staged_names = select(staged_objects.c.name)
NOT_MISSING = sa.delete(missing).where(_in_delivery(missing), missing.c.name.in_(_staged_names))

# Objects without a receipt, each with another name of the period that has the same key: in the same revision,
# or with a receipt in any.
_other = objects.alias("other")
_other_is_there = sa.or_(
    _other.c.revision == objects.c.revision, exists().where(_same_object(receipts, _other))
)
_MEETS = and_(
    _other.c.period_id == objects.c.period_id,
    _other.c.key == objects.c.key,
    _other.c.name != objects.c.name,
    _other_is_there,
)
COLLISIONS = (
    select(*_OBJECT, func.min(_other.c.name))
    .select_from(objects.join(_other, _MEETS))
    .where(_in_delivery(objects), ~exists().where(_same_object(_present, objects)))
    .group_by(*_OBJECT)
    .order_by(objects.c.name)
)
OTHER_NAME = select(func.min(_other.c.name)).where(
    _other.c.period_id == _PERIOD,
    _other.c.key == bindparam("key"),
    _other.c.name != bindparam("name"),
    sa.or_(_other.c.revision == _REVISION, exists().where(_same_object(receipts, _other))),
)

# The highest revision of a name that has a receipt.
_NEWEST = (
    select(func.max(receipts.c.revision))
    .where(receipts.c.period_id == bindparam("of_period"), receipts.c.name == bindparam("of_name"))
    .scalar_subquery()
)
RESTAMP_OBJECT = (
    sa.update(objects)
    .where(
        objects.c.period_id == bindparam("of_period"),
        objects.c.name == bindparam("of_name"),
        objects.c.revision == _NEWEST,
    )
    .values(modified_ns=bindparam("new_modified_ns"), identity=bindparam("new_identity"))
)
# Gives a delivery's receipts to all other revisions of its period that list the same keys.
_mine = receipts.alias("mine")
SPREAD_RECEIPTS = (
    sa.update(receipts)
    .values({name: _mine.c[name] for name in _PROOF if name != "key"})
    .where(
        _in_delivery(objects),
        _same_object(_mine, objects),
        receipts.c.period_id == _mine.c.period_id,
        receipts.c.name == _mine.c.name,
        receipts.c.key == _mine.c.key,
        receipts.c.revision != _mine.c.revision,
        receipts.c.delivered_at != _mine.c.delivered_at,
    )
)


REGULAR = "regular"
SUSPENDED = "suspended"
"""The queue of suspended customers, whose jobs may hang."""
_CUSTOMERS = bindparam("customers", type_=ARRAY(sa.TEXT))

# ``tag`` is the customer's cost so far when it is queued; another request does not change it.
ENQUEUE = text("""
    INSERT INTO procrastinate_jobs AS job (queue_name, task_name, priority, lock, queueing_lock, args)
    SELECT CASE WHEN reason = '' THEN :regular ELSE :suspended END, 'deliver',
        -floor((tag + CASE WHEN backfill AND NOT live THEN :handicap ELSE 0 END) * :steps)::integer,
        customer, customer, jsonb_build_object('tag', tag, 'live', live, 'skip_backoff', skip_backoff,
            'serving_at', asked.serving_at, 'queued_at', CAST(:now AS text))
    FROM unnest(:customers, :skip_backoff, :serving_at, :live)
        AS asked (customer, skip_backoff, serving_at, live)
    JOIN queue_customers USING (customer)
    CROSS JOIN LATERAL (SELECT greatest(spent, (SELECT clock FROM queue_clock)) AS tag) AS present
    ORDER BY customer
    ON CONFLICT (queueing_lock) WHERE status = 'todo' DO UPDATE SET
        priority = CASE WHEN (excluded.args->>'live')::boolean
            THEN -floor((job.args->>'tag')::double precision * :steps)::integer ELSE job.priority END,
        args = job.args || jsonb_build_object(
            'skip_backoff', (job.args->>'skip_backoff')::boolean OR (excluded.args->>'skip_backoff')::boolean,
            'serving_at', greatest(job.args->>'serving_at', excluded.args->>'serving_at'))
""").bindparams(
    _CUSTOMERS,
    bindparam("skip_backoff", type_=ARRAY(sa.Boolean)),
    bindparam("serving_at", type_=ARRAY(sa.TEXT)),
    bindparam("live", type_=ARRAY(sa.Boolean)),
    regular=REGULAR,
    suspended=SUSPENDED,
    handicap=BACKFILL_HANDICAP,
    steps=PRIORITY_STEPS,
)
_ID = bindparam("id", type_=sa.BigInteger)
FETCH = text("""
    SELECT id, lock AS customer, queue_name, (args->>'tag')::double precision AS tag,
        (args->>'skip_backoff')::boolean AS skip_backoff, args->>'serving_at' AS serving_at
    FROM procrastinate_fetch_job_v2(CAST(ARRAY[:queue] AS varchar[]), NULL) WHERE id IS NOT NULL
""").columns(serving_at=Time())
PUT_BACK = text("""
    SELECT procrastinate_retry_job_v2(:id, now() + make_interval(secs => :seconds), NULL, NULL, NULL)
""").bindparams(_ID)
BEGUN = text("""
    UPDATE procrastinate_jobs SET args = args || jsonb_build_object(
        'holder', CAST(:holder AS text), 'generation', CAST(:generation AS bigint),
        'begun_at', CAST(:now AS text))
    WHERE id = :id
""").bindparams(_ID)
MOVE_CLOCK = text("""
    UPDATE queue_clock SET clock = :tag WHERE id = (
        SELECT id FROM queue_clock WHERE clock < :tag FOR NO KEY UPDATE SKIP LOCKED)
""")
RUNNING = text("""
    SELECT id FROM procrastinate_jobs
    WHERE id = :id AND status = 'doing' AND (args->>'generation')::bigint = :generation FOR UPDATE
""").bindparams(_ID)
FINISH = text(
    "SELECT procrastinate_finish_job_v1(:id, CAST(:how AS procrastinate_job_status), true)"
).bindparams(_ID)
TAKE_OUT = (
    text("""
    DELETE FROM procrastinate_jobs WHERE queueing_lock = ANY(:customers) AND status = 'todo'
    RETURNING lock AS customer, (args->>'skip_backoff')::boolean AS skip_backoff,
        args->>'serving_at' AS serving_at
""")
    .bindparams(_CUSTOMERS)
    .columns(serving_at=Time())
)
ABORT = text("""
    SELECT procrastinate_cancel_job_v1(id, true, false) FROM procrastinate_jobs
    WHERE lock = ANY(:customers) AND status = 'doing'
""").bindparams(_CUSTOMERS)
SNAPSHOT = text("""
    SELECT queue_customers.*, doing.args->>'begun_at' AS begun_at, doing.args->>'holder' AS holder,
        todo.args->>'queued_at' AS queued_at
    FROM queue_customers
    LEFT JOIN procrastinate_jobs AS doing ON doing.lock = customer AND doing.status = 'doing'
    LEFT JOIN procrastinate_jobs AS todo ON todo.queueing_lock = customer AND todo.status = 'todo'
    ORDER BY customer
""").columns(
    **{column.name: column.type for column in queue_customers.columns}, begun_at=Time(), queued_at=Time()
)
HELD = (
    text("""
    SELECT job.id, job.lock AS customer, job.args->>'holder' AS begun_by,
        (job.args->>'generation')::bigint AS generation, (job.args->>'skip_backoff')::boolean AS skip_backoff,
        job.args->>'serving_at' AS serving_at, lease.holder, lease.presence, lease.expires_at
    FROM procrastinate_jobs AS job LEFT JOIN leases AS lease
        ON lease.name = :under || job.lock AND lease.generation = (job.args->>'generation')::bigint
    WHERE job.status = 'doing' AND (CAST(:id AS bigint) IS NULL OR job.id = :id)
    ORDER BY job.lock
""")
    .bindparams(_ID)
    .columns(serving_at=Time(), expires_at=Time())
)
QUEUED = text(f"""
    SELECT count(*) FROM procrastinate_jobs AS job
    WHERE job.status = 'todo' AND job.queue_name = '{REGULAR}' AND NOT EXISTS (
        SELECT 1 FROM procrastinate_jobs AS other WHERE other.lock = job.lock AND other.status = 'doing')
""")
TO_STOP = text("""
    SELECT lock FROM procrastinate_jobs
    WHERE status = 'doing' AND abort_requested AND args->>'holder' = :holder
""")
REBASE = (
    text("LOCK TABLE procrastinate_jobs IN SHARE ROW EXCLUSIVE MODE"),
    text("""
        UPDATE procrastinate_jobs SET priority = least(0, priority + (clock * :steps)::integer),
            args = args || jsonb_build_object(
                'tag', greatest(0, (args->>'tag')::double precision - clock))
        FROM queue_clock WHERE status = 'todo'
    """).bindparams(steps=PRIORITY_STEPS),
    text("UPDATE queue_customers SET spent = greatest(0, spent - clock) FROM queue_clock"),
    text("UPDATE queue_clock SET clock = 0"),
)

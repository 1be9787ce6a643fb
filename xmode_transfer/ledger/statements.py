"""The statements that run for every object, in SQLAlchemy's words, for whichever database.

A ``..._PAGE`` is in the order of names, after a name.
"""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Exists,
    FromClause,
    Integer,
    Select,
    Table,
    Text,
    and_,
    bindparam,
    delete,
    exists,
    func,
    insert,
    or_,
    select,
    tuple_,
    update,
)

from xmode_transfer.ledger.tables import deliveries, missing, objects, receipts, removals, staged_objects
from xmode_transfer.model.operations import REMOVED, RemovalOutcome
from xmode_transfer.model.records import SUPERSEDED, Status

LIKE_ESCAPE = "\\"

_LIMIT: Any = bindparam("limit", type_=Integer)
_PERIOD: Any = bindparam("period_id", type_=BigInteger)
_REVISION: Any = bindparam("revision", type_=Integer)
_OBJECT = [objects.c[name] for name in ("name", "key", "size", "modified_ns", "identity", "carried")]
_PROOF = ["key", "size", "algorithm", "checksum", "etag", "delivered_at", "version_id", "sha256"]
_RECEIPT = [receipts.c[name] for name in _PROOF]
SAME_OBJECT = and_(
    receipts.c.period_id == objects.c.period_id,
    receipts.c.revision == objects.c.revision,
    receipts.c.name == objects.c.name,
)

# --- What we have taken away, and what no manifest ever named


def was_removed(table: Any, key: Any = None) -> Exists:
    """Whether an act removed the key of a row of ``receipts`` (or another table's ``key`` column) as it was
    delivered then. By the delivery's own time, not by comparing clocks: a key that was delivered again is
    there."""
    return exists().where(
        removals.c.period_id == table.c.period_id,
        removals.c.key == (table.c.key if key is None else key),
        removals.c.delivered_at == table.c.delivered_at,
        or_(
            *(removals.c.outcome == outcome for outcome in sorted(REMOVED)),
            # An object that is somebody else's now is their business. Not so a manifest: while one is
            # there, its objects stay.
            and_(removals.c.outcome == RemovalOutcome.CHANGED, ~removals.c.manifest),
        ),
    )


def is_superseded(table: Any = deliveries) -> ColumnElement[bool]:
    """Whether a row of ``deliveries`` is a revision that was never published and that another replaced: its
    manifest was not put, not even by a process that did not live to record it."""
    cause = func.coalesce(table.c.failure_cause, "")
    return and_(table.c.status == Status.FAILED, cause == SUPERSEDED, table.c.manifest_key.is_(None))


def of_superseded(table: Any) -> Exists:
    """The same, of a row of ``receipts``."""
    revision = deliveries.alias("its_revision")
    return exists().where(
        revision.c.period_id == table.c.period_id,
        revision.c.revision == table.c.revision,
        is_superseded(revision),
    )


# --- Pages


def _page(
    table: Table, source: FromClause, *columns: Any, where: Sequence[ColumnElement[bool]] = ()
) -> Select[Any]:
    """Rows of one delivery."""
    return (
        select(*columns)
        .select_from(source)
        .where(
            table.c.period_id == _PERIOD,
            table.c.revision == _REVISION,
            table.c.name > bindparam("after"),
            *where,
        )
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
        objects.c.name.ilike(bindparam("pattern", type_=Text), escape=LIKE_ESCAPE),
    ],
)
MISSING_PAGE = _page(
    missing,
    missing,
    *(missing.c[name] for name in ("name", "key", "size", "algorithm", "checksum", "reason")),
)
# A period's receipts after a name and revision. Every receipt has its object, so the outer join loses
# nothing; it makes sure that the receipts are walked in order and the objects looked up, not the other way
# round.
DELIVERED_PAGE = (
    select(*_OBJECT, *_RECEIPT, receipts.c.revision, was_removed(receipts), of_superseded(receipts))
    .select_from(receipts.outerjoin(objects, SAME_OBJECT))
    .where(
        receipts.c.period_id == _PERIOD,
        tuple_(receipts.c.name, receipts.c.revision)
        > tuple_(bindparam("after"), bindparam("after_revision", type_=Integer)),
    )
    .order_by(receipts.c.name, receipts.c.revision)
    .limit(_LIMIT)
)

# --- What was staged

_present = receipts.alias("present")
_STAGED_HAS_RECEIPT = exists().where(
    _present.c.period_id == _PERIOD,
    _present.c.revision == _REVISION,
    _present.c.name == staged_objects.c.name,
)
# What becomes the plan of a delivery: all but objects that have a receipt.
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
_OF_LAST = and_(
    _earlier.c.period_id == _PERIOD, _earlier.c.name == staged_objects.c.name, _earlier.c.revision == _LAST
)
COPY_CARRIED = insert(receipts).from_select(
    ["period_id", "revision", "name", *_PROOF],
    select(_PERIOD, _REVISION, staged_objects.c.name, *(_earlier.c[name] for name in _PROOF))
    .select_from(staged_objects.join(_earlier, _OF_LAST))
    .where(staged_objects.c.carried, ~_STAGED_HAS_RECEIPT),
)
# How many carried objects have no receipt, and the name of the first.
NOT_CARRIED = select(func.count(), func.min(staged_objects.c.name)).where(
    staged_objects.c.carried, ~_STAGED_HAS_RECEIPT
)
# What is planned (again) is not missing.
NOT_MISSING = delete(missing).where(
    missing.c.period_id == _PERIOD,
    missing.c.revision == _REVISION,
    missing.c.name.in_(select(staged_objects.c.name)),
)

# --- Changes of what is there

# For the object of a name's highest revision that has a receipt.
_NEWEST = (
    select(func.max(receipts.c.revision))
    .where(receipts.c.period_id == bindparam("of_period"), receipts.c.name == bindparam("of_name"))
    .scalar_subquery()
)
RESTAMP_OBJECT = (
    update(objects)
    .where(
        objects.c.period_id == bindparam("of_period"),
        objects.c.name == bindparam("of_name"),
        objects.c.revision == _NEWEST,
    )
    .values(modified_ns=bindparam("new_modified_ns"), identity=bindparam("new_identity"))
)
# Gives a delivery's receipts to all other revisions of its period that name the same keys.
_mine = receipts.alias("mine")
SPREAD_RECEIPTS = (
    update(receipts)
    .values({name: _mine.c[name] for name in _PROOF if name != "key"})
    .where(
        objects.c.period_id == _PERIOD,
        objects.c.revision == _REVISION,
        _mine.c.period_id == objects.c.period_id,
        _mine.c.revision == objects.c.revision,
        _mine.c.name == objects.c.name,
        receipts.c.period_id == _mine.c.period_id,
        receipts.c.name == _mine.c.name,
        receipts.c.key == _mine.c.key,
        receipts.c.revision != _mine.c.revision,
        receipts.c.delivered_at != _mine.c.delivered_at,
    )
)

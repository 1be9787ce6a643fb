"""The statements that run for every object, compiled once to the driver's own text.

SQLAlchemy writes them, for whichever database; the driver then runs them on plain tuples, without a word in
between for each of a million rows.
"""

from collections.abc import Callable, Sequence
from contextlib import closing
from functools import cached_property
from typing import TYPE_CHECKING, Any, cast

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Connection,
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
    select,
    tuple_,
    update,
)
from sqlalchemy.sql import ClauseElement

from xmode_transfer.adapters.ledger import errors
from xmode_transfer.adapters.ledger.database import Database
from xmode_transfer.adapters.ledger.removed import of_superseded, was_removed
from xmode_transfer.adapters.ledger.tables import (
    missing,
    objects,
    receipts,
    removals,
    staged_objects,
    upload_parts,
)

if TYPE_CHECKING:
    from sqlalchemy.sql.compiler import SQLCompiler

Rows = list[tuple[Any, ...]]
LIKE_ESCAPE = "\\"


class Prepared:
    """One statement as the driver takes it; compiled when it is first used."""

    def __init__(self, database: Database, statement: ClauseElement) -> None:
        self._database = database
        self._statement = statement

    @cached_property
    def sql(self) -> str:
        return str(self._compiled)

    @cached_property
    def _compiled(self) -> "SQLCompiler":
        return cast("SQLCompiler", self._statement.compile(dialect=self._database.dialect))

    @cached_property
    def _fixed(self) -> dict[str, Any]:
        return dict(self._compiled.params)

    def fetch(self, **values: object) -> Rows:
        """All rows, read outside of any transaction of the caller."""
        return self._database.fetch(self.sql, self.arguments(**values))

    def arguments(self, **values: object) -> tuple[object, ...]:
        """The values in the order in which the statement's text wants them."""
        given = self._fixed | values
        return tuple(given[name] for name in self._compiled.positiontup or ())

    def run(self, connection: Connection, **values: object) -> Rows:
        """Once, in the transaction of the caller; the rows that it answers, if it answers any."""
        with closing(connection.connection.cursor()) as cursor:
            cursor.execute(self.sql, self.arguments(**values))
            return cast("Rows", cursor.fetchall() if cursor.description else [])

    def run_many(self, connection: Connection, rows: Sequence[tuple[object, ...]]) -> None:
        """Once for each row of arguments; an INSERT wants them in the order of the table's columns."""
        self._many(self._database.run_many, connection, rows)

    def stage(self, connection: Connection, rows: Sequence[tuple[object, ...]]) -> None:
        """As ``run_many``, for what is set aside."""
        self._many(self._database.stage, connection, rows)

    def _many(
        self,
        run: Callable[[Connection, str, Sequence[tuple[object, ...]]], None],
        connection: Connection,
        rows: Sequence[tuple[object, ...]],
    ) -> None:
        try:
            run(connection, self.sql, rows)
        except (UnicodeEncodeError, OverflowError) as error:
            raise errors.UNSTORABLE.error(self._database.where, str(error)) from error


class Statements:
    """A ``..._page`` is in the order of names, after a name. Receipts, parts and removals that come a second
    time take the place of the first."""

    def __init__(self, database: Database) -> None:
        def prepared(statement: ClauseElement) -> Prepared:
            return Prepared(database, statement)

        self.add_receipt = prepared(database.upsert(receipts))
        self.add_part = prepared(database.upsert(upload_parts))
        self.add_removal = prepared(database.upsert(removals))
        self.replace_object = prepared(database.upsert(objects))
        self.stage_object = prepared(database.upsert(staged_objects))
        # What was staged becomes the plan of a delivery, but for objects that have a receipt.
        self.merge_staged = prepared(
            database.upsert(objects).from_select(
                ["period_id", "revision", *staged_objects.c.keys()],
                select(_PERIOD, _REVISION, *staged_objects.c).where(~_STAGED_HAS_RECEIPT),
            )
        )
        self.copy_carried = prepared(_COPY_CARRIED)
        self.not_carried = prepared(_NOT_CARRIED)
        self.not_missing = prepared(_NOT_MISSING)
        self.restamp_object = prepared(_RESTAMP_OBJECT)
        self.spread_receipts = prepared(_SPREAD_RECEIPTS)
        self.planned_page = prepared(_PLANNED_PAGE)
        self.found_page = prepared(_FOUND_PAGE)
        self.proven_page = prepared(_PROVEN_PAGE)
        self.pending_page = prepared(_PENDING_PAGE)
        self.missing_page = prepared(_MISSING_PAGE)
        self.delivered_page = prepared(_DELIVERED_PAGE)


_LIMIT: Any = bindparam("limit", type_=Integer)
_PERIOD: Any = bindparam("period_id", type_=BigInteger)
_REVISION: Any = bindparam("revision", type_=Integer)
_OBJECT = [objects.c[name] for name in ("name", "key", "size", "modified_ns", "identity", "carried")]
_PROOF = ["key", "size", "algorithm", "checksum", "etag", "delivered_at", "version_id", "sha256"]
_RECEIPT = [receipts.c[name] for name in _PROOF]
_SAME_OBJECT = and_(
    receipts.c.period_id == objects.c.period_id,
    receipts.c.revision == objects.c.revision,
    receipts.c.name == objects.c.name,
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


_WITH_RECEIPTS = objects.outerjoin(receipts, _SAME_OBJECT)
_REMOVED_SINCE = (objects.c.revision, was_removed(receipts))
_PLANNED_PAGE = _page(objects, _WITH_RECEIPTS, *_OBJECT, *_RECEIPT)
_PENDING_PAGE = _page(objects, objects, *_OBJECT, where=[~exists().where(_SAME_OBJECT)])
_PROVEN_PAGE = _page(objects, objects.join(receipts, _SAME_OBJECT), *_OBJECT, *_RECEIPT, *_REMOVED_SINCE)
_FOUND_PAGE = _page(
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
_MISSING_PAGE = _page(
    missing,
    missing,
    *(missing.c[name] for name in ("name", "key", "size", "algorithm", "checksum", "reason")),
)
# A period's receipts after a name and revision. Every receipt has its object, so the outer join loses
# nothing; it makes sure that the receipts are walked in order and the objects looked up, not the other way
# round.
_DELIVERED_PAGE = (
    select(*_OBJECT, *_RECEIPT, receipts.c.revision, was_removed(receipts), of_superseded(receipts))
    .select_from(receipts.outerjoin(objects, _SAME_OBJECT))
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
_COPY_CARRIED = insert(receipts).from_select(
    ["period_id", "revision", "name", *_PROOF],
    select(_PERIOD, _REVISION, staged_objects.c.name, *(_earlier.c[name] for name in _PROOF))
    .select_from(staged_objects.join(_earlier, _OF_LAST))
    .where(staged_objects.c.carried, ~_STAGED_HAS_RECEIPT),
)
# How many carried objects have no receipt, and the name of the first.
_NOT_CARRIED = select(func.count(), func.min(staged_objects.c.name)).where(
    staged_objects.c.carried, ~_STAGED_HAS_RECEIPT
)
# What is planned (again) is not missing.
_NOT_MISSING = delete(missing).where(
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
_RESTAMP_OBJECT = (
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
_SPREAD_RECEIPTS = (
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

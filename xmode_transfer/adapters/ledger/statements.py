"""The statements that run for every object, compiled once to the driver's own text.

SQLAlchemy writes them, for whichever database; the driver then runs them on plain tuples, without a word in
between for each of a million rows.
"""

from collections.abc import Callable, Iterable, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, cast

from sqlalchemy import (
    BigInteger,
    Connection,
    Integer,
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
    """One statement as the driver takes it."""

    def __init__(self, database: Database, statement: ClauseElement) -> None:
        self._database = database
        compiled = cast("SQLCompiler", statement.compile(dialect=database.dialect))
        self.sql = str(compiled)
        self._places = tuple(compiled.positiontup or ())
        self._fixed = compiled.params

    def fetch(self, **values: object) -> Rows:
        """All rows, read outside of any transaction of the caller."""
        return self._database.fetch(self.sql, self.arguments(**values))

    def arguments(self, **values: object) -> tuple[object, ...]:
        """The values in the order in which the statement's text wants them."""
        given = self._fixed | values
        return tuple(given[name] for name in self._places)

    def run(self, connection: Connection, **values: object) -> Rows:
        """Once, in the transaction of the caller; the rows that it answers, if it answers any."""
        cursor = connection.connection.cursor()
        try:
            cursor.execute(self.sql, self.arguments(**values))
            return cast("Rows", cursor.fetchall() if cursor.description else [])
        finally:
            cursor.close()

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
            raise errors.unstorable(self._database.where, error) from error


class Statements:
    def __init__(self, database: Database) -> None:
        self._database = database

    @cached_property
    def add_receipt(self) -> Prepared:
        """A second receipt for the same object takes the place of the first."""
        adding = self._database.insert(receipts)
        kept = {"period_id", "name", "revision"}
        return self._prepare(
            adding.on_conflict_do_update(
                index_elements=["period_id", "name", "revision"],
                set_={name: adding.excluded[name] for name in _names(receipts.c) if name not in kept},
            )
        )

    @cached_property
    def add_part(self) -> Prepared:
        adding = self._database.insert(upload_parts)
        return self._prepare(
            adding.on_conflict_do_update(
                index_elements=["upload", "number"],
                set_={name: adding.excluded[name] for name in ("size", "etag", "checksum")},
            )
        )

    @cached_property
    def add_removal(self) -> Prepared:
        """A key's second removal by the same act takes the place of the first."""
        adding = self._database.insert(removals)
        kept = {"period_id", "key", "act_id"}
        return self._prepare(
            adding.on_conflict_do_update(
                index_elements=["period_id", "key", "act_id"],
                set_={name: adding.excluded[name] for name in _names(removals.c) if name not in kept},
            )
        )

    @cached_property
    def stage_object(self) -> Prepared:
        adding = self._database.insert(staged_objects)
        return self._prepare(
            adding.on_conflict_do_update(
                index_elements=["name"],
                set_={name: adding.excluded[name] for name in _names(staged_objects.c) if name != "name"},
            )
        )

    @cached_property
    def merge_staged(self) -> Prepared:
        """What was staged becomes the plan of a delivery, but for objects that have a receipt."""
        adding = self._database.insert(objects)
        return self._prepare(
            adding.from_select(
                ["period_id", "revision", *_names(staged_objects.c)],
                select(_PERIOD, _REVISION, *staged_objects.c).where(~_STAGED_HAS_RECEIPT),
            ).on_conflict_do_update(
                index_elements=["period_id", "revision", "name"],
                set_={name: adding.excluded[name] for name in _names(staged_objects.c) if name != "name"},
            )
        )

    @cached_property
    def replace_object(self) -> Prepared:
        """One object of a plan, in the place of what was planned under its name."""
        adding = self._database.insert(objects)
        kept = {"period_id", "revision", "name"}
        return self._prepare(
            adding.on_conflict_do_update(
                index_elements=["period_id", "revision", "name"],
                set_={name: adding.excluded[name] for name in _names(objects.c) if name not in kept},
            )
        )

    @cached_property
    def copy_carried(self) -> Prepared:
        """Receipts of carried objects, each from the last revision before that put it under this key."""
        earlier, known = receipts.alias("earlier"), receipts.alias("known")
        last = (
            select(func.max(known.c.revision))
            .where(
                known.c.period_id == _PERIOD,
                known.c.name == staged_objects.c.name,
                known.c.key == staged_objects.c.key,
                known.c.revision < _REVISION,
            )
            .scalar_subquery()
        )
        of_last = and_(
            earlier.c.period_id == _PERIOD,
            earlier.c.name == staged_objects.c.name,
            earlier.c.revision == last,
        )
        return self._prepare(
            insert(receipts).from_select(
                ["period_id", "revision", "name", *_PROOF],
                select(_PERIOD, _REVISION, staged_objects.c.name, *(earlier.c[name] for name in _PROOF))
                .select_from(staged_objects.join(earlier, of_last))
                .where(staged_objects.c.carried, ~_STAGED_HAS_RECEIPT),
            )
        )

    @cached_property
    def not_carried(self) -> Prepared:
        """How many carried objects have no receipt, and the name of the first."""
        return self._prepare(
            select(func.count(), func.min(staged_objects.c.name)).where(
                staged_objects.c.carried, ~_STAGED_HAS_RECEIPT
            )
        )

    @cached_property
    def restamp_object(self) -> Prepared:
        """For the object of a name's highest revision that has a receipt."""
        newest = (
            select(func.max(receipts.c.revision))
            .where(receipts.c.period_id == bindparam("of_period"), receipts.c.name == bindparam("of_name"))
            .scalar_subquery()
        )
        return self._prepare(
            update(objects)
            .where(
                objects.c.period_id == bindparam("of_period"),
                objects.c.name == bindparam("of_name"),
                objects.c.revision == newest,
            )
            .values(modified_ns=bindparam("new_modified_ns"), identity=bindparam("new_identity"))
        )

    @cached_property
    def planned_page(self) -> Prepared:
        """A delivery's objects after a name, each with its receipt."""
        return self._prepare(
            select(*_OBJECT, *_RECEIPT)
            .select_from(objects.outerjoin(receipts, _SAME_OBJECT))
            .where(_OF_DELIVERY, objects.c.name > bindparam("after"))
            .order_by(objects.c.name)
            .limit(_LIMIT)
        )

    @cached_property
    def found_page(self) -> Prepared:
        """As ``planned_page``, of names that have a text in them, and with what was removed since."""
        return self._prepare(
            select(*_OBJECT, *_RECEIPT, objects.c.revision, was_removed(receipts))
            .select_from(objects.outerjoin(receipts, _SAME_OBJECT))
            .where(
                _OF_DELIVERY,
                objects.c.name > bindparam("after"),
                objects.c.name >= bindparam("first"),
                objects.c.name <= bindparam("last"),
                objects.c.name.ilike(bindparam("pattern", type_=Text), escape=LIKE_ESCAPE),
            )
            .order_by(objects.c.name)
            .limit(_LIMIT)
        )

    @cached_property
    def proven_page(self) -> Prepared:
        """As ``planned_page``, of objects that have a receipt, and with what was removed since."""
        return self._prepare(
            select(*_OBJECT, *_RECEIPT, objects.c.revision, was_removed(receipts))
            .select_from(objects.join(receipts, _SAME_OBJECT))
            .where(_OF_DELIVERY, objects.c.name > bindparam("after"))
            .order_by(objects.c.name)
            .limit(_LIMIT)
        )

    @cached_property
    def missing_page(self) -> Prepared:
        return self._prepare(
            select(*(missing.c[name] for name in ("name", "key", "size", "algorithm", "checksum", "reason")))
            .where(
                missing.c.period_id == bindparam("period_id"),
                missing.c.revision == bindparam("revision"),
                missing.c.name > bindparam("after"),
            )
            .order_by(missing.c.name)
            .limit(_LIMIT)
        )

    @cached_property
    def not_missing(self) -> Prepared:
        """What is planned (again) is not missing."""
        return self._prepare(
            delete(missing).where(
                missing.c.period_id == _PERIOD,
                missing.c.revision == _REVISION,
                missing.c.name.in_(select(staged_objects.c.name)),
            )
        )

    @cached_property
    def spread_receipts(self) -> Prepared:
        """Gives a delivery's receipts to all other revisions of its period that name the same keys."""
        mine = receipts.alias("mine")
        return self._prepare(
            update(receipts)
            .values({name: mine.c[name] for name in _PROOF if name != "key"})
            .where(
                objects.c.period_id == _PERIOD,
                objects.c.revision == _REVISION,
                mine.c.period_id == objects.c.period_id,
                mine.c.revision == objects.c.revision,
                mine.c.name == objects.c.name,
                receipts.c.period_id == mine.c.period_id,
                receipts.c.name == mine.c.name,
                receipts.c.key == mine.c.key,
                receipts.c.revision != mine.c.revision,
                receipts.c.delivered_at != mine.c.delivered_at,
            )
        )

    @cached_property
    def pending_page(self) -> Prepared:
        return self._prepare(
            select(*_OBJECT)
            .where(_OF_DELIVERY, objects.c.name > bindparam("after"), ~exists().where(_SAME_OBJECT))
            .order_by(objects.c.name)
            .limit(_LIMIT)
        )

    @cached_property
    def delivered_page(self) -> Prepared:
        """A period's receipts after a name and revision. Every receipt has its object, so the outer join
        loses nothing; it makes sure that the receipts are walked in order and the objects looked up, not the
        other way round."""
        return self._prepare(
            select(*_OBJECT, *_RECEIPT, receipts.c.revision, was_removed(receipts), of_superseded(receipts))
            .select_from(receipts.outerjoin(objects, _SAME_OBJECT))
            .where(
                receipts.c.period_id == bindparam("period_id"),
                tuple_(receipts.c.name, receipts.c.revision)
                > tuple_(bindparam("after"), bindparam("after_revision", type_=Integer)),
            )
            .order_by(receipts.c.name, receipts.c.revision)
            .limit(_LIMIT)
        )

    def _prepare(self, statement: ClauseElement) -> Prepared:
        return Prepared(self._database, statement)


def _names(columns: Iterable[Any]) -> list[str]:
    return [column.name for column in columns]


_LIMIT: Any = bindparam("limit", type_=Integer)
_SAME_OBJECT = and_(
    receipts.c.period_id == objects.c.period_id,
    receipts.c.revision == objects.c.revision,
    receipts.c.name == objects.c.name,
)
_OF_DELIVERY = and_(
    objects.c.period_id == bindparam("period_id"), objects.c.revision == bindparam("revision")
)
_OBJECT = [objects.c[name] for name in ("name", "key", "size", "modified_ns", "identity", "carried")]
_PROOF = ["key", "size", "algorithm", "checksum", "etag", "delivered_at", "version_id", "sha256"]
_RECEIPT = [receipts.c[name] for name in _PROOF]
_PERIOD: Any = bindparam("period_id", type_=BigInteger)
_REVISION: Any = bindparam("revision", type_=Integer)
_present = receipts.alias("present")
_STAGED_HAS_RECEIPT = exists().where(
    _present.c.period_id == _PERIOD,
    _present.c.revision == _REVISION,
    _present.c.name == staged_objects.c.name,
)

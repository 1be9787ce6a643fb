"""What the subjects of a ledger share: how each reads, writes, and writes under a lease."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

from sqlalchemy import ColumnElement, Connection, Select, Table, update

from xmode_transfer.ledger import leases
from xmode_transfer.ledger.database import Database
from xmode_transfer.ledger.tables.base import Rows
from xmode_transfer.ledger.writer import GroupCommit
from xmode_transfer.model.errors import LedgerError
from xmode_transfer.model.records import Lease

T = TypeVar("T")


class Subject:
    """The queries about one subject. Methods that take a ``lease`` raise LeaseLost, and write nothing, when
    the lease has been taken over."""

    def __init__(self, database: Database, writer: GroupCommit) -> None:
        self._database = database
        self._writer = writer

    def _rows(self, query: Select[Any]) -> Sequence[Any]:
        return self._database.read(lambda connection: connection.execute(query).all())

    def _records(self, rows: Rows[T], query: Select[Any]) -> list[T]:
        return [rows.record(row) for row in self._rows(query)]

    def _read(self, action: Callable[[Connection], T]) -> T:
        return self._database.read(action)

    def _write(self, action: Callable[[Connection], T]) -> T:
        """What the action writes must be there once also where it is run twice."""
        return self._writer.call(action)

    def _fenced(self, lease: Lease, action: Callable[[Connection], T]) -> T:
        """As ``_write``, if the lease is still ours, and stays so until the commit."""

        def fenced(connection: Connection) -> T:
            leases.check(connection, lease)
            return action(connection)

        return self._writer.call(fenced)

    def _overwrite(self, lease: Lease, table: Table, record_id: str, values: Mapping[str, Any]) -> None:
        """The row of that ID gets these values. Raises LedgerError when there is none."""
        changing = update(table).where(table.c.id == record_id).values(values)

        def action(connection: Connection) -> None:
            if connection.execute(changing).rowcount == 0:
                raise unknown(table.name.removesuffix("s"), record_id)

        self._fenced(lease, action)


def only(query: Select[Any], *wanted: tuple[ColumnElement[Any], str | Iterable[str] | None]) -> Select[Any]:
    """The rows that have, of each column, the value that is wanted or one of those; any, where none is."""
    for column, value in wanted:
        if value is not None:
            query = query.where(column == value if isinstance(value, str) else column.in_(list(value)))
    return query


def unknown(what: str, name: str) -> LedgerError:
    return LedgerError(
        f"The ledger knows no {what} {name}.",
        hint="Nothing was written. Either the ledger was replaced by an older copy while we ran, or this is "
        "a defect.",
    )

"""Jobs in a table of the ledger's database, for work queues on SQLite and on PostgreSQL alike."""

from collections.abc import Sequence

import sqlalchemy
from sqlalchemy import Connection

from xmode_transfer.adapters.ledger import Ledger
from xmode_transfer.domain.errors import LedgerError


class TableQueue:
    """A queue as simple as one in a database can be: a table, in the ledger's own transactions."""

    broken = False

    def create(self, ledger: Ledger) -> None:
        with ledger._database.writing() as connection:
            connection.exec_driver_sql(
                "CREATE TABLE IF NOT EXISTS jobs (number INTEGER PRIMARY KEY, customer TEXT, "
                "priority INTEGER, waiting INTEGER, taken INTEGER)"
            )

    def put(self, connection: Connection, customer: str, *, priority: int, waiting: bool) -> None:
        if self.broken:
            raise LedgerError("the queue is broken")
        connection.execute(
            sqlalchemy.text(
                "INSERT INTO jobs (number, customer, priority, waiting, taken) "
                "SELECT (SELECT coalesce(max(number), 0) + 1 FROM jobs), :customer, :priority, :waiting, 0 "
                "WHERE NOT EXISTS (SELECT 1 FROM jobs WHERE customer = :customer AND taken = 0)"
            ),
            {"customer": customer, "priority": priority, "waiting": int(waiting)},
        )

    def take(self, connection: Connection, *, waiting: bool) -> str | None:
        query = sqlalchemy.text(
            "SELECT customer FROM jobs WHERE waiting = :waiting ORDER BY priority DESC, number LIMIT 1"
        )
        name = connection.execute(query, {"waiting": int(waiting)}).scalar_one_or_none()
        if name is not None:
            self.take_out(connection, name)
        return name

    def take_out(self, connection: Connection, customer: str) -> None:
        connection.execute(
            sqlalchemy.text("DELETE FROM jobs WHERE customer = :customer"), {"customer": customer}
        )

    def lost(self, connection: Connection, customers: Sequence[str]) -> list[str]:
        there = set(connection.execute(sqlalchemy.text("SELECT customer FROM jobs")).scalars())
        return [name for name in customers if name not in there]

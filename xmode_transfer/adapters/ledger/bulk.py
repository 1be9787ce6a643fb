"""Whole tables at once: how each database keeps writers away, takes many rows, and is made ready for them."""

import time
from collections.abc import Sequence
from typing import Any

import sqlalchemy
from sqlalchemy import Connection, Table, TableClause, column, insert

from xmode_transfer.adapters.ledger.tables.base import metadata

TABLES = tuple(metadata.sorted_tables)
"""In an order in which what is referred to comes first."""
_LOCK_SECONDS = 30
_ENDING_SECONDS = 3.0
_OTHERS = """
    SELECT coalesce(host(client_addr), 'this server') || ', server process ' || pid FROM pg_stat_activity
    WHERE datname = current_database() AND pid <> pg_backend_pid() AND application_name = 'xmode-transfer'
    ORDER BY pid
"""

Rows = Sequence[tuple[Any, ...]]


def plain(table: Table) -> TableClause:
    """The table as the database sees it: its texts stay texts."""
    types = (getattr(one.type, "impl", one.type) for one in table.columns)
    return sqlalchemy.table(
        table.name, *(column(one.name, kind) for one, kind in zip(table.columns, types, strict=True))
    )


class Bulk:
    """What all do alike, and what some need not do."""

    def keep_writers_away(self, connection: Connection) -> None:
        """Until the transaction ends nobody else writes; what is read stays as it is."""

    def keep_everybody_away(self, connection: Connection) -> None:
        """Until the transaction ends nobody else writes, and nobody reads what is not finished."""

    def others(self, connection: Connection) -> list[str]:
        """The processes of ours that have the database open besides this one, where it can tell them."""
        return []

    def put(self, connection: Connection, table: Table, rows: Rows) -> None:
        """Adds rows, each with a value for every column of the table, in their order."""
        names = [column.name for column in table.columns]
        connection.execute(insert(plain(table)), [dict(zip(names, row, strict=True)) for row in rows])

    def finish(self, connection: Connection) -> None:
        """After the last row."""


class SqliteBulk(Bulk):
    """A transaction that writes is alone in the file anyway, and numbers begin after the highest row."""


class PostgresBulk(Bulk):
    """COPY is several times quicker than INSERT; numbers come from sequences, plans from statistics."""

    def keep_writers_away(self, connection: Connection) -> None:
        _lock(connection, "SHARE")

    def keep_everybody_away(self, connection: Connection) -> None:
        _lock(connection, "ACCESS EXCLUSIVE")

    def others(self, connection: Connection) -> list[str]:
        # Whoever waits for work holds no lease, and would go on here. A session that was closed a moment ago,
        # such as one of our own that looked whether the server is there, is still listed for that moment.
        deadline = time.monotonic() + _ENDING_SECONDS
        while True:
            found = [str(row[0]) for row in connection.exec_driver_sql(_OTHERS)]
            if not found or time.monotonic() > deadline:
                return found
            time.sleep(0.05)
            connection.exec_driver_sql("SELECT pg_stat_clear_snapshot()")

    def put(self, connection: Connection, table: Table, rows: Rows) -> None:
        quoted = connection.dialect.identifier_preparer.quote
        columns = ", ".join(quoted(column.name) for column in table.columns)
        driver: Any = connection.connection.cursor()
        try:
            with driver.copy(f"COPY {quoted(table.name)} ({columns}) FROM STDIN") as copy:
                for row in rows:
                    copy.write_row(row)
        finally:
            driver.close()

    def finish(self, connection: Connection) -> None:
        quoted = connection.dialect.identifier_preparer.quote
        for table in TABLES:
            name = quoted(table.name)
            column = table.autoincrement_column
            if column is not None:
                connection.exec_driver_sql(
                    f"SELECT setval(pg_get_serial_sequence('{name}', '{column.name}'), "
                    f"coalesce(max({quoted(column.name)}), 1), count(*) > 0) FROM {name}"
                )
            # without statistics the checks that follow could be planned as if the tables were empty
            connection.exec_driver_sql(f"ANALYZE {name}")


def bulk(connection: Connection) -> Bulk:
    return PostgresBulk() if connection.dialect.name == "postgresql" else SqliteBulk()


def _lock(connection: Connection, mode: str) -> None:
    quoted = connection.dialect.identifier_preparer.quote
    names = ", ".join(quoted(table.name) for table in TABLES)
    # Either side waits for the other for as long as it takes; for a lock, nobody waits for ever.
    connection.exec_driver_sql("SET LOCAL idle_in_transaction_session_timeout = 0")
    connection.exec_driver_sql(f"SET LOCAL lock_timeout = '{_LOCK_SECONDS}s'")
    connection.exec_driver_sql(f"LOCK TABLE {names} IN {mode} MODE")

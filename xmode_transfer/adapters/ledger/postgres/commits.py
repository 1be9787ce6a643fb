"""How it is known what became of a commit whose answer was lost.

Each transaction that writes leaves a number of its own in a row that is its writer's alone (the table
``writers``). After the connection was lost the row tells whether the transaction is in the database. The
server's own numbers of transactions would not do: after a crash, or on another server that took over, the
number of one that was lost is given to somebody else's.
"""

import secrets
import threading
from dataclasses import dataclass
from itertools import count
from typing import Any

import psycopg

_BEGIN = "BEGIN ISOLATION LEVEL READ COMMITTED; SET LOCAL idle_in_transaction_session_timeout = '60s'"
"""A writer whose machine was cut off keeps its locks no longer than that."""
_NOW = """to_char(clock_timestamp() AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')"""
_LONG_AGO = (
    """to_char((clock_timestamp() - interval '7 days') AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')"""
)


@dataclass(frozen=True, slots=True)
class Mark:
    """What one transaction leaves behind: nothing, where ``writer`` is empty."""

    writer: str
    number: int


class Writers:
    """The rows of this process, one for each transaction that it has open at once."""

    def __init__(self) -> None:
        self._process = secrets.token_hex(8)
        self._numbers = count(1)
        self._names = count()
        self._free: list[str] = []
        self._door = threading.Lock()
        self.exist = False
        """Whether the table is there; set when the schema is ours."""

    def take(self) -> Mark:
        with self._door:
            number = next(self._numbers)
            if not self.exist:
                return Mark("", number)
            writer = self._free.pop() if self._free else f"{self._process}-{next(self._names)}"
            return Mark(writer, number)

    def give_back(self, mark: Mark) -> None:
        with self._door:
            if mark.writer:
                self._free.append(mark.writer)

    def rows(self) -> list[str]:
        """All that were ever made and are not in use."""
        with self._door:
            return list(self._free)


def begin(cursor: "psycopg.Cursor[Any]", mark: Mark) -> None:
    """Begins a transaction that leaves the mark."""
    if not mark.writer:
        cursor.execute(_BEGIN)
        return
    if not _begun(cursor, mark):
        cursor.execute("ROLLBACK")
        # A row whose process was killed is of no use after a while.
        cursor.execute(f"DELETE FROM writers WHERE at < {_LONG_AGO}")
        cursor.execute(
            f"INSERT INTO writers (writer, number, at) VALUES (%s, 0, {_NOW}) ON CONFLICT DO NOTHING",
            (mark.writer,),
        )
        if not _begun(cursor, mark):
            raise psycopg.OperationalError("a row of the table writers vanished as soon as it was made")


def was_left(cursor: "psycopg.Cursor[Any]", mark: Mark) -> bool:
    """Whether the mark is in the database. Waits for a transaction that the server still has open: the row is
    locked."""
    cursor.execute("SELECT number FROM writers WHERE writer = %s FOR UPDATE", (mark.writer,))
    row = cursor.fetchone()
    return row is not None and row[0] == mark.number


def forget(cursor: "psycopg.Cursor[Any]", writers: list[str]) -> None:
    cursor.execute("DELETE FROM writers WHERE writer = ANY(%s)", (writers,))


def _begun(cursor: "psycopg.Cursor[Any]", mark: Mark) -> bool:
    # One message to the server. The name is hex digits that we made, so it may stand in the text.
    cursor.execute(
        f"{_BEGIN}; UPDATE writers SET number = {mark.number:d}, at = {_NOW} WHERE writer = '{mark.writer}'"
    )
    while cursor.nextset():
        pass
    return cursor.rowcount == 1

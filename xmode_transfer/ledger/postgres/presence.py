"""How other machines see at once that this process has died.

Each process that claims leases keeps one connection on which it holds an advisory lock, whose number is made
of its holder's name. When the process is killed its machine closes the connection, the server drops the lock,
and whoever claims one of its leases finds it free. A process that stands still keeps its connection, and with
it the lock: there the time of the lease decides.

A server that was restarted, or that took another's place, has dropped every lock. So a lease carries a mark
of the server's life in which its holder was seen, and a free lock tells nothing of a holder with another
mark, or with none.
"""

import hashlib
import threading
from collections.abc import Callable
from typing import Any

import psycopg
from sqlalchemy import Connection, text

_LIFE = "(extract(epoch FROM pg_postmaster_start_time()) * 1000000)::bigint::text"
_HOLD = f"SELECT {_LIFE} FROM (SELECT pg_advisory_lock_shared(%s)) AS held"
_IS_GONE = text(
    f"SELECT {_LIFE} = :presence AND NOT EXISTS (SELECT FROM pg_locks WHERE locktype = 'advisory' "
    "AND granted AND database = (SELECT oid FROM pg_database WHERE datname = current_database()) "
    "AND classid = CAST(:high AS bigint)::oid AND objid = CAST(:low AS bigint)::oid AND objsubid = 1)"
)


class Presence:
    """The connection that lives as long as this process does; made at the first claim."""

    def __init__(self, holder: str, connect: Callable[[], "psycopg.Connection[Any]"]) -> None:
        self.holder = holder
        self._connect = connect
        self._door = threading.Lock()
        self._connection: psycopg.Connection[Any] | None = None
        self._mark = ""

    def mark(self) -> str:
        """Makes sure that the lock is held; answers the mark of the server's life. Raises psycopg.Error."""
        with self._door:
            if self._connection is not None:
                try:
                    self._connection.execute("SELECT 1")
                except psycopg.Error:
                    self._drop()
                else:
                    return self._mark
            connection = self._connection = self._connect()
            try:
                row = connection.execute(_HOLD, [_number(self.holder)]).fetchone()
            except BaseException:
                self._drop()
                raise
            assert row is not None
            self._mark = str(row[0])
            return self._mark

    def close(self) -> None:
        with self._door:
            self._drop()

    def _drop(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


def is_gone(connection: Connection, holder: str, presence: str) -> bool:
    """Whether the process that left this mark has ended."""
    number = _number(holder) % 2**64
    values = {"presence": presence, "high": number >> 32, "low": number % 2**32}
    return bool(connection.execute(_IS_GONE, values).scalar_one())


def _number(holder: str) -> int:
    digest = hashlib.sha256(f"xmode-transfer holder {holder}".encode()).digest()
    return int.from_bytes(digest[:8], "big", signed=True)

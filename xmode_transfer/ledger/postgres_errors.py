"""What PostgreSQL and its client library say, as errors that a person can act on.

A refusal of the server has an SQLSTATE. One that comes while the connection is made has none in libpq, only
its text, which the server may say in another language: then it is told as it is.
"""

import os
import re
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any, TypeVar
from weakref import WeakSet

import psycopg
from psycopg.abc import PQGen

from xmode_transfer import telemetry
from xmode_transfer.ledger.database import OTHER, UNSTORABLE, Said
from xmode_transfer.model.errors import (
    LedgerCorrupt,
    LedgerError,
    LedgerFull,
    LedgerLocked,
    LedgerMissing,
    LedgerReadOnly,
    LedgerRefused,
    LedgerUnreachable,
    XmodeError,
)


class Away(LedgerUnreachable):
    """The server is not there or not ready: whoever may wait does so, and tries the whole transaction
    again."""


class UnknownHost(Away):
    """No host has the name, or its name server forgot it for a moment."""


class Standby(LedgerReadOnly):
    """The server takes no writes, as one does that is about to be made the primary."""


class Contended(LedgerLocked):
    """The server ended one of two transactions that waited for each other: it is run again."""


PASSING = (Away, Standby, Contended)

AWAY = Said(
    Away,
    "The ledger {where} cannot be reached",
    "It is tried again. If it goes on, the operator has to see whether the database server runs and can be "
    "reached from this machine (`pg_isready -h HOST -p PORT`).",
)
NOT_OURS = Said(
    LedgerCorrupt,
    "The database {where} is no ledger",
    "Nothing was changed. The operator has to check `ledger:`, and to give the ledger a database or a schema "
    "(?schema=) of its own.",
)
_STANDBY = Said(
    Standby,
    "The ledger {where} cannot be written",
    "Nothing was written. The server is a standby, or was made read-only (default_transaction_read_only). "
    "The operator has to name the primary in `ledger:`, or all servers with target_session_attrs=read-write.",
)
_UNKNOWN_HOST = Said(
    UnknownHost,
    "The host of the ledger {where} is not known",
    "The operator has to check the host in `ledger:` and this machine's name service.",
)

# Of the text of a failed connection, in this order: what names the cause best comes first.
_BY_TEXT = {
    "role.*does not exist|authentication failed|no password supplied|no pg_hba.conf entry"
    "|pg_hba.conf rejects|is not permitted to log in|permission denied for database": Said(
        LedgerRefused,
        "The database server does not let us into the ledger {where}",
        "The operator has to check the user in `ledger:` and its password, which comes from the URL, from "
        "PGPASSWORD, or from PGPASSFILE (a file that only its owner may read), and the server's pg_hba.conf.",
    ),
    "database.*does not exist": Said(
        LedgerMissing,
        "There is no database for the ledger {where}",
        "The operator has to make it once: `createdb --owner=USER --encoding=UTF8 --template=template0 "
        "DATABASE`.",
    ),
    "too many clients|too many connections|connection slots are reserved": Said(
        Away,
        "The database server has no connection left for the ledger {where}",
        "It is tried again. If it goes on, the operator has to raise max_connections, or the user's or "
        "database's CONNECTION LIMIT: each process takes two, and one for each thread that reads.",
    ),
    "session is read-only|hot standby|session is not read-only|server is not in hot": _STANDBY,
    # Also where TLS is spoken: the server has ended in the middle of it.
    "SYSCALL error|closed the connection|connection has been closed|Connection reset": AWAY,
    "certificate|SSL|ssl|TLS|tls": Said(
        LedgerRefused,
        "No connection that TLS protects can be made to the ledger {where}",
        "The operator has to make sslmode, sslrootcert, sslcert and sslkey in `ledger:` fit the server: "
        "verify-full wants a certificate for the host's name, signed by an authority in the file "
        "sslrootcert (~/.postgresql/root.crt; sslrootcert=system takes the machine's own).",
    ),
    "Temporary failure in name resolution": _UNKNOWN_HOST._replace(kind=Away),
    "could not translate host name|failed to resolve host|Name or service not known": _UNKNOWN_HOST,
}
_STARTING = "the database system is|not yet accepting connections|too many c|slots are reserved"

# By the beginning of the SQLSTATE (https://www.postgresql.org/docs/current/errcodes-appendix.html).
_BY_STATE = {
    ("08", "57P01", "57P02", "57P03", "57P05", "25P03", "25P04"): AWAY,
    ("40001", "40P01"): Said(
        Contended,
        "The ledger {where} made us begin a write anew",
        "Nothing was written, and it is tried again.",
    ),
    ("55P03", "57014"): Said(
        LedgerLocked,
        "The ledger {where} is locked by another",
        "Nothing was written, and it is tried again. If it goes on, find who holds the lock "
        "(`SELECT pid, query FROM pg_stat_activity WHERE cardinality(pg_blocking_pids(pid)) = 0 AND "
        "state <> 'idle'`), often a database shell with an open transaction, and end it.",
    ),
    ("25006",): _STANDBY,
    ("42501", "28000", "28P01"): Said(
        LedgerReadOnly,
        "We have no right to that in the ledger {where}",
        "Nothing was written. The operator has to make the user the owner of its database or schema "
        "(`ALTER DATABASE name OWNER TO user`), or grant it USAGE and CREATE on the schema, and own the "
        "tables that are there.",
    ),
    ("3F000",): Said(
        LedgerMissing,
        "The ledger {where} has no schema to lie in",
        "The operator has to make it once (`CREATE SCHEMA name AUTHORIZATION user`), or correct ?schema= "
        "in `ledger:`.",
    ),
    ("53100",): Said(
        LedgerFull,
        "There is no room left for the ledger {where}",
        "Nothing was written. The operator has to free space on the database server's disk; the "
        "deliveries then go on from what is recorded.",
    ),
    ("XX",): Said(
        LedgerCorrupt,
        "The ledger {where} is damaged",
        "Do not remove it: it is the record of what was delivered. The operator has to look at the "
        "server's log and its disk, stop the service, and restore the last backup (docs/ledger.md).",
    ),
    ("42P01", "42703"): Said(
        LedgerError,
        "The ledger {where} was removed or replaced while it was in use",
        "Nothing was written. The operator has to stop the service, restore the last backup, and start "
        "again.",
    ),
    ("22",): UNSTORABLE,
}


def is_starting(error: XmodeError) -> bool:
    """Whether the server is there, and says that it will be ready soon."""
    return re.search(_STARTING, error.message) is not None


def from_connecting(error: BaseException, where: str) -> XmodeError:
    """The domain error for a connection that was not made."""
    detail = _one_line(error)
    said = next((said for texts, said in _BY_TEXT.items() if re.search(texts, detail)), AWAY)
    return said.error(where, detail)


def from_server(error: BaseException, where: str) -> XmodeError:
    """The domain error for what went wrong on a connection."""
    state = getattr(error, "sqlstate", None) or ""
    if state == "53300":  # too many connections, of one kind or another
        return from_connecting(error, where)
    # Where the driver has an error of its own, without the server's word, the connection is gone.
    if not state and isinstance(error, psycopg.OperationalError | psycopg.InterfaceError):
        said = AWAY
    else:
        otherwise = UNSTORABLE if isinstance(error, psycopg.DataError) else OTHER
        said = next((said for states, said in _BY_STATE.items() if state.startswith(states)), otherwise)
    return said.error(where, _one_line(error))


def for_good(error: XmodeError, seconds: float) -> XmodeError:
    """What is told when it was waited for long enough."""
    waited = f" It was tried for {seconds:.0f} seconds." if seconds >= 1 else ""
    kind = next(kind for kind in (LedgerUnreachable, LedgerReadOnly, LedgerLocked) if isinstance(error, kind))
    return kind(f"{error.message}{waited}", hint=error.hint)


def _one_line(error: BaseException) -> str:
    # libpq ends with a question that our own hint answers
    text = " ".join(str(error).split()).partition(" Is the server running")[0].rstrip(".")
    return text or type(error).__name__


T = TypeVar("T")

_FIRST_PAUSE_SECONDS = 0.05
_LONGEST_PAUSE_SECONDS = 2.0
_GONE_SECONDS = 15.0
"""In a process that ends, nobody tries for so long what was tried in vain."""
ANSWER_SECONDS = 5.0
"""What was asked must be answered within this, once the process is to end."""
_LOOK_SECONDS = 0.5


class Patience:
    """Repeats what failed by a passing trouble (``errors.PASSING``), for ``seconds`` since it began. One line
    in the log says that the server is away, and one that it is back, however many threads wait for it."""

    def __init__(self, where: str, seconds: float) -> None:
        self._where = where
        self._seconds = seconds
        self._over = threading.Event()
        self._door = threading.Lock()
        self._away_since: float | None = None
        self._gone_since: float | None = None

    def run(self, attempt: Callable[[], T]) -> T:
        """What the attempt answers. Raises what it raises, and a trouble that did not pass as one that the
        caller need not wait for any more."""
        began: float | None = None
        pause = 0.0  # a connection that broke while it lay unused is replaced at once, and not reported
        while True:
            if self._is_gone():
                raise for_good(AWAY.error(self._where, "it does not answer"), 0)
            try:
                answer = attempt()
            except PASSING as error:
                now = time.monotonic()
                is_first = began is None
                began = now if began is None else began
                waited = now - began
                # In a hurry, too, a connection that broke while it lay unused is replaced.
                if waited >= self._seconds or (self._over.is_set() and not is_first):
                    if isinstance(error, Away):
                        self.gone()
                    raise for_good(error, waited) from error
                if pause:
                    self._tell(error, began)
                self._over.wait(min(pause, self._seconds - waited))
                pause = min(max(pause * 2, _FIRST_PAUSE_SECONDS), _LONGEST_PAUSE_SECONDS)
            else:
                if self._away_since is not None:
                    self._tell_the_end()
                return answer

    def end(self) -> None:
        """Nobody waits any more: each goes on with one last attempt, and none while the server is known to be
        gone."""
        self._over.set()

    def gone(self) -> None:
        """The server was asked in vain."""
        self._gone_since = time.monotonic()

    def _is_gone(self) -> bool:
        since = self._gone_since
        return self._over.is_set() and since is not None and time.monotonic() - since < _GONE_SECONDS

    def _tell(self, error: XmodeError, since: float) -> None:
        if isinstance(error, Contended):
            return
        with self._door:
            if self._away_since is not None:
                return
            self._away_since = since
        telemetry.log(telemetry.Event.LEDGER_UNAVAILABLE, ledger=self._where, **error.log_context())

    def _tell_the_end(self) -> None:
        with self._door:
            since, self._away_since = self._away_since, None
        if since is not None:
            telemetry.log(
                telemetry.Event.LEDGER_RECOVERED,
                ledger=self._where,
                seconds=round(time.monotonic() - since, 1),
            )


class Asking(psycopg.Connection[Any]):
    """A connection that knows since when it has waited for an answer."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._door = threading.Lock()
        self._since: float | None = None

    def wait(self, gen: PQGen[T], *arguments: Any, **named: Any) -> T:
        self._since = time.monotonic()
        try:
            return super().wait(gen, *arguments, **named)
        finally:
            with self._door:
                self._since = None

    def give_up(self, seconds: float) -> bool:
        """Breaks the connection if it has waited for so long; from any thread. Whoever waits gets the
        driver's error for a connection that was lost. Answers whether it did."""
        with self._door:  # while it is held, nobody closes the socket, whose number another might get
            if self._since is None or time.monotonic() - self._since < seconds:
                return False
            with suppress(OSError, psycopg.Error), socket.socket(fileno=os.dup(self.fileno())) as same:
                same.shutdown(socket.SHUT_RDWR)
            return True


class Answers:
    """All connections of a database, as long as they are open."""

    def __init__(self, given_up: Callable[[], None]) -> None:
        """``given_up`` is called, by a thread of ours, when a connection was broken."""
        self._given_up = given_up
        self._open: WeakSet[Asking] = WeakSet()
        self._door = threading.Lock()
        self._hurried = False
        self._ended = threading.Event()

    def expect(self, connection: Asking) -> None:
        """Looks after the connection from now on."""
        with self._door:
            self._open.add(connection)

    def hurry(self) -> None:
        """From now on an answer has ``ANSWER_SECONDS``. Idempotent."""
        with self._door:
            if self._hurried or self._ended.is_set():
                return
            self._hurried = True
        threading.Thread(target=self._look, name="ledger-answers", daemon=True).start()

    def close(self) -> None:
        self._ended.set()

    def _look(self) -> None:
        while not self._ended.wait(_LOOK_SECONDS):
            with self._door:
                connections = list(self._open)
            for connection in connections:
                if connection.give_up(ANSWER_SECONDS):
                    self._given_up()

"""The errors of PostgreSQL and its client library, as errors that a person can act on.

The server's refusals have an SQLSTATE. A connection that fails has only a text, perhaps in another language.
"""

import re

import psycopg

from xmode_transfer.ledger.database import OTHER, UNSTORABLE, Message
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
    """The server cannot be reached or is not ready: the transaction is retried."""


class UnknownHost(Away):
    """No host has that name."""


class Standby(LedgerReadOnly):
    """The server accepts no writes, perhaps until it becomes the primary: the transaction is retried."""


class Contended(LedgerLocked):
    """The server ended one of two transactions that waited for each other: it is retried."""


PASSING = (Away, Standby, Contended)

AWAY = Message(
    Away,
    "The ledger {where} cannot be reached",
    "It is tried again. If this continues, the operator has to check that the database server runs and can "
    "be reached from this machine (`pg_isready -h HOST -p PORT`).",
)
NOT_OURS = Message(
    LedgerCorrupt,
    "The database {where} is no ledger",
    "Nothing was changed. The operator has to check `ledger:`, and to give the ledger a database or a schema "
    "(?schema=) of its own.",
)
_STANDBY = Message(
    Standby,
    "The ledger {where} cannot be written",
    "Nothing was written. The server is a standby, or was made read-only (default_transaction_read_only). "
    "The operator has to name the primary in `ledger:`, or all servers with target_session_attrs=read-write.",
)
_UNKNOWN_HOST = Message(
    UnknownHost,
    "The host of the ledger {where} is not known",
    "The operator has to check the host in `ledger:` and this machine's name service.",
)

# By the text of a failed connection; the first match names the cause best.
_BY_TEXT = {
    "role.*does not exist|authentication failed|no password supplied|no pg_hba.conf entry"
    "|pg_hba.conf rejects|is not permitted to log in|permission denied for database": Message(
        LedgerRefused,
        "The database server refuses access to the ledger {where}",
        "The operator has to check the user in `ledger:` and its password, which comes from the URL, from "
        "PGPASSWORD, or from PGPASSFILE (a file that only its owner may read), and the server's pg_hba.conf.",
    ),
    "database.*does not exist": Message(
        LedgerMissing,
        "There is no database for the ledger {where}",
        "The operator has to make it once: `createdb --owner=USER --encoding=UTF8 --template=template0 "
        "DATABASE`.",
    ),
    "too many clients|too many connections|connection slots are reserved": Message(
        Away,
        "The database server has no connection left for the ledger {where}",
        "It is tried again. If this continues, the operator has to raise max_connections, or the user's or "
        "database's CONNECTION LIMIT: each process uses two, and one for each thread that reads.",
    ),
    "session is read-only|hot standby|session is not read-only|server is not in hot": _STANDBY,
    # The server ended, also in the middle of TLS.
    "SYSCALL error|closed the connection|connection has been closed|Connection reset": AWAY,
    "certificate|SSL|ssl|TLS|tls": Message(
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
    ("40001", "40P01"): Message(
        Contended,
        "The ledger {where} ended a write to resolve a deadlock",
        "Nothing was written. It is tried again.",
    ),
    ("55P03", "57014"): Message(
        LedgerLocked,
        "The ledger {where} is locked by another",
        "Nothing was written. It is tried again. If this continues, find the process that holds the lock "
        "(`SELECT pid, query FROM pg_stat_activity WHERE cardinality(pg_blocking_pids(pid)) = 0 AND "
        "state <> 'idle'`), often a database shell with an open transaction, and end it.",
    ),
    ("25006",): _STANDBY,
    ("42501", "28000", "28P01"): Message(
        LedgerReadOnly,
        "We lack a privilege in the ledger {where}",
        "Nothing was written. The operator has to make the user the owner of its database or schema "
        "(`ALTER DATABASE name OWNER TO user`), or grant it USAGE and CREATE on the schema, and own the "
        "tables that are there.",
    ),
    ("3F000",): Message(
        LedgerMissing,
        "The ledger {where} has no schema",
        "The operator has to make it once (`CREATE SCHEMA name AUTHORIZATION user`), or correct ?schema= "
        "in `ledger:`.",
    ),
    ("53100",): Message(
        LedgerFull,
        "There is no room left for the ledger {where}",
        "Nothing was written. The operator has to free space on the database server's disk; "
        "deliveries then continue from what is recorded.",
    ),
    ("XX",): Message(
        LedgerCorrupt,
        "The ledger {where} is damaged",
        "Do not remove it: it is the record of what was delivered. The operator has to check the "
        "server's log and its disk, stop the service, and restore the last backup (docs/ledger.md).",
    ),
    ("42P01", "42703"): Message(
        LedgerError,
        "The ledger {where} was removed or replaced while it was in use",
        "Nothing was written. The operator has to stop the service, restore the last backup, and start "
        "again.",
    ),
    ("22",): UNSTORABLE,
}


def is_starting(error: XmodeError) -> bool:
    return re.search(_STARTING, error.message) is not None


def from_connecting(error: BaseException, where: str) -> XmodeError:
    """Return the ledger's error for a connection that failed."""
    detail = _one_line(getattr(error, "orig", None) or error)
    message = next((message for texts, message in _BY_TEXT.items() if re.search(texts, detail)), AWAY)
    return message.error(where, detail)


def from_server(error: BaseException, where: str) -> XmodeError:
    """Return the ledger's error for an error on a connection."""
    error = getattr(error, "orig", None) or error
    state = getattr(error, "sqlstate", None) or ""
    if state == "53300":  # too many connections, of one kind or another
        return from_connecting(error, where)
    # The driver's own error, without the server's: the connection is gone.
    if not state and isinstance(error, psycopg.OperationalError | psycopg.InterfaceError):
        message = AWAY
    else:
        default = UNSTORABLE if isinstance(error, psycopg.DataError) else OTHER
        message = next((found for states, found in _BY_STATE.items() if state.startswith(states)), default)
    return message.error(where, _one_line(error))


def final(error: XmodeError, seconds: float = 0) -> XmodeError:
    """Return the error for callers, without further retries."""
    waited = f" It was tried for {seconds:.0f} seconds." if seconds >= 1 else ""
    kind = next(kind for kind in (LedgerUnreachable, LedgerReadOnly, LedgerLocked) if isinstance(error, kind))
    return kind(f"{error.message}{waited}", hint=error.hint)


def _one_line(error: BaseException) -> str:
    # libpq ends with a question that our hint answers
    text = " ".join(str(error).split()).partition(" Is the server running")[0].rstrip(".")
    return text or type(error).__name__

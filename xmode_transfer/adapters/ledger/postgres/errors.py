"""What PostgreSQL and its client library say, as errors that a person can act on.

A refusal of the server has an SQLSTATE. One that comes while the connection is made has none in libpq, only
its text, which the server may say in another language: then it is told as it is.
"""

import psycopg

from xmode_transfer.adapters.ledger.errors import other, unstorable
from xmode_transfer.domain.errors import (
    ConfigError,
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

OLDEST_VERSION = 13


class Away(LedgerUnreachable):
    """The server is not there or not ready: whoever may wait does so, and tries the whole transaction
    again."""


class UnknownHost(Away):
    """No host has the name, or its name server forgot it for a moment."""


class Standby(LedgerReadOnly):
    """The server takes no writes, as one does that is about to be made the primary."""


class Contended(LedgerLocked):
    """The server ended one of two transactions that waited for each other: it is run again."""


_ENDED_STATES = ("57P01", "57P02", "57P03", "57P05", "25P03", "25P04")
PASSING = (Away, Standby, Contended)

_AWAY = (
    "It is tried again. If it goes on, the operator has to see whether the database server runs and can be "
)
_AWAY_HINT = _AWAY + "reached from this machine (`pg_isready -h HOST -p PORT`)."
# Of the text of a failed connection, in this order: what names the cause best comes first.
_REFUSED_TEXTS = (
    "password authentication failed",
    "no password supplied",
    "authentication failed",
    "no pg_hba.conf entry",
    "pg_hba.conf rejects",
    "is not permitted to log in",
    "permission denied for database",
)
_BROKEN_TEXTS = ("SYSCALL error", "closed the connection", "connection has been closed", "Connection reset")
_TLS_TEXTS = ("certificate", "SSL", "ssl", "TLS", "tls")
_FULL_TEXTS = ("too many clients", "too many connections", "connection slots are reserved")
_NO_READS_TEXTS = ("session is read-only", "hot standby", "session is not read-only", "server is not in hot")
_STARTING_TEXTS = (
    "the database system is",
    "not yet accepting connections",
    "too many c",
    "slots are reserved",
)
_NO_HOST_TEXTS = ("could not translate host name", "failed to resolve host", "Name or service not known")
_NO_NAME_SERVER_TEXT = "Temporary failure in name resolution"


def away(where: str, detail: str) -> Away:
    return Away(f"The ledger {where} cannot be reached: {detail}.", hint=_AWAY_HINT)


def is_starting(error: XmodeError) -> bool:
    """Whether the server is there, and says that it will be ready soon."""
    return any(text in error.message for text in _STARTING_TEXTS)


def from_connecting(error: BaseException, where: str) -> XmodeError:
    """The domain error for a connection that was not made."""
    detail = _one_line(error)

    def says(texts: tuple[str, ...]) -> bool:
        return any(text in detail for text in texts)

    if ("role" in detail and "does not exist" in detail) or says(_REFUSED_TEXTS):
        return LedgerRefused(
            f"The database server does not let us into the ledger {where}: {detail}.",
            hint="The operator has to check the user in `ledger:` and its password, which comes from the "
            "URL, from PGPASSWORD, or from PGPASSFILE (a file that only its owner may read), and the "
            "server's pg_hba.conf.",
        )
    if "database" in detail and "does not exist" in detail:
        return LedgerMissing(
            f"There is no database for the ledger {where}: {detail}.",
            hint="The operator has to make it once: `createdb --owner=USER --encoding=UTF8 "
            "--template=template0 DATABASE`.",
        )
    if says(_FULL_TEXTS):
        return Away(
            f"The database server has no connection left for the ledger {where}: {detail}.",
            hint="It is tried again. If it goes on, the operator has to raise max_connections, or the user's "
            "or database's CONNECTION LIMIT: each process takes two, and one for each thread that reads.",
        )
    if says(_NO_READS_TEXTS):
        return standby(where, detail)
    if says(_BROKEN_TEXTS):  # also where TLS is spoken: the server has ended in the middle of it
        return away(where, detail)
    if says(_TLS_TEXTS):
        return LedgerRefused(
            f"No connection that TLS protects can be made to the ledger {where}: {detail}.",
            hint="The operator has to make sslmode, sslrootcert, sslcert and sslkey in `ledger:` fit the "
            "server: verify-full wants a certificate for the host's name, signed by an authority in the "
            "file sslrootcert (~/.postgresql/root.crt; sslrootcert=system takes the machine's own).",
        )
    if says(_NO_HOST_TEXTS):
        kind = Away if _NO_NAME_SERVER_TEXT in detail else UnknownHost
        return kind(
            f"The host of the ledger {where} is not known: {detail}.",
            hint="The operator has to check the host in `ledger:` and this machine's name service.",
        )
    return away(where, detail)


def from_server(error: BaseException, where: str) -> XmodeError:
    """The domain error for what went wrong on a connection."""
    detail = _one_line(error)
    state = getattr(error, "sqlstate", None) or ""
    # Where the driver has an error of its own, without the server's word, the connection is gone.
    is_gone = not state and isinstance(error, psycopg.OperationalError | psycopg.InterfaceError)
    if is_gone or state in _ENDED_STATES or state.startswith("08"):
        return away(where, detail)
    if state in ("40001", "40P01"):
        return Contended(
            f"The ledger {where} made us begin a write anew: {detail}.",
            hint="Nothing was written, and it is tried again.",
        )
    if state == "53300":
        return from_connecting(error, where)
    if state in ("55P03", "57014"):
        return LedgerLocked(
            f"The ledger {where} is locked by another: {detail}.",
            hint="Nothing was written, and it is tried again. If it goes on, find who holds the lock "
            "(`SELECT pid, query FROM pg_stat_activity WHERE cardinality(pg_blocking_pids(pid)) = 0 AND "
            "state <> 'idle'`), often a database shell with an open transaction, and end it.",
        )
    if state == "25006":
        return standby(where, detail)
    if state in ("42501", "28000", "28P01"):
        return no_right(where, detail)
    if state == "3F000":
        return no_schema(where, detail)
    if state == "53100":
        return LedgerFull(
            f"There is no room left for the ledger {where}: {detail}.",
            hint="Nothing was written. The operator has to free space on the database server's disk; the "
            "deliveries then go on from what is recorded.",
        )
    if state.startswith("XX"):
        return damaged(where, detail)
    if state in ("42P01", "42703"):
        return LedgerError(
            f"The ledger {where} was removed or replaced while it was in use: {detail}.",
            hint="Nothing was written. The operator has to stop the service, restore the last backup, and "
            "start again.",
        )
    if state.startswith("22") or isinstance(error, psycopg.DataError):
        return unstorable(where, Exception(detail))
    return other(where, detail)


def standby(where: str, detail: str) -> Standby:
    return Standby(
        f"The ledger {where} cannot be written: {detail}.",
        hint="Nothing was written. The server is a standby, or was made read-only "
        "(default_transaction_read_only). The operator has to name the primary in `ledger:`, or all servers "
        "with target_session_attrs=read-write.",
    )


def no_right(where: str, detail: str) -> LedgerReadOnly:
    return LedgerReadOnly(
        f"We have no right to that in the ledger {where}: {detail}.",
        hint="Nothing was written. The operator has to make the user the owner of its database or schema "
        "(`ALTER DATABASE name OWNER TO user`), or grant it USAGE and CREATE on the schema, and own the "
        "tables that are there.",
    )


def no_schema(where: str, detail: str) -> LedgerMissing:
    return LedgerMissing(
        f"The ledger {where} has no schema to lie in: {detail}.",
        hint="The operator has to make it once (`CREATE SCHEMA name AUTHORIZATION user`), or correct "
        "?schema= in `ledger:`.",
    )


def damaged(where: str, detail: str) -> LedgerCorrupt:
    return LedgerCorrupt(
        f"The ledger {where} is damaged: {detail}.",
        hint="Do not remove it: it is the record of what was delivered. The operator has to look at the "
        "server's log and its disk, stop the service, and restore the last backup (docs/ledger.md).",
    )


def not_ours(where: str, detail: str) -> LedgerCorrupt:
    return LedgerCorrupt(
        f"The database {where} is no ledger: {detail}.",
        hint="Nothing was changed. The operator has to check `ledger:`, and to give the ledger a database or "
        "a schema (?schema=) of its own.",
    )


def missing(where: str) -> LedgerMissing:
    return LedgerMissing(
        f"There is no ledger at {where}.",
        hint="Check `ledger:` in service.yaml. The first `xmode-transfer run` or `daemon` makes a new one.",
    )


def too_old(where: str, version: int) -> ConfigError:
    return ConfigError(
        f"ledger: the server of {where} is PostgreSQL {version // 10_000}, which is too old.",
        hint=f"The operator has to upgrade it to PostgreSQL {OLDEST_VERSION} or later.",
    )


def other_encoding(where: str, encoding: str) -> ConfigError:
    return ConfigError(
        f"ledger: the database {where} has the encoding {encoding}, which cannot hold every name.",
        hint="The operator has to make one with UTF8: `createdb --encoding=UTF8 --template=template0 NAME`.",
    )


def for_good(error: XmodeError, seconds: float) -> XmodeError:
    """What is told when it was waited for long enough."""
    waited = f" It was tried for {seconds:.0f} seconds." if seconds >= 1 else ""
    kind = next(kind for kind in (LedgerUnreachable, LedgerReadOnly, LedgerLocked) if isinstance(error, kind))
    return kind(f"{error.message}{waited}", hint=error.hint)


def _one_line(error: BaseException) -> str:
    # libpq ends with a question that our own hint answers
    text = " ".join(str(error).split()).partition(" Is the server running")[0].rstrip(".")
    return text or type(error).__name__

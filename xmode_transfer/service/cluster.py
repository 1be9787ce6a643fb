"""A fleet's needs: the extra `cluster`, a ledger in PostgreSQL, and Procrastinate's tables in it.

Procrastinate ships a schema and later migrations, but does not record which were applied; this module does.
``pre`` migrations may be applied while older workers run, ``post`` ones only when none does: they wait for a
start without live workers, or for the migrations of a later release."""

from importlib import resources
from importlib.metadata import version
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from xmode_transfer.config import Service
from xmode_transfer.config.secrets import SQLITE, backend, ledger_url
from xmode_transfer.ledger import Ledger
from xmode_transfer.model.errors import ConfigError
from xmode_transfer.model.jobs import WorkQueue
from xmode_transfer.model.process import SILENT_AFTER

if TYPE_CHECKING:
    from psycopg import Connection

_LOCK = 0x786D6F646571  # "xmodeq"
_NOTED = "queue_migrations"
_POST = "_post_"


def check_installed() -> None:
    """Raise ConfigError without the extra `cluster`."""
    for module in ("psycopg", "procrastinate"):
        if find_spec(module) is None:
            raise ConfigError(
                f"A fleet requires {module}, which is not installed.",
                hint="Run `pip install 'xmode-transfer[cluster]'` on this machine; or use a single machine: "
                "`xmode-transfer daemon` needs no extra.",
            )


def check(service: Service) -> None:
    """Raise ConfigError if the ledger or this installation is for one machine only."""
    check_installed()
    if backend(ledger_url(service.ledger)) == SQLITE:
        raise ConfigError(
            "The ledger is in SQLite, which supports one machine. A fleet needs a ledger in PostgreSQL.",
            hint="Copy it (`xmode-transfer ledger copy postgresql://USER@HOST/DATABASE`) "
            "and set that URL as `ledger:` in service.yaml; or use a single machine: "
            "`xmode-transfer daemon`.",
        )


def queue(service: Service, ledger: Ledger) -> WorkQueue:
    """Return the fleet's queue, after creating or upgrading its tables. Raises ConfigError, LedgerError."""
    make(ledger_url(service.ledger))
    return ledger.queue


def make(url: str) -> None:
    """Apply missing migrations, one process at a time; two queries when none is missing. Raises ConfigError
    for tables that are unmanaged or newer than this program, LedgerError."""
    from procrastinate.schema import SchemaManager

    from xmode_transfer.ledger.postgres import connected

    with connected(url) as (connection, where):
        # Only under the lock are the tables all there or all missing.
        if _has_table(connection, _NOTED) and not _missing(connection, where):
            return
        connection.execute("SELECT pg_advisory_lock(%s)", (_LOCK,))
        missing = _missing(connection, where)
        if missing is None:
            columns = "(name text PRIMARY KEY, made_at timestamptz NOT NULL DEFAULT now())"
            with connection.transaction():
                connection.execute(SchemaManager.get_schema())
                connection.execute(f"CREATE TABLE {_NOTED} {columns}")
                _note(connection, known())
            return
        for name in due(missing, is_alone=_is_alone(connection)):
            with connection.transaction():
                connection.execute(_migrations().joinpath(name).read_bytes())
                _note(connection, [name])


def known() -> list[str]:
    """Return the migrations of the installed Procrastinate, in order."""
    return sorted(file.name for file in _migrations().iterdir() if file.name.endswith(".sql"))


def _migrations() -> Any:
    return resources.files("procrastinate.sql.migrations")


def due(missing: list[str], *, is_alone: bool) -> list[str]:
    """Return the missing migrations that may be applied now. ``is_alone`` is True without live workers."""
    if is_alone:
        return missing
    last = max((number for number, name in enumerate(missing) if _POST not in name), default=-1)
    return missing[: last + 1]


def _missing(connection: "Connection[Any]", where: str) -> list[str] | None:
    """Return None if there is no schema yet."""
    if not _has_table(connection, _NOTED):
        if _has_table(connection, "procrastinate_jobs"):
            raise ConfigError(
                f"The database {where} has tables of Procrastinate that xmode-transfer did not create; "
                "their release is unknown.",
                hint="Nothing was changed. Give the ledger its own database or schema (?schema=), or drop "
                "these tables if nothing else uses them.",
            )
        return None
    made = {name for (name,) in connection.execute(f"SELECT name FROM {_NOTED}")}
    if newer := sorted(name for name in made.difference(known()) if _POST in name):
        raise ConfigError(
            f"The queue in {where} was created by a newer Procrastinate than the installed "
            f"{version('procrastinate')} ({newer[-1]}).",
            hint="Nothing was changed. Install the same release of xmode-transfer and its extra "
            "`cluster` on this machine as on the others.",
        )
    return [name for name in known() if name not in made]


def _note(connection: "Connection[Any]", names: list[str]) -> None:
    with connection.cursor() as cursor:
        cursor.executemany(f"INSERT INTO {_NOTED} (name) VALUES (%s)", [(name,) for name in names])


def _is_alone(connection: "Connection[Any]") -> bool:
    if not _has_table(connection, "workers"):
        return True
    return not _truth(
        connection,
        "SELECT EXISTS (SELECT 1 FROM workers WHERE stopped_at IS NULL AND seen_at >= "
        "to_char(clock_timestamp() AT TIME ZONE 'UTC' - %s, 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"'))",
        SILENT_AFTER,
    )


def _has_table(connection: "Connection[Any]", name: str) -> bool:
    return _truth(connection, "SELECT to_regclass(%s) IS NOT NULL", name)


def _truth(connection: "Connection[Any]", query: Any, value: object) -> bool:
    row = connection.execute(query, (value,)).fetchone()
    return row is not None and bool(row[0])

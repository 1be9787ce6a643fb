"""Procrastinate's tables and functions, in the ledger's database.

The first process of the fleet to start creates or upgrades them. Procrastinate ships a full schema and one
migration per later change, but does not record which were applied; this module does.

Migrations come in pairs: ``pre`` may be applied while older workers run, ``post`` only when none does. A
rolling upgrade therefore applies the first kind at once. The second waits for a start without live workers,
or for the migrations of a later release.
"""

from importlib import resources
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from procrastinate.schema import SchemaManager

from xmode_transfer.ledger.postgres import connected
from xmode_transfer.model.errors import ConfigError
from xmode_transfer.model.process import SILENT_AFTER

if TYPE_CHECKING:
    from psycopg import Connection

_LOCK = 0x786D6F646571  # "xmodeq"
_NOTED = "queue_migrations"
_POST = "_post_"
"""Part of the name of a migration that breaks older workers."""


def make(url: str) -> None:
    """Apply missing migrations, one process at a time; costs one query when none is missing. Raises
    ConfigError for tables that are unmanaged or newer than this program, LedgerError."""
    with connected(url) as (connection, where):
        _make(connection, where)


def known() -> list[str]:
    """Return the migrations of the installed Procrastinate, in order."""
    files = resources.files("procrastinate.sql.migrations").iterdir()
    return sorted(file.name for file in files if file.name.endswith(".sql"))


def due(missing: list[str], *, is_alone: bool) -> list[str]:
    """Return the missing migrations that may be applied now. ``is_alone`` is True without live workers."""
    if is_alone:
        return missing
    last = max((number for number, name in enumerate(missing) if _POST not in name), default=-1)
    return missing[: last + 1]


def _make(connection: "Connection[Any]", where: str) -> None:
    if _missing(connection, where) == []:
        return
    connection.execute("SELECT pg_advisory_lock(%s)", (_LOCK,))
    missing = _missing(connection, where)  # another process may have applied them
    if missing is None:
        with connection.transaction():
            connection.execute(SchemaManager.get_schema())
            connection.execute(
                f"CREATE TABLE {_NOTED} (name text PRIMARY KEY, made_at timestamptz NOT NULL DEFAULT now())"
            )
            _note(connection, known())
        return
    for name in due(missing, is_alone=_is_alone(connection)):
        with connection.transaction():
            sql = resources.files("procrastinate.sql.migrations").joinpath(name).read_bytes()
            connection.execute(sql)
            _note(connection, [name])


def _missing(connection: "Connection[Any]", where: str) -> list[str] | None:
    """Return the missing migrations; None if there is no schema yet."""
    row = connection.execute(
        f"SELECT to_regclass('{_NOTED}') IS NOT NULL, to_regclass('procrastinate_jobs') IS NOT NULL"
    ).fetchone()
    assert row is not None
    is_noted, is_there = row
    if not is_noted:
        if is_there:
            raise ConfigError(
                f"The database {where} has tables of Procrastinate that xmode-transfer did not create; "
                "their release is unknown.",
                hint="Nothing was changed. Give the ledger its own database or schema (?schema=), or drop "
                "these tables if nothing else uses them.",
            )
        return None
    made = {name for (name,) in connection.execute(f"SELECT name FROM {_NOTED}")}
    newer = sorted(name for name in made.difference(known()) if _POST in name)
    if newer:
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
    """Return True if no worker is alive, by the ledger's records."""
    there = connection.execute("SELECT to_regclass('workers') IS NOT NULL").fetchone()
    if there is None or not there[0]:
        return True
    row = connection.execute(
        "SELECT EXISTS (SELECT 1 FROM workers WHERE stopped_at IS NULL AND seen_at >= "
        "to_char(clock_timestamp() AT TIME ZONE 'UTC' - %s, 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"'))",
        (SILENT_AFTER,),
    ).fetchone()
    return row is not None and not row[0]

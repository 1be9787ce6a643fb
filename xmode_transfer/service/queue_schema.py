"""Procrastinate's tables and functions, beside the ledger's.

They are made, and brought up to date, by whoever starts first with the engine. Procrastinate brings its
schema as a whole and as a migration for each change since, and keeps no note of which were made; so we do.

Its migrations come in pairs: what is marked ``pre`` may be made while older workers still run, what is
marked ``post`` only when none does any more. So a rolling upgrade makes the first kind at once; the second
waits for a start at which no worker lives, or for the migrations of a later release, whose users have left
the older one behind.
"""

from importlib import resources
from importlib.metadata import version

import psycopg
from procrastinate.schema import SchemaManager

from xmode_transfer.ledger.postgres import address, errors
from xmode_transfer.model.errors import ConfigError
from xmode_transfer.model.jobs import SILENT_AFTER

_LOCK = 0x786D6F646571  # "xmodeq"
_NOTED = "queue_migrations"
_POST = "_post_"
"""In the name of a migration that older workers do not bear."""


def make(url: str) -> None:
    """Makes what is missing. Several at once do it one after the other; where all is there, it costs one
    query. Raises ConfigError for tables that are not ours or are newer than this program, LedgerError."""
    where = address.parse(url)
    try:
        connection = psycopg.connect(where.conninfo, autocommit=True)
    except psycopg.Error as error:
        raise errors.from_connecting(error, where.where) from error
    try:
        with connection:
            _make(connection, where.where)
    except psycopg.Error as error:
        raise errors.from_server(error, where.where) from error


def known() -> list[str]:
    """The migrations that this release of Procrastinate brings, in their order."""
    files = resources.files("procrastinate.sql.migrations").iterdir()
    return sorted(file.name for file in files if file.name.endswith(".sql"))


def due(missing: list[str], *, is_alone: bool) -> list[str]:
    """Of the missing migrations, those that may be made now. ``is_alone`` when no worker lives."""
    if is_alone:
        return missing
    last = max((number for number, name in enumerate(missing) if _POST not in name), default=-1)
    return missing[: last + 1]


def _make(connection: psycopg.Connection, where: str) -> None:
    if _missing(connection, where) == []:
        return
    connection.execute("SELECT pg_advisory_lock(%s)", (_LOCK,))
    missing = _missing(connection, where)  # somebody else may have been at it
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


def _missing(connection: psycopg.Connection, where: str) -> list[str] | None:
    """The migrations to make; None when there is nothing at all yet."""
    row = connection.execute(
        f"SELECT to_regclass('{_NOTED}') IS NOT NULL, to_regclass('procrastinate_jobs') IS NOT NULL"
    ).fetchone()
    assert row is not None
    is_noted, is_there = row
    if not is_noted:
        if is_there:
            raise ConfigError(
                f"The database {where} has tables of Procrastinate that were not made by xmode-transfer: of "
                "which release they are is not known.",
                hint="Nothing was changed. The operator has to give the ledger a database or a schema "
                "(?schema=) of its own, or, when nobody else uses these tables, to drop them.",
            )
        return None
    made = {name for (name,) in connection.execute(f"SELECT name FROM {_NOTED}")}
    newer = sorted(name for name in made.difference(known()) if _POST in name)
    if newer:
        raise ConfigError(
            f"The queue in {where} was made by a newer Procrastinate than the {version('procrastinate')} "
            f"that is installed here ({newer[-1]}).",
            hint="Nothing was changed. The operator has to install the same release of xmode-transfer and "
            "its extra `cluster` on this machine as on the others.",
        )
    return [name for name in known() if name not in made]


def _note(connection: psycopg.Connection, names: list[str]) -> None:
    with connection.cursor() as cursor:
        cursor.executemany(f"INSERT INTO {_NOTED} (name) VALUES (%s)", [(name,) for name in names])


def _is_alone(connection: psycopg.Connection) -> bool:
    """Whether no worker lives, by the ledger's own record of them."""
    there = connection.execute("SELECT to_regclass('workers') IS NOT NULL").fetchone()
    if there is None or not there[0]:
        return True
    row = connection.execute(
        "SELECT EXISTS (SELECT 1 FROM workers WHERE stopped_at IS NULL AND seen_at >= "
        "to_char(clock_timestamp() AT TIME ZONE 'UTC' - %s, 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"'))",
        (SILENT_AFTER,),
    ).fetchone()
    return row is not None and not row[0]

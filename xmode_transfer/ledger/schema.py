"""Which version of the schema a database has, and how it comes to have ours."""

from datetime import datetime
from importlib import import_module

import sqlalchemy
from sqlalchemy import Connection

from xmode_transfer import telemetry
from xmode_transfer.ledger import errors
from xmode_transfer.ledger.database import Database
from xmode_transfer.ledger.tables.base import SCHEMA_VERSION, metadata
from xmode_transfer.model.errors import LedgerError, LedgerTooNew

_VERSION_TABLE = "alembic_version"
_MOVED = "moved "
"""How the version begins that stands in a ledger which was moved away; the time follows."""
_NEIGHBOURS = "procrastinate_"
"""What may lie beside a ledger: the queue of the workers, which keeps its own schema up to date."""


def prepare(database: Database, *, create: bool = True) -> None:
    """Brings the schema to ours, if it is absent (and ``create`` allows it) or older. Two processes may do so
    at the same time: the first migrates under a lock, the second finds it done. Raises LedgerTooNew when a
    later version made it."""
    found = database.read(lambda connection: version_of(connection, database))
    if found is None and not create:
        raise errors.missing(database.where)
    if found != SCHEMA_VERSION:
        before = database.write(lambda connection: _bring_up(connection, database))
        if before is not None:
            telemetry.log(
                telemetry.Event.LEDGER_MIGRATED, ledger=database.where, before=before, now=SCHEMA_VERSION
            )


def _bring_up(connection: Connection, database: Database) -> str | None:
    """Answers the version that was migrated from, if any was."""
    database.lock_schema(connection)
    found = version_of(connection, database)
    if found == SCHEMA_VERSION:
        return None
    if found is None:
        create_tables(connection)
    else:
        migrate(connection)
    return found


def version_of(connection: Connection, database: Database) -> str | None:
    """The version, or None for an empty database. Raises LedgerTooNew, LedgerCorrupt for a database that
    holds something else, and LedgerError for a ledger that was moved away."""
    tables = sqlalchemy.inspect(connection).get_table_names()
    if _VERSION_TABLE not in tables:
        others = sorted(name for name in tables if not name.startswith(_NEIGHBOURS))
        if others:
            raise database.corrupt(f"it holds other tables ({', '.join(others[:3])})")
        return None
    versions = [
        row[0] for row in connection.execute(sqlalchemy.text(f"SELECT version_num FROM {_VERSION_TABLE}"))
    ]
    if len(versions) != 1:
        raise database.corrupt(f"it has {len(versions)} schema versions")
    return known(str(versions[0]), database.where)


def known(found: str, where: str) -> str:
    """The version, unless it is one that we do not know. Raises LedgerTooNew, and LedgerError for a ledger
    that was moved away."""
    if found.startswith(_MOVED):
        raise LedgerError(
            f"The ledger {where} was moved to another database on {found.removeprefix(_MOVED)}.",
            hint="Nothing was changed. The operator has to write the new one into `ledger:` in service.yaml, "
            "here too. If that one is lost, docs/ledger.md says how to go back to this.",
        )
    if not found.isdigit() or int(found) > int(SCHEMA_VERSION):
        raise LedgerTooNew(
            f"The ledger {where} has schema version {found}; this program knows version "
            f"{SCHEMA_VERSION} at most.",
            hint="A later version of xmode-transfer has opened it. The operator has to install that version "
            "again, or restore the backup that was made before the upgrade. Nothing was changed.",
        )
    return found


def create_tables(connection: Connection) -> None:
    """The tables as they are now, in a database that has none. The migrations lead to the same (a test
    compares)."""
    metadata.create_all(connection)
    connection.execute(
        sqlalchemy.text(f"CREATE TABLE {_VERSION_TABLE} (version_num VARCHAR(32) PRIMARY KEY)")
    )
    connection.execute(
        sqlalchemy.text(f"INSERT INTO {_VERSION_TABLE} VALUES (:version)"), {"version": SCHEMA_VERSION}
    )


def mark_moved(connection: Connection, now: datetime) -> None:
    """From now on nobody opens it: ``ledger copy`` has moved it. Earlier versions refuse it too."""
    connection.execute(
        sqlalchemy.text(f"UPDATE {_VERSION_TABLE} SET version_num = :mark"),
        {"mark": f"{_MOVED}{now:%Y-%m-%dT%H:%MZ}"},
    )


def migrate(connection: Connection) -> None:
    """Runs the migrations from whatever version there is, also from none."""
    # Alembic is slow to import, and is needed only by the first start after an upgrade.
    command = import_module("alembic.command")
    config_class = import_module("alembic.config").Config
    config = config_class(attributes={"connection": connection})
    config.set_main_option("script_location", "xmode_transfer.ledger:migrations")
    config.set_main_option("path_separator", "os")
    command.upgrade(config, SCHEMA_VERSION)

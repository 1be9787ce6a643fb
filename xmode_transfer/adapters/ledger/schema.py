"""Which version of the schema a database has, and how it comes to have ours."""

from importlib import import_module

import sqlalchemy
from sqlalchemy import Connection

from xmode_transfer import telemetry
from xmode_transfer.adapters.ledger import errors
from xmode_transfer.adapters.ledger.engine import Database
from xmode_transfer.adapters.ledger.tables import SCHEMA_VERSION, metadata
from xmode_transfer.domain.errors import LedgerTooNew

_VERSION_TABLE = "alembic_version"


def prepare(database: Database) -> None:
    """Brings the schema to ours, if it is absent or older. Two processes may do so at the same time: the
    first migrates under the write lock, the second finds it done. Raises LedgerTooNew when a later version
    made it."""
    with database.reading() as connection:
        found = _found(connection, database.where)
    if found == SCHEMA_VERSION:
        return
    with database.writing() as connection:
        found = _found(connection, database.where)
        if found is None:
            _create(connection)
        elif found != SCHEMA_VERSION:
            migrate(connection)
            telemetry.log(
                telemetry.Event.LEDGER_MIGRATED, ledger=database.where, before=found, now=SCHEMA_VERSION
            )


def _found(connection: Connection, where: str) -> str | None:
    """The version, or None for an empty database."""
    tables = sqlalchemy.inspect(connection).get_table_names()
    if _VERSION_TABLE not in tables:
        if tables:
            raise errors.corrupt(where, f"it holds other tables ({', '.join(sorted(tables)[:3])})")
        return None
    versions = [
        row[0] for row in connection.execute(sqlalchemy.text(f"SELECT version_num FROM {_VERSION_TABLE}"))
    ]
    if len(versions) != 1:
        raise errors.corrupt(where, f"it has {len(versions)} schema versions")
    found = str(versions[0])
    if not found.isdigit() or int(found) > int(SCHEMA_VERSION):
        raise LedgerTooNew(
            f"The ledger {where} has schema version {found}; this program knows version {SCHEMA_VERSION} at "
            "most.",
            hint="A later version of xmode-transfer has opened it. The operator has to install that version "
            "again, or restore the backup that was made before the upgrade. Nothing was changed.",
        )
    return found


def _create(connection: Connection) -> None:
    """The tables as they are now, in a database that has none. The migrations lead to the same (a test
    compares)."""
    metadata.create_all(connection)
    connection.execute(
        sqlalchemy.text(f"CREATE TABLE {_VERSION_TABLE} (version_num VARCHAR(32) PRIMARY KEY)")
    )
    connection.execute(
        sqlalchemy.text(f"INSERT INTO {_VERSION_TABLE} VALUES (:version)"), {"version": SCHEMA_VERSION}
    )


def migrate(connection: Connection) -> None:
    """Runs the migrations from whatever version there is, also from none."""
    # Alembic is slow to import, and is needed only by the first start after an upgrade.
    command = import_module("alembic.command")
    config_class = import_module("alembic.config").Config
    config = config_class(attributes={"connection": connection})
    config.set_main_option("script_location", "xmode_transfer.adapters:migrations")
    config.set_main_option("path_separator", "os")
    command.upgrade(config, SCHEMA_VERSION)

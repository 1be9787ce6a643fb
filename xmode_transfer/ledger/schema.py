"""Opening a ledger's database by its URL, its schema's version, and the rules that its rows obey."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

import sqlalchemy as sa

from xmode_transfer import telemetry
from xmode_transfer.config.secrets import POSTGRESQL, backend
from xmode_transfer.ledger import sqlite
from xmode_transfer.ledger.database import Database, this_process
from xmode_transfer.ledger.tables import SCHEMA_VERSION, metadata
from xmode_transfer.model.errors import ConfigError, LedgerError, LedgerTooNew
from xmode_transfer.model.records import Status

MIGRATIONS = Path(__file__).parent / "migrations"
_VERSION_TABLE = "alembic_version"
_MOVED = "moved "
"""The beginning of the version of a ledger that was copied elsewhere; the time follows."""
_NEIGHBOURS = "procrastinate_"
"""Tables that may exist beside a ledger's: the fleet's queue, which upgrades its own schema."""


def is_postgres(url: str) -> bool:
    return backend(url) == POSTGRESQL


def connect(url: str, *, create: bool, holder: str | None = None, waits: bool = True) -> Database:
    """Open the database. ``create`` allows a new SQLite file; a database on a server must exist. See
    ``open_ledger`` for ``holder`` and ``waits``. Raises ConfigError also without the extra ``cluster``."""
    if not is_postgres(url):
        return sqlite.connect(url, create=create)
    try:
        postgres = import_module("xmode_transfer.ledger.postgres")
    except ImportError as error:
        if error.name is not None and error.name.startswith("xmode_transfer"):
            raise
        raise ConfigError(
            f"ledger: a ledger on PostgreSQL needs a part that is not installed ({error}).",
            hint="Install it with `pip install 'xmode-transfer[cluster]'`, or write sqlite:///var/ledger.db.",
        ) from error
    opened = postgres.connect(url, holder=holder or this_process(), waits=waits)
    assert isinstance(opened, Database)
    return opened


def prepare(database: Database) -> None:
    """Create the schema, or migrate an older one. Of two processes the first does so under a lock, and the
    second finds it done. Raises LedgerTooNew for a later version."""
    if database.read(lambda connection: version_of(connection, database)) != SCHEMA_VERSION:
        before = database.write(lambda connection: _upgrade(connection, database))
        if before is not None:
            telemetry.log(
                telemetry.Event.LEDGER_MIGRATED, ledger=database.where, before=before, now=SCHEMA_VERSION
            )


def _upgrade(connection: sa.Connection, database: Database) -> str | None:
    """Return the version that was migrated, if any."""
    database.lock_schema(connection)
    found = version_of(connection, database)
    if found == SCHEMA_VERSION:
        return None
    if found is None:
        create_tables(connection)
    else:
        migrate(connection)
    return found


def version_of(connection: sa.Connection, database: Database) -> str | None:
    """Return the version, or None for an empty database. Raises LedgerCorrupt for other content."""
    tables = sa.inspect(connection).get_table_names()
    if _VERSION_TABLE not in tables:
        others = sorted(name for name in tables if not name.startswith(_NEIGHBOURS))
        if others:
            raise database.corrupt(f"it holds other tables ({', '.join(others[:3])})")
        return None
    versions = connection.exec_driver_sql(f"SELECT version_num FROM {_VERSION_TABLE}").scalars().all()
    if len(versions) != 1:
        raise database.corrupt(f"it has {len(versions)} schema versions")
    return known(str(versions[0]), database.where)


def known(found: str, where: str) -> str:
    """Return the version. Raises LedgerError for a later one or a moved ledger."""
    if found.startswith(_MOVED):
        raise LedgerError(
            f"The ledger {where} was moved to another database on {found.removeprefix(_MOVED)}.",
            hint="Nothing was changed. The operator has to write the new one into `ledger:` in service.yaml, "
            "here too. If that one is lost, docs/ledger.md explains how to go back to this one.",
        )
    if not found.isdigit() or int(found) > int(SCHEMA_VERSION):
        raise LedgerTooNew(
            f"The ledger {where} has schema version {found}; this program knows version "
            f"{SCHEMA_VERSION} at most.",
            hint="A later version of xmode-transfer has opened it. The operator has to install that version "
            "again, or restore the backup that was made before the upgrade. Nothing was changed.",
        )
    return found


def create_tables(connection: sa.Connection) -> None:
    """Create the current tables. The migrations lead to the same (a test compares)."""
    metadata.create_all(connection)
    connection.exec_driver_sql(f"CREATE TABLE {_VERSION_TABLE} (version_num VARCHAR(32) PRIMARY KEY)")
    connection.exec_driver_sql(f"INSERT INTO {_VERSION_TABLE} VALUES ('{SCHEMA_VERSION}')")


def mark_moved(connection: sa.Connection, now: datetime) -> None:
    """Prevent every later use, also by earlier versions, of a ledger that ``ledger copy`` has moved."""
    connection.exec_driver_sql(f"UPDATE {_VERSION_TABLE} SET version_num = '{_MOVED}{now:%Y-%m-%dT%H:%MZ}'")


def migrate(connection: sa.Connection) -> None:
    """Run the migrations from the version in the database."""
    # Alembic is slow to import, and only the first start after an upgrade needs it.
    context = import_module("alembic.runtime.migration").MigrationContext.configure(connection)
    script = import_module("alembic.script").ScriptDirectory(str(MIGRATIONS))
    newer = script.iterate_revisions(SCHEMA_VERSION, context.get_current_revision())
    with import_module("alembic.operations").Operations.context(context):
        for revision in reversed(list(newer)):
            revision.module.upgrade()
            context.stamp(script, revision.revision)


MOST_PROBLEMS = 100
"""For each rule."""

Query = Callable[[str], Iterable[Any]]
"""Runs a query without parameters and returns its rows: a method of either driver's connection."""

_OF_DELIVERY = "periods.customer || '/' || periods.feed || '/' || periods.period || '/r' || d.revision"
_DELIVERIES = f"SELECT {_OF_DELIVERY} FROM deliveries d JOIN periods ON periods.id = d.period_id"
_RECEIPTS = "SELECT periods.customer || ' ' || r.key FROM receipts r JOIN periods ON periods.id = r.period_id"
_STATUSES = ", ".join(f"'{status}'" for status in Status)
_RULES = {
    "is delivered, and has no manifest or no time": f"{_DELIVERIES} WHERE d.status = 'delivered' AND "
    "(d.manifest_key IS NULL OR d.manifest_checksum IS NULL OR d.delivered_at IS NULL)",
    f"has a status that is none of {', '.join(Status)}": f"{_DELIVERIES} WHERE d.status NOT IN ({_STATUSES})",
    "is delivered, and an object of its plan has no receipt": f"{_DELIVERIES} WHERE d.status = 'delivered' "
    "AND EXISTS (SELECT 1 FROM objects o LEFT JOIN receipts r ON r.period_id = o.period_id "
    "AND r.revision = o.revision AND r.name = o.name "
    "WHERE o.period_id = d.period_id AND o.revision = d.revision AND r.name IS NULL)",
    "is delivered, and its counts are not those of its plan": f"{_DELIVERIES} WHERE d.status = 'delivered' "
    "AND (d.object_count, d.total_bytes) <> (SELECT count(*), coalesce(sum(o.size), 0) FROM objects o "
    "WHERE o.period_id = d.period_id AND o.revision = d.revision)",
    "has a receipt for another key than was planned": f"{_RECEIPTS} JOIN objects o "
    "ON o.period_id = r.period_id AND o.revision = r.revision AND o.name = r.name WHERE o.key <> r.key",
    "is the key of two source files": f"{_RECEIPTS} GROUP BY r.period_id, r.key, periods.customer "
    "HAVING count(DISTINCT r.name) > 1",
    "is a receipt without a checksum or a time": f"{_RECEIPTS} WHERE r.checksum = '' OR r.algorithm = '' "
    "OR r.delivered_at NOT LIKE '____-__-__T__:__:__.______Z'",
    "was removed by an operation of another customer": "SELECT periods.customer || ' ' || m.key "
    "FROM removals m JOIN acts a ON a.id = m.act_id JOIN periods ON periods.id = m.period_id "
    "WHERE a.customer <> periods.customer",
}
"""The message for each row that breaks a rule, and the query that returns a label for such a row."""


class Contents(NamedTuple):
    """What a ledger holds. ``bytes`` are those of the receipts."""

    schema_version: str
    customers: int
    deliveries: int
    receipts: int
    bytes: int


@dataclass(frozen=True, slots=True)
class LedgerCheck:
    """``damage`` is what the database finds, ``contradictions`` what our rules find. ``contents`` is None if
    the file is too damaged to count. Our rules do not apply to an ``older`` one, which the next start
    migrates."""

    where: str
    contents: Contents | None
    damage: tuple[str, ...]
    contradictions: tuple[str, ...]
    older: bool = False
    on_server: bool = False

    @property
    def is_sound(self) -> bool:
        return not self.damage and not self.contradictions


def checked(
    query: Query, where: str, version: str, damage: tuple[str, ...], *, on_server: bool = False
) -> LedgerCheck:
    """Count what is in a ledger of that version, and apply our rules."""
    older = version != SCHEMA_VERSION
    broken = () if older else contradictions(query)
    return LedgerCheck(where, contents(query, version), damage, broken, older, on_server)


def contradictions(query: Query) -> tuple[str, ...]:
    """Return a line for each row of a current ledger that breaks a rule."""
    return tuple(
        f"{label} {message}"
        for message, rule in _RULES.items()
        for (label,) in query(f"{rule} LIMIT {MOST_PROBLEMS}")
    )


def contents(query: Query, version: str) -> Contents:
    (counts,) = query(
        "SELECT (SELECT count(DISTINCT customer) FROM periods), (SELECT count(*) FROM deliveries), "
        "(SELECT count(*) FROM receipts), (SELECT coalesce(sum(size), 0) FROM receipts)"
    )
    return Contents(version, *map(int, counts))  # PostgreSQL sums in decimal numbers

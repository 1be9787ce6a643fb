"""Which version of the schema a database has, and how it comes to have ours."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from importlib import import_module
from typing import Any, NamedTuple

import sqlalchemy
from sqlalchemy import Connection

from xmode_transfer import telemetry
from xmode_transfer.ledger import sqlite
from xmode_transfer.ledger.database import Database, missing, this_process
from xmode_transfer.ledger.sqlite import BUSY_TIMEOUT_SECONDS, path_of
from xmode_transfer.ledger.tables.base import SCHEMA_VERSION, metadata
from xmode_transfer.model.errors import ConfigError, LedgerError, LedgerTooNew
from xmode_transfer.model.records import Status

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
        raise missing(database.where)
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


MOST_PROBLEMS = 100
"""How many rows are told for each rule that they break."""

Ask = Callable[[str], Iterable[Any]]
"""Asks a query without parameters and answers its rows: a method of a connection of either driver."""

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
    "was removed by an act of another customer": "SELECT periods.customer || ' ' || m.key FROM removals m "
    "JOIN acts a ON a.id = m.act_id JOIN periods ON periods.id = m.period_id "
    "WHERE a.customer <> periods.customer",
}
"""What is reported of each row that breaks a rule, and the query that answers a label for such a row."""


class Contents(NamedTuple):
    """What a ledger holds. ``bytes`` are those of the receipts."""

    schema_version: str
    customers: int
    deliveries: int
    receipts: int
    bytes: int


@dataclass(frozen=True, slots=True)
class LedgerCheck:
    """``damage`` is what the database finds wrong with itself, ``contradictions`` what our rules do;
    ``contents`` is None where a file is too damaged to count. ``older`` means that the next start migrates
    it: until then our rules are not tried."""

    where: str
    contents: Contents | None
    damage: tuple[str, ...]
    contradictions: tuple[str, ...]
    older: bool = False
    on_server: bool = False

    @property
    def is_sound(self) -> bool:
        return not self.damage and not self.contradictions


def contradictions(ask: Ask) -> Iterator[str]:
    """What our own rules find wrong, a line each. Only for a ledger of the schema that we know."""
    for says, query in _RULES.items():
        yield from (f"{label} {says}" for (label,) in ask(f"{query} LIMIT {MOST_PROBLEMS}"))


def contents(ask: Ask, version: str) -> Contents:
    """Counts, for a ledger of any ``version`` so far."""
    ((customers, deliveries, receipts, total),) = ask(
        "SELECT (SELECT count(DISTINCT customer) FROM periods), (SELECT count(*) FROM deliveries), "
        "(SELECT count(*) FROM receipts), (SELECT coalesce(sum(size), 0) FROM receipts)"
    )
    # PostgreSQL sums in decimal numbers
    return Contents(version, int(customers), int(deliveries), int(receipts), int(total))


__all__ = ["BUSY_TIMEOUT_SECONDS", "Database", "connect", "is_postgres", "path_of"]

_POSTGRES = ("postgresql", "postgres")


def is_postgres(url: str) -> bool:
    """Whether a ledger's URL names a database on a PostgreSQL server."""
    return url.partition("://")[0] in _POSTGRES


def connect(url: str, *, create: bool, holder: str | None = None, waits: bool = True) -> Database:
    """Opens the database. A new SQLite file is made, readable by its owner only, if ``create`` allows it; a
    database on a server has to be there.

    ``holder`` is the name under which this process claims leases; ``waits``: for a server that is starting.
    Raises ConfigError for a URL that is none,
    and where the extra ``cluster`` is not installed.
    """
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

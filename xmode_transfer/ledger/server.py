"""A ledger on a PostgreSQL server as a whole: checked by us, backed up and restored by the server's own
tools."""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from shlex import quote
from typing import NoReturn
from urllib.parse import parse_qsl, urlsplit

from sqlalchemy import Connection, ForeignKeyConstraint, and_, exists, func, select, text

from xmode_transfer.config.secrets import shown
from xmode_transfer.ledger import schema
from xmode_transfer.ledger.database import missing
from xmode_transfer.ledger.schema import LedgerCheck, connect
from xmode_transfer.ledger.tables.base import SCHEMA_VERSION, metadata
from xmode_transfer.model.errors import ConfigError

_OURS = ("patience", "timeout", "schema")
"""Parameters of the URL that libpq does not know."""
_OUR_SCHEMA = "(SELECT oid FROM pg_namespace WHERE nspname = current_schema())"
_UNPROVEN = text(
    "SELECT conrelid::regclass::text || ': the constraint ' || conname || ' was never validated' "
    f"FROM pg_constraint WHERE NOT convalidated AND connamespace = {_OUR_SCHEMA} "
    "UNION ALL SELECT indrelid::regclass::text || ': the index ' || indexrelid::regclass::text "
    "|| ' is not valid' FROM pg_index JOIN pg_class ON pg_class.oid = indexrelid "
    f"WHERE NOT indisvalid AND relnamespace = {_OUR_SCHEMA}"
)
_PASSWORD = "The password is asked for, or taken from PGPASSFILE or PGPASSWORD."


def check(url: str) -> LedgerCheck:
    """Checks the ledger, all in one state of the database while others go on. Raises LedgerError when there
    is none or it cannot be read, LedgerTooNew, LedgerCorrupt when it is no ledger at all."""
    with closing(connect(url, create=False)) as database:
        damage = tuple(database.read(_problems))
        with database.reading() as connection:
            found = schema.version_of(connection, database)
            if found is None:
                raise missing(database.where)
            older = found != SCHEMA_VERSION
            ask = connection.exec_driver_sql
            told = () if older else tuple(schema.contradictions(ask))
            return LedgerCheck(
                database.where, schema.contents(ask, found), damage, told, older=older, on_server=True
            )


def _problems(connection: Connection) -> list[str]:
    """What the server was told not to look at, and what it should never have let happen. Reads every table
    that refers to another."""
    lines = [str(line) for line in connection.execute(_UNPROVEN).scalars()]
    for table in metadata.sorted_tables:
        for constraint in sorted(table.foreign_key_constraints, key=lambda item: str(item.name)):
            lines += _orphans(connection, constraint)
    return lines


def _orphans(connection: Connection, constraint: ForeignKeyConstraint) -> Iterator[str]:
    table, parent = constraint.table, constraint.referred_table.alias("parent")
    pairs = [(element.parent, parent.c[element.column.name]) for element in constraint.elements]
    lost = (
        select(table.c[pairs[0][0].name])
        .where(
            and_(*(child.is_not(None) for child, _ in pairs)),
            ~exists().where(and_(*(child == column for child, column in pairs))),
        )
        .limit(schema.MOST_PROBLEMS)
        .subquery()
    )
    count = connection.execute(select(func.count()).select_from(lost)).scalar_one()
    for _ in range(count):
        yield f"{table.name}: a row refers to a row of {constraint.referred_table.name} that is not there"


def refuse_backup(url: str, file: Path) -> NoReturn:
    """The server's own tool makes a whole and consistent copy while everybody works, as ours could not."""
    raise ConfigError(
        "the ledger lies on a server, whose own tool backs it up: "
        f"pg_dump --format=custom {_only(url)}--file={quote(str(file))} {quote(_for_libpq(url))}",
        hint=f"The service may go on meanwhile. {_PASSWORD}",
    )


def refuse_restore(url: str, file: Path) -> NoReturn:
    raise ConfigError(
        "the ledger lies on a server, whose own tool restores it: pg_restore --clean --if-exists "
        f"--single-transaction --no-owner --dbname={quote(_for_libpq(url))} {quote(str(file))}",
        hint=f"Stop the service on all machines first. {_PASSWORD}",
    )


def _only(url: str) -> str:
    """The option that takes our schema alone, where the URL names one."""
    names = dict(parse_qsl(urlsplit(url).query))
    return f"--schema={quote(names['schema'])} " if "schema" in names else ""


def _for_libpq(url: str) -> str:
    """Without a password, which PGPASSFILE or PGPASSWORD has, and without what libpq would not understand."""
    told = shown(url)
    parts = urlsplit(told)
    query = "&".join(piece for piece in parts.query.split("&") if piece.partition("=")[0] not in _OURS)
    if query == parts.query:
        return told
    return told.partition("?")[0] + (f"?{query}" if query else "")

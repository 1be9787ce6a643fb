"""Copying a ledger into another database, such as from SQLite to PostgreSQL: all of it or nothing."""

import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from sqlalchemy import Connection, Table

from xmode_transfer.config.secrets import shown
from xmode_transfer.ledger import schema
from xmode_transfer.ledger.database import Database, missing
from xmode_transfer.ledger.files import BESIDE, Progress
from xmode_transfer.ledger.leases import REVOKED
from xmode_transfer.ledger.rows import text_of
from xmode_transfer.ledger.schema import Contents, connect, is_postgres
from xmode_transfer.ledger.sqlite import path_of
from xmode_transfer.ledger.tables import SCHEMA_VERSION, daemons, leases, metadata
from xmode_transfer.model.errors import AlreadyRunning, ConfigError, LedgerCorrupt, LedgerError
from xmode_transfer.model.process import longest_silence
from xmode_transfer.model.records import holder_shown

if TYPE_CHECKING:
    from xmode_transfer.model.process import Clock

TABLES = tuple(metadata.sorted_tables)
"""A table follows those that it refers to."""
_LOCK_SECONDS = 30
_ENDING_SECONDS = 3.0
_OTHERS = """
    SELECT coalesce(host(client_addr), 'this server') || ', server process ' || pid FROM pg_stat_activity
    WHERE datname = current_database() AND pid <> pg_backend_pid() AND application_name = 'xmode-transfer'
    ORDER BY pid
"""
_ROWS_AT_A_TIME = 2000
_BYTES = 16


@dataclass(frozen=True, slots=True)
class CopiedTable:
    """``checksum`` covers all values of all rows, the same on both sides; empty in a dry run."""

    name: str
    rows: int
    checksum: str = ""


@dataclass(frozen=True, slots=True)
class Moved:
    """``leases_given_back`` counts the leases of dead processes."""

    source: str
    target: str
    contents: Contents
    tables: tuple[CopiedTable, ...]
    leases_given_back: int

    @property
    def rows(self) -> int:
        return sum(table.rows for table in self.tables)


def copy(
    source_url: str,
    target_url: str,
    clock: "Clock",
    *,
    dry_run: bool = False,
    keep: bool = False,
    progress: Progress | None = None,
) -> Moved:
    """Copy the ledger at ``source_url`` into the empty one at ``target_url``, in one transaction there: if it
    fails, the target is as empty as before. No other process writes to the source meanwhile. At the end the
    source is marked as moved, and its leases are revoked; ``keep`` leaves it in use. A dry run checks whether
    the copy is possible. Raises AlreadyRunning while a live process uses the source, ConfigError for an
    unsuitable target, LedgerCorrupt if the ledger breaks our rules or the sides differ, and LedgerErrors."""
    is_source = source_url == target_url
    if not is_source and not is_postgres(source_url) and not is_postgres(target_url):
        is_source = path_of(source_url).resolve() == path_of(target_url).resolve()
    if is_source:
        raise ConfigError(
            f"{_where(target_url)} is the ledger itself", hint="name another database, one that is empty"
        )
    with closing(connect(source_url, create=False)) as source, source.writing() as old:
        _check_version(old, source)
        _lock(old, "SHARE")
        given_back = _without_users(old, source, clock)
        counts = [CopiedTable(table.name, _count(old, table)) for table in TABLES]

        def moved(target: str, tables: Sequence[CopiedTable]) -> Moved:
            contents = schema.contents(old.exec_driver_sql, SCHEMA_VERSION)
            return Moved(source.where, target, contents, tuple(tables), given_back)

        if dry_run:
            _check_rules(old, source)
            if _exists(target_url):
                with closing(_target(target_url)) as target, target.reading() as new:
                    _check_empty(new, target)
            return moved(_where(target_url), counts)
        with (
            _removed_on_failure(target_url),
            closing(_target(target_url, create=True)) as target,
            target.writing() as new,
        ):
            target.lock_schema(new)
            if not _check_empty(new, target):
                schema.create_tables(new)
            _lock(new, "ACCESS EXCLUSIVE")
            _check_empty(new, target)
            total = sum(table.rows for table in counts)
            copied = list(_copy_tables(source, old, target, new, total, progress))
            _finish(new)
            _check_rules(new, target)
            with source.translated():
                result = moved(target.where, copied)
                if not keep:
                    # Before the copy is committed: a full disk is found while nothing has happened yet.
                    schema.mark_moved(old, source.now(old, clock))
                    old.execute(sa.update(leases).where(leases.c.holder.is_not(None)).values(REVOKED))
        return result


def _copy_tables(
    source: Database,
    old: Connection,
    target: Database,
    new: Connection,
    count: int,
    progress: Progress | None,
) -> Iterator[CopiedTable]:
    """Copy each table, read it back from the target, and compare. Each row counts twice as progress."""
    done = 0

    def summed(table: Table, database: Database, connection: Connection, *, copies: bool) -> CopiedTable:
        nonlocal done
        rows = total = 0
        for page in _pages(database, connection, table):
            if copies:
                _put(new, table, page)
            for row in page:
                # A sum does not depend on the order of the rows, which differs between databases.
                digest = blake2b(repr(row).encode("utf-8", "surrogatepass"), digest_size=_BYTES).digest()
                total += int.from_bytes(digest)
            rows += len(page)
            done += len(page)
            if progress is not None:
                progress(done, 2 * count)
        return CopiedTable(table.name, rows, f"{total % (1 << 8 * _BYTES):0{2 * _BYTES}x}")

    for table in TABLES:
        before = summed(table, source, old, copies=True)
        after = summed(table, target, new, copies=False)
        if before != after:
            raise LedgerCorrupt(
                f"The copy of {table.name} differs from what was copied: checksum {before.checksum} of "
                f"{before.rows} rows before, {after.checksum} of {after.rows} after.",
                hint="Nothing was kept of the copy, and the ledger is as it was. Check the old one with "
                "`xmode-transfer ledger check`; if it is sound, report this as a defect.",
            )
        yield before


def _pages(database: Database, connection: Connection, table: Table) -> Iterator[list[tuple[Any, ...]]]:
    """Yield a table's rows in the order in which SQLite stores them: it never moves what it has written."""
    bare = plain(table)
    # A lease keeps its name and its generation: its holder used another database.
    columns = [sa.null() if table is leases and one.nullable else bare.c[one.name] for one in table.columns]
    key = [column.name for column in table.primary_key.columns]
    ordered = sa.select(*columns).order_by(*key).execution_options(yield_per=_ROWS_AT_A_TIME)
    with database.translated(), connection.execute(ordered) as result:
        for page in result.partitions():
            yield [tuple(row) for row in page]


def plain(table: Table) -> sa.TableClause:
    """The table as the database has it: its texts stay texts."""
    columns = (sa.column(one.name, getattr(one.type, "impl", one.type)) for one in table.columns)
    return sa.table(table.name, *columns)


def _check_version(connection: Connection, source: Database) -> None:
    found = schema.version_of(connection, source)
    if found is None:
        raise missing(source.where)
    if found != SCHEMA_VERSION:
        raise ConfigError(
            f"the ledger {source.where} is from an earlier version (schema {found}, now {SCHEMA_VERSION})",
            hint="migrate it first: `xmode-transfer status` does so; then copy it",
        )


def _without_users(connection: Connection, source: Database, clock: "Clock") -> int:
    """Return the number of dead or late holders' leases. Raises AlreadyRunning for a live process."""
    now = source.now(connection, clock)
    held = connection.execute(sa.select(leases).where(leases.c.holder.is_not(None))).all()
    for lease in held:
        if lease.expires_at > now and not source.is_dead(connection, lease.holder, lease.presence):
            since = text_of(lease.claimed_at)
            raise _in_use(f"{lease.name} is being worked on, by {holder_shown(lease.holder)} since {since}")
    # One that waits for work holds no lease. A session that has just ended, such as one of our own checks of
    # the server, is listed for a moment.
    deadline = time.monotonic() + _ENDING_SECONDS
    while _on_server(connection) and (others := connection.exec_driver_sql(_OTHERS).scalars().all()):
        if time.monotonic() > deadline:
            raise _in_use(f"another process has it open, {others[0]}")
        time.sleep(0.05)
        connection.exec_driver_sql("SELECT pg_stat_clear_snapshot()")
    living = sa.select(daemons.c.holder, daemons.c.ticked_at, daemons.c.tick_seconds)
    for daemon in connection.execute(living.where(daemons.c.stopped_at.is_(None))):
        silent_at = daemon.ticked_at + longest_silence(daemon.tick_seconds)
        if silent_at > now and not source.is_dead(connection, daemon.holder, None):
            ticked = text_of(daemon.ticked_at)
            raise _in_use(f"a daemon works with it, {holder_shown(daemon.holder)}, which ticked at {ticked}")
    return len(held)


def _in_use(why: str) -> AlreadyRunning:
    return AlreadyRunning(
        f"{why}: the ledger is not copied.",
        hint="Stop the service and every run, on all machines, then copy again: otherwise their writes "
        "would be in the old ledger only. Nothing was changed.",
    )


def _check_rules(connection: Connection, database: Database) -> None:
    problems = schema.contradictions(connection.exec_driver_sql)
    if problems:
        raise LedgerCorrupt(
            f"The ledger contradicts itself: {problems[0]} ({len(problems)} in all, found in "
            f"{database.where}).",
            hint="Nothing was kept of the copy. `xmode-transfer ledger check --json` names every problem; "
            "report them as a defect.",
        )


def _check_empty(connection: Connection, target: Database) -> bool:
    """Return True if our tables exist."""
    found = schema.version_of(connection, target)
    if found is None:
        return False
    if found != SCHEMA_VERSION:
        raise ConfigError(
            f"{target.where} has tables of an earlier version (schema {found}, now {SCHEMA_VERSION})",
            hint="name an empty database",
        )
    for table in TABLES:
        count = _count(connection, table)
        if count:
            raise ConfigError(
                f"{target.where} is not empty: {table.name} has {count:,} {'row' if count == 1 else 'rows'}",
                hint="name an empty database, or a file that does not exist. If an earlier copy filled it, "
                "it is complete: write it into service.yaml",
            )
    return True


def _count(connection: Connection, table: Table) -> int:
    return connection.execute(sa.select(sa.func.count()).select_from(table)).scalar_one()


def _target(url: str, *, create: bool = False) -> Database:
    """Open the target. Errors name TARGET instead of the `ledger:` of service.yaml."""
    try:
        return connect(url, create=create)
    except (LedgerError, ConfigError) as error:
        error.message = error.message.replace("ledger: ", "TARGET: ", 1)
        error.hint = error.hint.replace("`ledger:`", "TARGET")
        raise


def _where(url: str) -> str:
    return shown(url) if is_postgres(url) else str(path_of(url))


def _exists(url: str) -> bool:
    return is_postgres(url) or path_of(url).exists()


@contextmanager
def _removed_on_failure(url: str) -> Iterator[None]:
    existed = _exists(url)
    try:
        yield
    except BaseException:
        for suffix in () if existed else ("", *BESIDE):
            with suppress(OSError):
                Path(f"{path_of(url)}{suffix}").unlink(missing_ok=True)
        raise


# In an SQLite file a transaction that writes is alone anyway, and numbers continue after the highest row.


def _lock(connection: Connection, mode: str) -> None:
    """SHARE keeps writers away until the transaction ends, ACCESS EXCLUSIVE also readers."""
    if not _on_server(connection):
        return
    names = ", ".join(_quoted(connection, table) for table in TABLES)
    # A side waits for the other as long as necessary, but not for a lock.
    connection.exec_driver_sql("SET LOCAL idle_in_transaction_session_timeout = 0")
    connection.exec_driver_sql(f"SET LOCAL lock_timeout = '{_LOCK_SECONDS}s'")
    connection.exec_driver_sql(f"LOCK TABLE {names} IN {mode} MODE")


def _put(connection: Connection, table: Table, rows: Sequence[tuple[Any, ...]]) -> None:
    names = [column.name for column in table.columns]
    if not _on_server(connection):
        connection.execute(sa.insert(plain(table)), [dict(zip(names, row, strict=True)) for row in rows])
        return
    columns = ", ".join(_quoted(connection, column) for column in table.columns)
    driver: Any = connection.connection.cursor()
    copying = f"COPY {_quoted(connection, table)} ({columns}) FROM STDIN"  # several times quicker than INSERT
    with closing(driver), driver.copy(copying) as copy:
        for row in rows:
            copy.write_row(row)


def _finish(connection: Connection) -> None:
    """Set a server's sequences and statistics: else checks are planned as if the tables were empty."""
    for table in TABLES if _on_server(connection) else ():
        name, numbered = _quoted(connection, table), table.autoincrement_column
        if numbered is not None:
            connection.exec_driver_sql(
                f"SELECT setval(pg_get_serial_sequence('{name}', '{numbered.name}'), "
                f"coalesce(max({_quoted(connection, numbered)}), 1), count(*) > 0) FROM {name}"
            )
        connection.exec_driver_sql(f"ANALYZE {name}")


def _on_server(connection: Connection) -> bool:
    return connection.dialect.name == "postgresql"


def _quoted(connection: Connection, named: Any) -> str:
    return connection.dialect.identifier_preparer.quote(named.name)

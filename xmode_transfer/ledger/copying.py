"""A ledger moved into another database, such as from SQLite to PostgreSQL: all of it or nothing, and compared
before it counts."""

import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Any

import sqlalchemy
from sqlalchemy import Connection, Table, TableClause, column, func, insert, null, select, update

from xmode_transfer.config.secrets import shown
from xmode_transfer.ledger import schema
from xmode_transfer.ledger.database import Database, missing
from xmode_transfer.ledger.files import BESIDE, Told
from xmode_transfer.ledger.schema import Contents, connect, is_postgres, path_of
from xmode_transfer.ledger.tables import daemons, leases
from xmode_transfer.ledger.tables.base import SCHEMA_VERSION, metadata, text_of, time_of
from xmode_transfer.model.errors import AlreadyRunning, ConfigError, LedgerCorrupt, LedgerError
from xmode_transfer.model.process import longest_silence
from xmode_transfer.model.records import holder_shown

if TYPE_CHECKING:
    from xmode_transfer.model.process import Clock

TABLES = tuple(metadata.sorted_tables)
"""In an order in which what is referred to comes first."""
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
    """``checksum`` is over all values of all rows, the same on both sides; empty in a dry run."""

    name: str
    rows: int
    checksum: str = ""


@dataclass(frozen=True, slots=True)
class Moved:
    """What was copied, or would be. ``leases_given_back`` are those that dead processes still held."""

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
    told: Told | None = None,
) -> Moved:
    """Copies the ledger at ``source_url`` into the empty one at ``target_url``, in one transaction there:
    when it fails, or the process is killed, the target is as empty as it was. Nobody writes to the source
    meanwhile. In the end the source is marked as moved, so that no process goes on with it, and who held a
    lease there is refused should it wake; ``keep`` leaves it in use. A dry run looks whether it could be
    done, and writes nothing.

    Raises AlreadyRunning while a live process works with the source, ConfigError when the target is the
    source, is not empty or has another schema, LedgerCorrupt when the ledger breaks our own rules or the two
    sides differ in the end, and the other LedgerErrors.
    """
    _differ(source_url, target_url)
    with closing(connect(source_url, create=False)) as source, source.writing() as old:
        _ready(old, source)
        _keep_away(old, readers=False)
        given_back = _nobody_works(old, source, clock)
        counts = [CopiedTable(table.name, _count(old, table)) for table in TABLES]
        if dry_run:
            _sound(old, source)
            if _is_there(target_url):
                with closing(_target(target_url)) as target, target.reading() as new:
                    _is_empty(new, target)
            return _moved(old, source, _where(target_url), counts, given_back)
        with (
            _left_as_it_was(target_url),
            closing(_target(target_url, create=True)) as target,
            target.writing() as new,
        ):
            target.lock_schema(new)
            if not _is_empty(new, target):
                schema.create_tables(new)
            _keep_away(new, readers=True)
            _is_empty(new, target)
            copied = list(_copy_tables(source, old, target, new, sum(table.rows for table in counts), told))
            _finish(new)
            _sound(new, target)
            with source.translated():
                moved = _moved(old, source, target.where, copied, given_back)
                if not keep:
                    # Before the copy counts: a disk that is full is found while nothing has happened yet.
                    _retire(old, source.now(old, clock))
        return moved


def _retire(connection: Connection, now: datetime) -> None:
    """Nobody goes on with what was moved: not who opens it later, nor who has it open and wakes late."""
    schema.mark_moved(connection, now)
    taken = {column.name: None for column in leases.columns if column.nullable}
    connection.execute(
        update(leases).where(leases.c.holder.is_not(None)).values(generation=leases.c.generation + 1, **taken)
    )


def _copy_tables(
    source: Database, old: Connection, target: Database, new: Connection, count: int, told: Told | None
) -> Iterator[CopiedTable]:
    """Copies each table, reads it again from the target, and compares what both sides answered. A row is done
    when it is copied, and once more when it is compared."""
    done = 0

    def added(table: Table, database: Database, connection: Connection, *, copies: bool) -> CopiedTable:
        """A checksum in whatever order the rows come, since databases answer them in their own."""
        nonlocal done
        rows = total = 0
        for page in _pages(database, connection, table):
            if copies:
                _put(new, table, page)
            for row in page:
                digest = blake2b(repr(row).encode("utf-8", "surrogatepass"), digest_size=_BYTES).digest()
                total += int.from_bytes(digest)
            rows += len(page)
            done += len(page)
            if told is not None:
                told(done, 2 * count)
        return CopiedTable(table.name, rows, f"{total % (1 << 8 * _BYTES):0{2 * _BYTES}x}")

    for table in TABLES:
        before = added(table, source, old, copies=True)
        after = added(table, target, new, copies=False)
        if before != after:
            raise LedgerCorrupt(
                f"The copy of {table.name} differs from what was copied: checksum {before.checksum} of "
                f"{before.rows} rows before, {after.checksum} of {after.rows} after.",
                hint="Nothing was kept of the copy, and the ledger is as it was. Check the old one with "
                "`xmode-transfer ledger check`; if it is sound, report this as a defect.",
            )
        yield before


def _pages(database: Database, connection: Connection, table: Table) -> Iterator[list[tuple[Any, ...]]]:
    """A table's rows, page by page, in the order in which SQLite stores them: it then never has to move what
    it has written. Errors here name the database that is read."""
    bare = plain(table)
    # A lease keeps its name and its generation: who held it works with another database.
    columns = [null() if table is leases and one.nullable else bare.c[one.name] for one in table.columns]
    key = [column.name for column in table.primary_key.columns]
    ordered = select(*columns).order_by(*key).execution_options(yield_per=_ROWS_AT_A_TIME)
    with database.translated(), connection.execute(ordered) as result:
        for page in result.partitions():
            yield [tuple(row) for row in page]


def _differ(source_url: str, target_url: str) -> None:
    same = source_url == target_url
    if not same and not is_postgres(source_url) and not is_postgres(target_url):
        same = path_of(source_url).resolve() == path_of(target_url).resolve()
    if same:
        raise ConfigError(
            f"{_where(target_url)} is the ledger itself", hint="name another database, one that is empty"
        )


def _ready(connection: Connection, source: Database) -> None:
    found = schema.version_of(connection, source)
    if found is None:
        raise missing(source.where)
    if found != SCHEMA_VERSION:
        raise ConfigError(
            f"an earlier version made the ledger {source.where} (schema {found}, now {SCHEMA_VERSION})",
            hint="bring it up to date first: `xmode-transfer status` does so; then copy it",
        )


def _nobody_works(connection: Connection, source: Database, clock: "Clock") -> int:
    """How many leases there are whose holders are dead or too late. Raises AlreadyRunning for a live one."""
    now = source.now(connection, clock)
    held = connection.execute(select(leases).where(leases.c.holder.is_not(None))).all()
    for lease in held:
        if time_of(lease.expires_at) > now and not source.is_dead(connection, lease.holder, lease.presence):
            raise _at_work(
                f"{lease.name} is being worked on, by {holder_shown(lease.holder)} since {lease.claimed_at}"
            )
    for other in _others(connection):
        raise _at_work(f"another process has it open, {other}")
    living = select(daemons.c.holder, daemons.c.ticked_at, daemons.c.tick_seconds).where(
        daemons.c.stopped_at.is_(None)
    )
    for daemon in connection.execute(living):
        silent_at = daemon.ticked_at + longest_silence(daemon.tick_seconds)
        if silent_at > now and not source.is_dead(connection, daemon.holder, None):
            ticked = text_of(daemon.ticked_at)
            raise _at_work(f"a daemon works with it, {holder_shown(daemon.holder)}, which ticked at {ticked}")
    return len(held)


def _at_work(why: str) -> AlreadyRunning:
    return AlreadyRunning(
        f"{why}: the ledger is not copied.",
        hint="Stop the service and every run, on all machines, then copy again: what they would write "
        "meanwhile would be in the old ledger only. Nothing was changed.",
    )


def _sound(connection: Connection, database: Database) -> None:
    problems = list(schema.contradictions(connection.exec_driver_sql))
    if problems:
        raise LedgerCorrupt(
            f"The ledger says what cannot be: {problems[0]} ({len(problems)} in all, looked at in "
            f"{database.where}).",
            hint="Nothing was kept of the copy. `xmode-transfer ledger check --json` names every problem; "
            "report them as a defect.",
        )


def _is_empty(connection: Connection, target: Database) -> bool:
    """Whether it has our tables already, of which none has a row. Raises ConfigError when there is something,
    or when the tables are another version's."""
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
                hint="name an empty database, or a file that is not there. If an earlier copy filled it, it "
                "is whole: write it into service.yaml",
            )
    return True


def _count(connection: Connection, table: Table) -> int:
    return connection.execute(select(func.count()).select_from(table)).scalar_one()


def _moved(
    connection: Connection, source: Database, target: str, tables: list[CopiedTable], given_back: int
) -> Moved:
    contents = schema.contents(connection.exec_driver_sql, SCHEMA_VERSION)
    return Moved(source.where, target, contents, tuple(tables), given_back)


# --- Whole tables
#
# In an SQLite file a transaction that writes is alone anyway, and numbers begin after the highest row.


def plain(table: Table) -> TableClause:
    """The table as the database sees it: its texts stay texts."""
    types = (getattr(one.type, "impl", one.type) for one in table.columns)
    return sqlalchemy.table(
        table.name, *(column(one.name, kind) for one, kind in zip(table.columns, types, strict=True))
    )


def _keep_away(connection: Connection, *, readers: bool) -> None:
    """Until the transaction ends nobody else writes: what is read stays as it is. Nor do ``readers`` read
    what is not finished."""
    if not _on_server(connection):
        return
    names = ", ".join(_quoted(connection, table) for table in TABLES)
    # Either side waits for the other for as long as it takes; for a lock, nobody waits for ever.
    connection.exec_driver_sql("SET LOCAL idle_in_transaction_session_timeout = 0")
    connection.exec_driver_sql(f"SET LOCAL lock_timeout = '{_LOCK_SECONDS}s'")
    connection.exec_driver_sql(f"LOCK TABLE {names} IN {'ACCESS EXCLUSIVE' if readers else 'SHARE'} MODE")


def _others(connection: Connection) -> list[str]:
    """The processes of ours that have the database open besides this one, where it can tell them. Whoever
    waits for work holds no lease, and would go on here."""
    # A session that was closed a moment ago, such as one of our own that looked whether the server is there,
    # is still listed for that moment.
    deadline = time.monotonic() + _ENDING_SECONDS
    while _on_server(connection):
        found = [str(row[0]) for row in connection.exec_driver_sql(_OTHERS)]
        if not found or time.monotonic() > deadline:
            return found
        time.sleep(0.05)
        connection.exec_driver_sql("SELECT pg_stat_clear_snapshot()")
    return []


def _put(connection: Connection, table: Table, rows: Sequence[tuple[Any, ...]]) -> None:
    """Adds rows, each with a value for every column of the table, in their order."""
    names = [column.name for column in table.columns]
    if not _on_server(connection):
        connection.execute(insert(plain(table)), [dict(zip(names, row, strict=True)) for row in rows])
        return
    columns = ", ".join(_quoted(connection, column) for column in table.columns)
    driver: Any = connection.connection.cursor()
    copying = f"COPY {_quoted(connection, table)} ({columns}) FROM STDIN"  # several times quicker than INSERT
    with closing(driver), driver.copy(copying) as copy:
        for row in rows:
            copy.write_row(row)


def _finish(connection: Connection) -> None:
    """After the last row: a server's numbers come from sequences, its plans from statistics."""
    for table in TABLES if _on_server(connection) else ():
        name, numbered = _quoted(connection, table), table.autoincrement_column
        if numbered is not None:
            connection.exec_driver_sql(
                f"SELECT setval(pg_get_serial_sequence('{name}', '{numbered.name}'), "
                f"coalesce(max({_quoted(connection, numbered)}), 1), count(*) > 0) FROM {name}"
            )
        # without statistics the checks that follow could be planned as if the tables were empty
        connection.exec_driver_sql(f"ANALYZE {name}")


def _on_server(connection: Connection) -> bool:
    return connection.dialect.name == "postgresql"


def _quoted(connection: Connection, named: Any) -> str:
    return connection.dialect.identifier_preparer.quote(named.name)


# --- The two databases


def _target(url: str, *, create: bool = False) -> Database:
    """What keeps it from being opened is reported of TARGET, not of the `ledger:` of service.yaml."""
    try:
        return connect(url, create=create)
    except (LedgerError, ConfigError) as error:
        error.message = error.message.replace("ledger: ", "TARGET: ", 1)
        error.hint = error.hint.replace("`ledger:`", "TARGET")
        raise


def _is_there(url: str) -> bool:
    return is_postgres(url) or path_of(url).exists()


def _where(url: str) -> str:
    return shown(url) if is_postgres(url) else str(path_of(url))


@contextmanager
def _left_as_it_was(url: str) -> Iterator[None]:
    """Takes away a file that was made for a copy which then failed."""
    if _is_there(url):
        yield
        return
    try:
        yield
    except BaseException:
        for suffix in ("", *BESIDE):
            with suppress(OSError):
                Path(f"{path_of(url)}{suffix}").unlink(missing_ok=True)
        raise

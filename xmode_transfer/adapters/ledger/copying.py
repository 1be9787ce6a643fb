"""A ledger moved into another database, such as from SQLite to PostgreSQL: all of it or nothing, and compared
before it counts."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection, Table, func, select, update

from xmode_transfer.adapters.ledger import consistency, schema
from xmode_transfer.adapters.ledger.bulk import TABLES, bulk, plain
from xmode_transfer.adapters.ledger.consistency import Contents
from xmode_transfer.adapters.ledger.engine import Database, connect, is_postgres, path_of
from xmode_transfer.adapters.ledger.tables import SCHEMA_VERSION, daemons, leases, text_of, time_of
from xmode_transfer.domain.config.ledger_url import shown
from xmode_transfer.domain.daemons import longest_silence
from xmode_transfer.domain.errors import AlreadyRunning, ConfigError, LedgerCorrupt, LedgerError
from xmode_transfer.domain.records import holder_shown

if TYPE_CHECKING:
    from xmode_transfer.ports import Clock

Told = Callable[[int, int], None]
"""Told how many rows are done, of how many; each is counted when it is copied and when it is compared."""
_ROWS_AT_A_TIME = 2000
_BYTES = 16
_BESIDE = ("-wal", "-shm", "-journal")


class Fingerprint:
    """Tells whether two tables hold the same: how many rows, and a checksum over all their values in whatever
    order they come, since databases answer them in their own."""

    def __init__(self) -> None:
        self.rows = 0
        self._sum = 0

    def add(self, rows: Iterable[tuple[Any, ...]]) -> None:
        for row in rows:
            digest = blake2b(repr(row).encode("utf-8", "surrogatepass"), digest_size=_BYTES).digest()
            self._sum += int.from_bytes(digest)
            self.rows += 1
        self._sum %= 1 << (8 * _BYTES)

    @property
    def checksum(self) -> str:
        return f"{self._sum:0{2 * _BYTES}x}"


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
    with _opened(source_url) as source, source.writing() as old:
        _ready(old, source)
        bulk(old).keep_writers_away(old)
        given_back = _nobody_works(old, source, clock)
        counts = {table: _count(old, table) for table in TABLES}
        if dry_run:
            _sound(old, source)
            if _is_there(target_url):
                with _opened_target(target_url) as target, target.reading() as new:
                    _is_empty(new, target)
            return _moved(old, source, _where(target_url), counts, {}, given_back)
        with (
            _left_as_it_was(target_url),
            _opened_target(target_url, create=True) as target,
            target.writing() as new,
        ):
            target.lock_schema(new)
            if not _is_empty(new, target):
                schema.create_tables(new)
            bulk(new).keep_everybody_away(new)
            _is_empty(new, target)
            copied = _copy_rows(source, old, target, new, sum(counts.values()), told)
            _sound(new, target)
            with source.translated():
                checksums = {table: one.checksum for table, one in copied.items()}
                moved = _moved(old, source, target.where, counts, checksums, given_back)
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


def _copy_rows(
    source: Database, old: Connection, target: Database, new: Connection, count: int, told: Told | None
) -> dict[Table, Fingerprint]:
    """Copies every table, reads it again from the target, and compares what both sides answered."""
    into, done = bulk(new), 0

    def progress(table: Table, database: Database, connection: Connection) -> Iterator[list[tuple[Any, ...]]]:
        nonlocal done
        for page in _rows(database, connection, table):
            yield page
            done += len(page)
            if told is not None:
                told(done, 2 * count)

    sent: dict[Table, Fingerprint] = {}
    for table in TABLES:
        before = sent[table] = Fingerprint()
        for rows in progress(table, source, old):
            into.put(new, table, rows)
            before.add(rows)
    into.finish(new)
    for table, before in sent.items():
        after = Fingerprint()
        for rows in progress(table, target, new):
            after.add(rows)
        for what in ("rows", "checksum"):
            if getattr(before, what) != getattr(after, what):
                raise LedgerCorrupt(
                    f"The copy of {table.name} differs from what was copied: {what} {getattr(before, what)} "
                    f"before, {getattr(after, what)} after.",
                    hint="Nothing was kept of the copy, and the ledger is as it was. Check the old one with "
                    "`xmode-transfer ledger check`; if it is sound, report this as a defect.",
                )
    return sent


def _rows(database: Database, connection: Connection, table: Table) -> Iterator[list[tuple[Any, ...]]]:
    """A table's rows, page by page, in the order in which SQLite stores them: it then never has to move what
    it has written. What goes wrong here is told of the database that is read."""
    key = [column.name for column in table.primary_key.columns]
    ordered = select(plain(table)).order_by(*key).execution_options(yield_per=_ROWS_AT_A_TIME)
    with database.translated(), connection.execute(ordered) as result:
        for page in result.partitions():
            yield [_given_back(table, tuple(row)) for row in page]


def _given_back(table: Table, row: tuple[Any, ...]) -> tuple[Any, ...]:
    """A lease keeps its name and its generation: who held it works with another database."""
    if table is not leases:
        return row
    return tuple(None if column.nullable else value for column, value in zip(table.columns, row, strict=True))


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
        raise source.missing()
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
    for other in bulk(connection).others(connection):
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
    problems = list(consistency.contradictions(connection.exec_driver_sql))
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
    connection: Connection,
    source: Database,
    target: str,
    counts: dict[Table, int],
    checksums: dict[Table, str],
    given_back: int,
) -> Moved:
    return Moved(
        source.where,
        target,
        consistency.contents(connection.exec_driver_sql, SCHEMA_VERSION),
        tuple(CopiedTable(table.name, counts[table], checksums.get(table, "")) for table in TABLES),
        given_back,
    )


# --- The two databases


@contextmanager
def _opened(url: str, *, create: bool = False) -> Iterator[Database]:
    database = connect(url, create=create)
    try:
        yield database
    finally:
        database.close()


@contextmanager
def _opened_target(url: str, *, create: bool = False) -> Iterator[Database]:
    """What keeps it from being opened is told of TARGET, not of the `ledger:` of service.yaml."""
    with ExitStack() as stack:
        try:
            database = stack.enter_context(_opened(url, create=create))
        except (LedgerError, ConfigError) as error:
            error.message = error.message.replace("ledger: ", "TARGET: ", 1)
            error.hint = error.hint.replace("`ledger:`", "TARGET")
            raise
        yield database


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
        path = path_of(url)
        for suffix in ("", *_BESIDE):
            with suppress(OSError):
                Path(f"{path}{suffix}").unlink(missing_ok=True)
        raise

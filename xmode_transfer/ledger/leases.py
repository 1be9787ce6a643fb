"""Leases: who works on what, and since which generation."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import Enum
from typing import TYPE_CHECKING, Any, TypeVar

from sqlalchemy import ColumnElement, Connection, Select, Table, delete, select, update

from xmode_transfer.ledger.database import Database
from xmode_transfer.ledger.tables import leases
from xmode_transfer.ledger.tables.base import Rows, text_of, time_of
from xmode_transfer.ledger.writer import GroupCommit
from xmode_transfer.model.errors import AlreadyRunning, LeaseLost, LedgerError
from xmode_transfer.model.records import Lease, holder_shown

if TYPE_CHECKING:
    from xmode_transfer.model.process import Clock

_WRITTEN = "written/and-taken-back"


class Leases:
    """Who holds what, and until when."""

    def __init__(self, database: Database, writer: GroupCommit, clock: "Clock") -> None:
        self._database = database
        self._writer = writer
        self._clock = clock

    def claim(self, name: str, holder: str, ttl_seconds: float) -> Lease:
        """Takes the lease, if nobody holds it, if it has expired, or if its holder is known to be dead.
        Raises AlreadyRunning naming the holder and since when."""
        presence, attempt = self._database.presence(holder), Attempt()
        return self._writer.call(
            lambda c: claim(
                c, self._database, name, holder, presence, self._clock, ttl_seconds, attempt=attempt
            )
        )

    def renew(self, lease: Lease, ttl_seconds: float) -> Lease:
        """Prolongs a lease that is still ours."""
        presence = self._database.presence(lease.holder)
        return self._writer.call(
            lambda c: renew(c, self._database, lease, presence, self._clock, ttl_seconds)
        )

    def release(self, lease: Lease) -> None:
        """Gives it back; no error when it is no longer ours."""
        self._writer.call(lambda c: release(c, lease))

    def held(self, name: str) -> list[Lease]:
        """The leases that are held now, by name: the one of that name, or those whose names begin with it,
        where it ends in ``/``. One that anybody might claim is not held."""
        return self._database.read(lambda c: held(c, self._database, name, self._clock))


class Lock(Enum):
    """How a lease's row is locked until the transaction ends, where the database locks rows. Who writes under
    a lease and who renews it do not wait for each other. A change of the holder waits for both, and they for
    it. The row must be locked as EXCLUSIVE *before* such a change: by itself it would let writers pass.
    """

    WRITING = "FOR KEY SHARE"
    RENEWING = "FOR NO KEY UPDATE"
    EXCLUSIVE = "FOR UPDATE"


@dataclass(slots=True)
class Attempt:
    """What a claim wrote, for when it is run again since nobody knows whether that was committed."""

    lease: Lease | None = None
    claimed_at: str = ""

    def is_in(self, row: Any) -> bool:
        lease = self.lease
        return (
            lease is not None
            and (row.generation, row.holder) == (lease.generation, lease.holder)
            and row.claimed_at == self.claimed_at
        )


def claim(
    connection: Connection,
    database: Database,
    name: str,
    holder: str,
    presence: str | None,
    clock: "Clock",
    ttl_seconds: float,
    attempt: Attempt | None = None,
) -> Lease:
    """Raises AlreadyRunning."""
    connection.execute(
        database.insert(leases)
        .values(name=name, generation=0)
        .on_conflict_do_nothing(index_elements=["name"])
    )
    found = _look(connection, name, Lock.EXCLUSIVE)
    attempt = attempt or Attempt()
    if attempt.lease is not None and attempt.is_in(found):
        return attempt.lease
    now = database.now(connection, clock)
    if not is_claimable(connection, database, found, now):
        raise AlreadyRunning(
            f"{name} is already being worked on, by {holder_shown(found.holder)} since {found.claimed_at}.",
            hint=f"Let it finish. Were it to die, its lease would end at {found.expires_at} at the "
            "latest, or at once if it can be seen that the process is gone.",
        )
    lease = Lease(name, found.generation + 1, holder, now + timedelta(seconds=ttl_seconds))
    attempt.lease, attempt.claimed_at = lease, text_of(now)
    connection.execute(
        update(leases)
        .where(leases.c.name == name)
        .values(
            generation=lease.generation,
            holder=holder,
            presence=presence,
            claimed_at=text_of(now),
            expires_at=text_of(lease.expires_at),
        )
    )
    return lease


def renew(
    connection: Connection,
    database: Database,
    lease: Lease,
    presence: str | None,
    clock: "Clock",
    ttl_seconds: float,
) -> Lease:
    check(connection, lease, Lock.RENEWING)
    now = database.now(connection, clock)
    renewed = replace(lease, expires_at=now + timedelta(seconds=ttl_seconds))
    connection.execute(
        update(leases)
        .where(leases.c.name == lease.name)
        .values(expires_at=text_of(renewed.expires_at), presence=presence)
    )
    return renewed


def release(connection: Connection, lease: Lease) -> None:
    _look(connection, lease.name, Lock.EXCLUSIVE)
    connection.execute(
        update(leases)
        .where(leases.c.name == lease.name, leases.c.generation == lease.generation)
        .values(holder=None, presence=None, claimed_at=None, expires_at=None)
    )


def revoke(connection: Connection, name: str, holder: str) -> None:
    """Takes a lease from a holder who is gone: what it still writes under it, were it to wake, is refused."""
    _revoke(connection, leases.c.name == name, holder)


def revoke_under(connection: Connection, prefix: str, holder: str) -> None:
    """As ``revoke``, for all whose names begin with a prefix that ends in ``/``."""
    _revoke(connection, _under(prefix), holder)


def _under(prefix: str) -> ColumnElement[bool]:
    # As a range, for which the key is an index: "0" is what comes after "/".
    return (leases.c.name > prefix) & (leases.c.name < prefix[:-1] + "0")


def _revoke(connection: Connection, which: ColumnElement[bool], holder: str) -> None:
    held = which & (leases.c.holder == holder)
    connection.execute(
        _locked(select(leases.c.name).where(held).order_by(leases.c.name), Lock.EXCLUSIVE)
    ).all()
    connection.execute(
        update(leases)
        .where(held)
        .values(
            generation=leases.c.generation + 1,
            holder=None,
            presence=None,
            claimed_at=None,
            expires_at=None,
        )
    )


def held(connection: Connection, database: Database, name: str, clock: "Clock") -> list[Lease]:
    which = _under(name) if name.endswith("/") else leases.c.name == name
    query = select(leases).where(which, leases.c.holder.is_not(None)).order_by(leases.c.name)
    now = database.now(connection, clock)
    return [
        Lease(row.name, row.generation, row.holder, time_of(row.expires_at))
        for row in connection.execute(query).all()
        if not is_claimable(connection, database, row, now)
    ]


def is_claimable(connection: Connection, database: Database, row: Any, now: datetime) -> bool:
    """Whether anybody might claim the lease of that row, of which all columns may be null: it was given back,
    it has expired, or its holder is known to be dead."""
    if row.holder is None or time_of(row.expires_at) <= now:
        return True
    return database.is_dead(connection, row.holder, row.presence)


def is_left_behind(connection: Connection, database: Database, name: str) -> bool:
    """Whether the lease's holder is known to have died with it."""
    row = connection.execute(select(leases).where(leases.c.name == name)).one_or_none()
    return (
        row is not None and row.holder is not None and database.is_dead(connection, row.holder, row.presence)
    )


def check(connection: Connection, lease: Lease, lock: Lock = Lock.WRITING) -> None:
    """Raises LeaseLost unless the lease is still its holder's; it stays so until the transaction ends.

    A lease past its time that nobody else has claimed is still good: its holder is late, but alone.
    """
    found = _look(connection, lease.name, lock)
    if found is not None and found.generation == lease.generation and found.holder is not None:
        return
    if found is None:
        now_held = "the ledger does not know it"
    elif found.holder is None:
        now_held = "it was given back"
    else:
        now_held = f"{found.holder} has held it since {found.claimed_at} (generation {found.generation})"
    raise LeaseLost(
        f"The lease on {lease.name}, generation {lease.generation}, is no longer ours: {now_held}.",
        hint="Nothing was written. Another process goes on with this work; this one was too slow to renew "
        "its lease, because it was suspended or its machine stood still.",
    )


def _look(connection: Connection, name: str, lock: Lock) -> Any:
    # The row is locked, where the database locks rows: nobody may claim the lease before we have committed.
    query = select(leases).where(leases.c.name == name)
    return connection.execute(_locked(query, lock)).one_or_none()


def _locked(query: Select[Any], lock: Lock) -> Select[Any]:
    return query.with_for_update(
        read=lock is Lock.WRITING,
        key_share=lock in (Lock.WRITING, Lock.RENEWING),
    )


def write_and_take_back(connection: Connection, database: Database) -> None:
    """One row, added and removed in the transaction of the caller: its page goes to the disk all the same, so
    that a full or a read-only one is found."""
    connection.execute(database.insert(leases).values(name=_WRITTEN, generation=0))
    connection.execute(delete(leases).where(leases.c.name == _WRITTEN))


T = TypeVar("T")


class Subject:
    """The queries about one subject. Methods that take a ``lease`` raise LeaseLost, and write nothing, when
    the lease has been taken over."""

    def __init__(self, database: Database, writer: GroupCommit) -> None:
        self._database = database
        self._writer = writer

    def _rows(self, query: Select[Any]) -> Sequence[Any]:
        return self._database.read(lambda connection: connection.execute(query).all())

    def _records(self, rows: Rows[T], query: Select[Any]) -> list[T]:
        return [rows.record(row) for row in self._rows(query)]

    def _read(self, action: Callable[[Connection], T]) -> T:
        return self._database.read(action)

    def _write(self, action: Callable[[Connection], T]) -> T:
        """What the action writes must be there once also where it is run twice."""
        return self._writer.call(action)

    def _fenced(self, lease: Lease, action: Callable[[Connection], T]) -> T:
        """As ``_write``, if the lease is still ours, and stays so until the commit."""

        def fenced(connection: Connection) -> T:
            check(connection, lease)
            return action(connection)

        return self._writer.call(fenced)

    def _overwrite(self, lease: Lease, table: Table, record_id: str, values: Mapping[str, Any]) -> None:
        """The row of that ID gets these values. Raises LedgerError when there is none."""
        changing = update(table).where(table.c.id == record_id).values(values)

        def action(connection: Connection) -> None:
            if connection.execute(changing).rowcount == 0:
                raise unknown(table.name.removesuffix("s"), record_id)

        self._fenced(lease, action)


def only(query: Select[Any], *wanted: tuple[ColumnElement[Any], str | Iterable[str] | None]) -> Select[Any]:
    """The rows that have, of each column, the value that is wanted or one of those; any, where none is."""
    for column, value in wanted:
        if value is not None:
            query = query.where(column == value if isinstance(value, str) else column.in_(list(value)))
    return query


def unknown(what: str, name: str) -> LedgerError:
    return LedgerError(
        f"The ledger knows no {what} {name}.",
        hint="Nothing was written. Either the ledger was replaced by an older copy while we ran, or this is "
        "a defect.",
    )

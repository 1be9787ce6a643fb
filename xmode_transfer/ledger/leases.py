"""Leases: the exclusive, expiring rights to work on something, each with a generation that fences writes."""

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from sqlalchemy import ColumnElement, Connection, delete, select, update

from xmode_transfer.ledger.database import Database
from xmode_transfer.ledger.rows import text_of
from xmode_transfer.ledger.tables import leases
from xmode_transfer.ledger.writer import GroupCommit, LedgerPart
from xmode_transfer.model.errors import AlreadyRunning, LeaseLost
from xmode_transfer.model.records import Lease, holder_shown

if TYPE_CHECKING:
    from xmode_transfer.model.process import Clock

RETURNED: Mapping[str, None] = {"holder": None, "presence": None, "claimed_at": None, "expires_at": None}
"""Without a holder. The row stays, so that its generation never starts again."""
REVOKED: Mapping[str, Any] = {**RETURNED, "generation": leases.c.generation + 1}
_TRIED = "written/and-taken-back"

# Locks on a lease's row, where the database locks rows. Writers under a lease and its renewal do not wait for
# each other. The row must be locked as EXCLUSIVE *before* its holder changes: the change alone would not stop
# writers.
Lock = Mapping[str, Any]
WRITING: Lock = {"read": True, "key_share": True}  # FOR KEY SHARE
RENEWING: Lock = {"key_share": True}  # FOR NO KEY UPDATE
EXCLUSIVE: Lock = {}  # FOR UPDATE


class Leases(LedgerPart):
    def __init__(self, database: Database, writer: GroupCommit, clock: "Clock") -> None:
        super().__init__(database, writer)
        self._clock = clock

    def claim(self, name: str, holder: str, ttl_seconds: float) -> Lease:
        """Take the lease if it has no holder, has expired, or its holder is known to be dead. Raises
        AlreadyRunning, which names the holder and the time of its claim."""
        presence = self._database.presence(holder)
        written: list[Lease] = []  # by attempts with an unknown outcome

        def action(connection: Connection) -> Lease:
            for lease in written:
                row = _row(connection, name, EXCLUSIVE)
                if row is not None and lease == _lease_of(row):
                    return lease
            lease = self.claim_in(connection, name, holder, presence, ttl_seconds)
            written.append(lease)
            return lease

        return self._write(action)

    def claim_in(
        self, connection: Connection, name: str, holder: str, presence: str | None, ttl_seconds: float
    ) -> Lease:
        """``claim`` in the caller's transaction."""
        adding = self._database.insert(leases).values(name=name, generation=0)
        connection.execute(adding.on_conflict_do_nothing(index_elements=["name"]))
        found = _row(connection, name, EXCLUSIVE)
        now = self._database.now(connection, self._clock)
        if not is_claimable(connection, self._database, found, now):
            raise AlreadyRunning(
                f"{name} is already being worked on, by {holder_shown(found.holder)} since "
                f"{text_of(found.claimed_at)}.",
                hint=f"Let it finish. If its process dies, the lease ends at {text_of(found.expires_at)} at "
                "the latest, or at once if the process is known to be gone.",
            )
        lease = Lease(name, found.generation + 1, holder, now + timedelta(seconds=ttl_seconds))
        times = {"claimed_at": now, "expires_at": lease.expires_at}
        taking = update(leases).where(leases.c.name == name)
        connection.execute(
            taking.values(generation=lease.generation, holder=holder, presence=presence, **times)
        )
        return lease

    def renew(self, lease: Lease, ttl_seconds: float) -> Lease:
        """Extend a lease that is still ours."""
        presence = self._database.presence(lease.holder)

        def action(connection: Connection) -> Lease:
            check(connection, lease, RENEWING)
            expires_at = self._database.now(connection, self._clock) + timedelta(seconds=ttl_seconds)
            renewing = update(leases).where(leases.c.name == lease.name)
            connection.execute(renewing.values(expires_at=expires_at, presence=presence))
            return replace(lease, expires_at=expires_at)

        return self._write(action)

    def release(self, lease: Lease) -> None:
        """Return the lease; no error if it is no longer ours."""
        self._write(lambda c: release(c, lease))

    def held(self, name: str) -> list[Lease]:
        """Return the lease of that name, or all below a name that ends in ``/``, if held now. A lease that
        could be claimed is not held."""

        def action(connection: Connection) -> list[Lease]:
            query = select(leases).where(_named(name), leases.c.holder.is_not(None)).order_by(leases.c.name)
            now = self._database.now(connection, self._clock)
            rows = connection.execute(query).all()
            return [_lease_of(row) for row in rows if not is_claimable(connection, self._database, row, now)]

        return self._read(action)


def release(connection: Connection, lease: Lease) -> None:
    _row(connection, lease.name, EXCLUSIVE)
    connection.execute(
        update(leases)
        .where(leases.c.name == lease.name, leases.c.generation == lease.generation)
        .values(RETURNED)
    )


def revoke(connection: Connection, name: str, holder: str) -> None:
    """Take the leases of that name (see ``held``) from a holder: if it wakes, its writes are refused."""
    held = _named(name) & (leases.c.holder == holder)
    in_order = select(leases.c.name).where(held).order_by(leases.c.name)
    connection.execute(in_order.with_for_update(**EXCLUSIVE)).all()
    connection.execute(update(leases).where(held).values(REVOKED))


def is_claimable(connection: Connection, database: Database, row: Any, now: datetime) -> bool:
    """Return True if the row's lease was returned or never existed, has expired, or its holder is dead."""
    if row.holder is None or row.expires_at <= now:
        return True
    return database.is_dead(connection, row.holder, row.presence)


def is_orphaned(connection: Connection, database: Database, name: str) -> bool:
    """Return True if the lease has a holder that is known to be dead."""
    row = _row(connection, name)
    return (
        row is not None and row.holder is not None and database.is_dead(connection, row.holder, row.presence)
    )


def check(connection: Connection, lease: Lease, lock: Lock = WRITING) -> None:
    """Raise LeaseLost unless the lease is still its holder's, until the transaction ends. An expired lease
    that no other process has claimed is still valid: its holder is late, but alone."""
    found = _row(connection, lease.name, lock)
    if found is not None and found.generation == lease.generation and found.holder is not None:
        return
    if found is None:
        now_held = "the ledger has no such lease"
    elif found.holder is None:
        now_held = "it was returned"
    else:
        since = text_of(found.claimed_at)
        now_held = f"{found.holder} has held it since {since} (generation {found.generation})"
    raise LeaseLost(
        f"The lease on {lease.name}, generation {lease.generation}, is no longer ours: {now_held}.",
        hint="Nothing was written. Another process continues this work; this one was too slow to renew "
        "its lease, because the process or its machine was suspended.",
    )


def _lease_of(row: Any) -> Lease:
    return Lease(row.name, row.generation, row.holder, row.expires_at)


def _named(name: str) -> ColumnElement[bool]:
    if not name.endswith("/"):
        return leases.c.name == name
    # As a range, for which the key is an index: "0" is what comes after "/".
    return (leases.c.name > name) & (leases.c.name < name[:-1] + "0")


def _row(connection: Connection, name: str, lock: Lock | None = None) -> Any:
    query = select(leases).where(leases.c.name == name)
    return connection.execute(query if lock is None else query.with_for_update(**lock)).one_or_none()


def try_writing(connection: Connection, database: Database) -> None:
    """Add a row and delete it: its page is written all the same, so a full or read-only disk is found."""
    connection.execute(database.insert(leases).values(name=_TRIED, generation=0))
    connection.execute(delete(leases).where(leases.c.name == _TRIED))

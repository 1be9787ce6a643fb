"""Divided deliveries (the port ``Shares``): the table ``chunks``, and a lease for each that is worked on."""

import json
from collections.abc import Sequence
from dataclasses import asdict, replace
from datetime import datetime
from typing import TYPE_CHECKING, Any, Protocol

from sqlalchemy import Connection, Row, and_, delete, exists, false, func, insert, select, true, update

from xmode_transfer.adapters.ledger import leases as leasing
from xmode_transfer.adapters.ledger.database import Database
from xmode_transfer.adapters.ledger.leases import Lock
from xmode_transfer.adapters.ledger.rows import failure_of, failure_values, time_of
from xmode_transfer.adapters.ledger.tables import chunks, leases
from xmode_transfer.adapters.ledger.writer import GroupCommit
from xmode_transfer.domain.errors import AlreadyRunning, LeaseLost
from xmode_transfer.domain.records import Failure, Lease
from xmode_transfer.domain.sharing import (
    MOST_KEPT_FAILURES,
    Chunk,
    ChunkResult,
    ChunkState,
    Division,
    DivisionState,
    NameRange,
)

if TYPE_CHECKING:
    from xmode_transfer.ports import Clock

_OF_ITS_DIVISION = exists().where(
    leases.c.name == chunks.c.under_lease,
    leases.c.generation == chunks.c.under_generation,
    leases.c.holder.is_not(None),
)
_INSERTED_AT_A_TIME = 500


class HelpQueue(Protocol):
    """What wakes workers that could help."""

    def put_help(self, connection: Connection, delivery_id: str, customer: str, count: int) -> None:
        """Puts jobs for helpers of the delivery into the queue, in the transaction of the caller, so that
        ``count`` of them wait there. They go behind all turns: who helps has nothing else to do."""
        ...

    def take_help_out(self, connection: Connection, delivery_id: str) -> None:
        """Removes those that wait."""
        ...


class SqlShares:
    """Implements ``ports.Shares``; ``SqlLedger.shares`` makes it.

    Rows are locked from above: the delivery's lease, the chunk's lease, the chunk. Whoever changes several
    chunks has the delivery's lease exclusively, and is alone with them; whoever takes one goes the other way,
    from the chunk to its lease, and therefore waits for neither.
    """

    def __init__(self, database: Database, writer: GroupCommit, clock: "Clock", queue: HelpQueue) -> None:
        self._database = database
        self._writer = writer
        self._clock = clock
        self._queue = queue

    def divide(self, division: Division, ranges: Sequence[NameRange], helpers: int) -> None:
        rows = [_row(division, number, names) for number, names in enumerate(ranges, start=1)]

        def action(connection: Connection) -> None:
            leasing.check(connection, division.lease, Lock.EXCLUSIVE)
            self._remove(connection, division.delivery_id)
            self._sweep(connection)
            for start in range(0, len(rows), _INSERTED_AT_A_TIME):
                connection.execute(insert(chunks), rows[start : start + _INSERTED_AT_A_TIME])
            if helpers and rows:
                self._queue.put_help(connection, division.delivery_id, division.customer, helpers)

        self._writer.call(action, alone=True)

    def ask(self, division: Division, helpers: int) -> None:
        def action(connection: Connection) -> None:
            leasing.check(connection, division.lease)
            self._queue.put_help(connection, division.delivery_id, division.customer, helpers)

        self._writer.call(action)

    def state(self, delivery_id: str) -> DivisionState | None:
        query = (
            select(chunks, leases.c.holder, leases.c.expires_at)
            .join_from(chunks, leases, leases.c.name == chunks.c.lease, isouter=True)
            .where(chunks.c.delivery_id == delivery_id, _OF_ITS_DIVISION.correlate(chunks))
            .order_by(chunks.c.number)
        )
        return self._state(delivery_id, query)

    def take(self, division: Division, holder: str, ttl_seconds: float) -> Chunk | None:
        presence = self._database.presence(holder)

        def action(connection: Connection) -> Chunk | None:
            leasing.check(connection, division.lease)
            asked = (connection, division, holder, presence, ttl_seconds)
            found = self._untaken(*asked) or self._abandoned(*asked)
            if found is None:
                return None
            row, lease = found
            connection.execute(update(chunks).where(_same(row)).values(worked_by=holder))
            return Chunk(division, row.number, _names(row), replace(lease, under=division.lease))

        return self._writer.call(action)

    def tell(self, chunk: Chunk, sent_bytes: int) -> None:
        def action(connection: Connection) -> None:
            leasing.check(connection, chunk.lease)
            connection.execute(update(chunks).where(_is(chunk)).values(told_bytes=sent_bytes))

        self._writer.call(action)

    def finish(self, chunk: Chunk, result: ChunkResult) -> None:
        def action(connection: Connection) -> None:
            leasing.check(connection, chunk.lease)
            failures = [[name, asdict(failure)] for name, failure in result.failures[:MOST_KEPT_FAILURES]]
            connection.execute(
                update(chunks)
                .where(_is(chunk))
                .values(
                    done=True,
                    failed=result.failed,
                    failures=json.dumps(failures),
                    passing=result.passing,
                    **failure_values(result.halted),
                    **_sent(result),
                )
            )
            leasing.release(connection, chunk.lease)

        self._writer.call(action)

    def give_back(self, chunk: Chunk, result: ChunkResult) -> None:
        def action(connection: Connection) -> None:
            try:
                leasing.check(connection, chunk.lease)
            except LeaseLost:
                return
            connection.execute(update(chunks).where(_is(chunk)).values(worked_by=None, **_sent(result)))
            leasing.release(connection, chunk.lease)

        self._writer.call(action)

    def call_off(self, division: Division) -> None:
        def action(connection: Connection) -> None:
            leasing.check(connection, division.lease, Lock.EXCLUSIVE)
            self._queue.take_help_out(connection, division.delivery_id)
            connection.execute(
                update(chunks).where(chunks.c.delivery_id == division.delivery_id).values(called_off=True)
            )

        self._writer.call(action, alone=True)

    def withdraw(self, lease: Lease, delivery_id: str) -> bool:
        there = select(func.count()).select_from(chunks).where(chunks.c.delivery_id == delivery_id)
        if not self._database.read(lambda c: c.execute(there).scalar_one()):
            return False

        def action(connection: Connection) -> bool:
            leasing.check(connection, lease, Lock.EXCLUSIVE)
            self._queue.take_help_out(connection, delivery_id)
            is_worked_on = self._is_worked_on(connection, delivery_id)
            self._remove(connection, delivery_id)
            return is_worked_on

        return self._writer.call(action, alone=True)

    # --- In a transaction of the writer

    def _is_worked_on(self, connection: Connection, delivery_id: str) -> bool:
        of_delivery = chunks.c.delivery_id == delivery_id
        query = select(leases).join_from(chunks, leases, leases.c.name == chunks.c.lease).where(of_delivery)
        now = self._database.now(connection, self._clock)
        return any(
            not leasing.is_claimable(connection, self._database, row, now)
            for row in connection.execute(query).all()
        )

    def _remove(self, connection: Connection, delivery_id: str) -> None:
        of_delivery = chunks.c.delivery_id == delivery_id
        held = connection.execute(select(chunks.c.lease).where(of_delivery)).scalars().all()
        connection.execute(delete(chunks).where(of_delivery))
        for start in range(0, len(held), _INSERTED_AT_A_TIME):
            names = held[start : start + _INSERTED_AT_A_TIME]
            connection.execute(delete(leases).where(leases.c.name.in_(names)))

    def _sweep(self, connection: Connection) -> None:
        """Forgets what closers have left behind whose deliveries went on undivided."""
        left = select(chunks.c.delivery_id).where(~_OF_ITS_DIVISION.correlate(chunks)).distinct()
        for delivery_id in connection.execute(left.order_by(chunks.c.delivery_id)).scalars().all():
            self._remove(connection, delivery_id)

    def _untaken(
        self,
        connection: Connection,
        division: Division,
        holder: str,
        presence: str | None,
        ttl_seconds: float,
    ) -> tuple[Row[Any], Lease] | None:
        """The first chunk that was not taken, or was given back; two who ask at once get two."""
        row = connection.execute(
            select(chunks)
            .where(*_open(division), chunks.c.worked_by.is_(None))
            .order_by(chunks.c.number)
            .limit(1)
            .with_for_update(skip_locked=True)
        ).one_or_none()
        if row is None:
            return None
        try:
            return row, self._claim(connection, row.lease, holder, presence, ttl_seconds)
        except AlreadyRunning:  # its last worker is just giving it back
            return None

    def _abandoned(
        self,
        connection: Connection,
        division: Division,
        holder: str,
        presence: str | None,
        ttl_seconds: float,
    ) -> tuple[Row[Any], Lease] | None:
        """The first chunk whose worker is gone. Those whose worker lives are looked at, and not locked."""
        query = (
            select(chunks.c.number, leases.c.holder, leases.c.presence, leases.c.expires_at)
            .join_from(chunks, leases, leases.c.name == chunks.c.lease, isouter=True)
            .where(*_open(division))
            .order_by(chunks.c.number)
        )
        now = self._database.now(connection, self._clock)
        for seen in connection.execute(query).all():
            if not leasing.is_claimable(connection, self._database, seen, now):
                continue
            row = connection.execute(
                select(chunks)
                .where(*_open(division), chunks.c.number == seen.number)
                .with_for_update(skip_locked=True)
            ).one_or_none()
            if row is None:
                continue
            try:
                return row, self._claim(connection, row.lease, holder, presence, ttl_seconds)
            except AlreadyRunning:
                continue
        return None

    def _claim(
        self, connection: Connection, name: str, holder: str, presence: str | None, ttl_seconds: float
    ) -> Lease:
        return leasing.claim(
            connection,
            self._database,
            name,
            holder,
            presence,
            self._clock,
            ttl_seconds,
            Lock.EXCLUSIVE_NOW,
        )

    def _state(self, delivery_id: str, query: Any) -> DivisionState | None:
        def found(connection: Connection) -> tuple[Sequence[Row[Any]], datetime]:
            return connection.execute(query).all(), self._database.now(connection, self._clock)

        rows, now = self._database.read(found)
        if not rows:
            return None
        first = rows[0]
        under = Lease(first.under_lease, first.under_generation, first.under_holder, now)
        division = Division(delivery_id, first.customer, under, first.fingerprint)
        return DivisionState(division, [_chunk_state(row, now) for row in rows], first.called_off)


def _row(division: Division, number: int, names: NameRange) -> dict[str, object]:
    under = division.lease
    return {
        "delivery_id": division.delivery_id,
        "number": number,
        "lease": f"chunk/{division.customer}/{division.delivery_id}/{under.generation}-{number}",
        "customer": division.customer,
        "under_lease": under.name,
        "under_generation": under.generation,
        "under_holder": under.holder,
        "fingerprint": division.fingerprint,
        "called_off": False,
        "after_name": names.after,
        "last_name": names.last,
        "objects": names.objects,
        "bytes": names.size,
        "done": False,
        "told_bytes": 0,
        "uploaded": 0,
        "uploaded_bytes": 0,
        "adopted": 0,
        "failed": 0,
        "failures": "[]",
        "passing": False,
        "stale": False,
    }


def _open(division: Division) -> tuple[Any, ...]:
    return (
        chunks.c.delivery_id == division.delivery_id,
        chunks.c.under_generation == division.lease.generation,
        chunks.c.done == false(),
        chunks.c.called_off == false(),
    )


def _same(row: Any) -> Any:
    return and_(chunks.c.delivery_id == row.delivery_id, chunks.c.number == row.number)


def _is(chunk: Chunk) -> Any:
    return and_(chunks.c.delivery_id == chunk.division.delivery_id, chunks.c.number == chunk.number)


def _sent(result: ChunkResult) -> dict[str, Any]:
    """What is added to what others have sent of the chunk before."""
    return {
        "uploaded": chunks.c.uploaded + result.uploaded,
        "uploaded_bytes": chunks.c.uploaded_bytes + result.uploaded_bytes,
        "adopted": chunks.c.adopted + result.adopted,
        **({"stale": true()} if result.stale else {}),
    }


def _names(row: Any) -> NameRange:
    return NameRange(row.after_name, row.last_name, row.objects, row.bytes)


def _chunk_state(row: Any, now: datetime) -> ChunkState:
    held = row.holder is not None and time_of(row.expires_at) > now
    failures = tuple((name, Failure(**failure)) for name, failure in json.loads(row.failures))
    result = ChunkResult(
        row.uploaded,
        row.uploaded_bytes,
        row.adopted,
        row.failed,
        failures,
        row.passing,
        failure_of(row),
        row.stale,
    )
    return ChunkState(
        row.number,
        _names(row),
        row.done,
        row.holder if held else None,
        row.worked_by,
        row.told_bytes,
        result,
    )

"""The seats of the fleet, as rows."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, NamedTuple

from sqlalchemy import Connection, case, delete, func, select, update

from xmode_transfer.adapters.ledger import leases
from xmode_transfer.adapters.ledger.database import Database
from xmode_transfer.adapters.ledger.rows import maybe_text_of, maybe_time_of, text_of, time_of
from xmode_transfer.adapters.ledger.tables import fleet, turns
from xmode_transfer.adapters.ledger.tables import leases as lease_rows
from xmode_transfer.domain.fleet import FleetState, FleetTurn, customer_lease
from xmode_transfer.domain.seats import Seat

if TYPE_CHECKING:
    from xmode_transfer.ports import Clock

_ONLY = 1  # the number of the one row of ``fleet``


class Round:
    """The seats in a transaction that changes them, and that nobody else changes until it ends. ``clock`` is
    the virtual time; ``now`` the time of day by the clock of leases."""

    def __init__(self, connection: Connection, now: datetime, row: Any) -> None:
        self.connection = connection
        self.now = now
        self.serial: int = row.serial
        self.clock: float = row.clock
        self._swept_at = maybe_time_of(row.swept_at)

    def next_serial(self) -> int:
        self.serial += 1
        return self.serial

    def seat(self, customer: str) -> Seat | None:
        row = self.connection.execute(select(turns).filter_by(customer=customer)).one_or_none()
        return None if row is None else _seat_of(row)

    def seats(self) -> dict[str, Seat]:
        return {row.customer: _seat_of(row) for row in self.connection.execute(select(turns))}

    def add(self, seats: Sequence[Seat]) -> None:
        if seats:
            self.connection.execute(
                turns.insert(), [{"customer": seat.customer, **_values(seat)} for seat in seats]
            )

    def save(self, seat: Seat) -> None:
        self.connection.execute(
            update(turns).where(turns.c.customer == seat.customer).values(**_values(seat))
        )

    def remove(self, customer: str) -> None:
        self.connection.execute(delete(turns).where(turns.c.customer == customer))

    def put_clock_back(self) -> list[Seat]:
        """What customers have spent is counted from the present virtual time on, which is 0 then. Answers
        those that are queued, who was queued first at the front."""
        left = turns.c.spent - self.clock
        self.connection.execute(update(turns).values(spent=case((left > 0, left), else_=0.0)))
        self.clock = 0.0
        query = select(turns).where(turns.c.state == FleetState.QUEUED).order_by(turns.c.serial)
        return [_seat_of(row) for row in self.connection.execute(query)]

    def is_sweep_due(self, every: timedelta) -> bool:
        return _is_due(self._swept_at, self.now, every)

    def note_sweep(self) -> None:
        self.connection.execute(update(fleet).values(swept_at=text_of(self.now)))


@contextmanager
def changing(connection: Connection, database: Database, clock: "Clock") -> Iterator[Round]:
    """Locks the fleet's row, then lets the block change turns. The row comes before anything else that a
    change locks: two processes that each held a turn and waited for the row would wait for ever."""
    row = _fleet_row(connection, for_update=True)
    if row is None:
        connection.execute(
            database.insert(fleet).values(id=_ONLY, serial=0, clock=0.0).on_conflict_do_nothing()
        )
        row = _fleet_row(connection, for_update=True)
        assert row is not None
    now = database.now(connection, clock)
    table = Round(connection, now, row)
    yield table
    if (table.serial, table.clock) != (row.serial, row.clock):
        connection.execute(update(fleet).values(serial=table.serial, clock=table.clock))


# --- Reading --------------------------------------------------------------------------------------------


def seat_of(connection: Connection, customer: str) -> Seat | None:
    row = connection.execute(select(turns).filter_by(customer=customer)).one_or_none()
    return None if row is None else _seat_of(row)


def seats_of(connection: Connection, customers: Sequence[str]) -> dict[str, Seat]:
    query = select(turns).where(turns.c.customer.in_(customers))
    return {row.customer: _seat_of(row) for row in connection.execute(query)}


def weights(connection: Connection) -> dict[str, int]:
    """Of those who take part."""
    query = select(turns.c.customer, turns.c.weight).where(~turns.c.leaves)
    return {row.customer: row.weight for row in connection.execute(query)}


def changed(connection: Connection, after_serial: int) -> list[FleetTurn]:
    query = select(turns).where(turns.c.serial > after_serial).order_by(turns.c.serial)
    return [_turn_of(row) for row in connection.execute(query)]


def queued(connection: Connection) -> list[str]:
    query = select(turns.c.customer).where(turns.c.state == FleetState.QUEUED).order_by(turns.c.customer)
    return list(connection.execute(query).scalars())


def count_queued(connection: Connection, *, waiting: bool) -> int:
    """In the regular queue, or in that of those who are broken off."""
    which = turns.c.reason != "" if waiting else turns.c.reason == ""
    query = select(func.count()).where(turns.c.state == FleetState.QUEUED, which)
    return connection.execute(query).scalar_one()


def stopped(connection: Connection, holder: str) -> frozenset[str]:
    """The customers whose turns that holder is to stop."""
    query = select(turns.c.customer).where(
        turns.c.state == FleetState.RUNNING, turns.c.holder == holder, turns.c.stop_asked
    )
    return frozenset(connection.execute(query).scalars())


class Sweep(NamedTuple):
    """What a look over the fleet finds. ``abandoned``: running turns (customer, generation of their lease)
    that nobody holds any more. ``is_due``: whether it is time to look for jobs that were lost."""

    abandoned: list[tuple[str, int]]
    is_due: bool


def sweep(
    connection: Connection, database: Database, clock: "Clock", every: timedelta, life: str | None
) -> Sweep:
    row = _fleet_row(connection, for_update=False)
    if row is None:
        return Sweep([], is_due=False)
    now = database.now(connection, clock)
    return Sweep(
        abandoned(connection, database, now, life), is_due=_is_due(maybe_time_of(row.swept_at), now, every)
    )


def _is_due(swept_at: datetime | None, now: datetime, every: timedelta) -> bool:
    return swept_at is None or not timedelta(0) <= now - swept_at < every


def abandoned(
    connection: Connection,
    database: Database,
    now: datetime,
    life: str | None,
    customer: str | None = None,
) -> list[tuple[str, int]]:
    """The running turns, or the one of that customer, whose lease anybody might claim. Where a ``life`` of
    the server is given, leases that were last renewed in another one are not judged by their time: their
    holders could not reach the server for a while, and are about to renew them."""
    held = (lease_rows.c.name == customer_lease("") + turns.c.customer) & (
        lease_rows.c.generation == turns.c.generation
    )
    query = (
        select(turns.c.customer, turns.c.generation.label("of_turn"), *lease_rows.c)
        .select_from(turns.outerjoin(lease_rows, held))
        .where(turns.c.state == FleetState.RUNNING)
        .order_by(turns.c.customer)
    )
    if customer is not None:
        query = query.where(turns.c.customer == customer)
    return [
        (row.customer, row.of_turn)
        for row in connection.execute(query).all()
        if leases.is_claimable(connection, database, row, now)
        and (life in (None, row.presence) or not _lives(connection, database, row))
    ]


def _lives(connection: Connection, database: Database, row: Any) -> bool:
    """Whether the lease has a holder who may be about to renew it."""
    return row.presence is not None and not database.is_dead(connection, row.holder, row.presence)


def _fleet_row(connection: Connection, *, for_update: bool) -> Any:
    query = select(fleet).where(fleet.c.id == _ONLY)
    return connection.execute(query.with_for_update() if for_update else query).one_or_none()


# --- Rows -----------------------------------------------------------------------------------------------


def _turn_of(row: Any) -> FleetTurn:
    return FleetTurn(
        customer=row.customer,
        state=FleetState(row.state),
        since_at=time_of(row.since_at),
        serial=row.serial,
        ended_serial=row.ended_serial,
        holder=row.holder,
        stop_asked=bool(row.stop_asked),
        feed=row.feed,
        period=row.period,
        next_at=maybe_time_of(row.next_at),
        reason=row.reason,
        again=bool(row.again),
        looked=bool(row.looked),
        refused=bool(row.refused),
    )


def _seat_of(row: Any) -> Seat:
    return Seat(
        turn=_turn_of(row),
        weight=row.weight,
        spent=row.spent,
        backfill=bool(row.backfill),
        hurried=bool(row.hurried),
        serving_at=maybe_time_of(row.serving_at),
        called_again=bool(row.called_again),
        called_hurried=bool(row.called_hurried),
        called_serving_at=maybe_time_of(row.called_serving_at),
        leaves=bool(row.leaves),
        generation=row.generation,
        reread_at=maybe_time_of(row.reread_at),
    )


def _values(seat: Seat) -> dict[str, object]:
    """All columns but the customer."""
    turn = seat.turn
    return {
        "state": str(turn.state),
        "since_at": text_of(turn.since_at),
        "serial": turn.serial,
        "ended_serial": turn.ended_serial,
        "holder": turn.holder,
        "generation": seat.generation,
        "stop_asked": turn.stop_asked,
        "feed": turn.feed,
        "period": turn.period,
        "next_at": maybe_text_of(turn.next_at),
        "reason": turn.reason,
        "again": turn.again,
        "looked": turn.looked,
        "refused": turn.refused,
        "weight": seat.weight,
        "spent": seat.spent,
        "backfill": seat.backfill,
        "hurried": seat.hurried,
        "serving_at": maybe_text_of(seat.serving_at),
        "called_again": seat.called_again,
        "called_hurried": seat.called_hurried,
        "called_serving_at": maybe_text_of(seat.called_serving_at),
        "leaves": seat.leaves,
        "reread_at": maybe_text_of(seat.reread_at),
    }

"""A customer's seat in the round of the fleet: what calls, turns and take-overs make of it.

The functions take a seat as the ledger has it and answer it as it is afterwards; whoever keeps the seats
(``ports.Fleet``) calls them one after the other, stores what they answer, and has a job in the queue for
each seat that is queued. ``clock`` is the virtual time of the fleet, ``now`` the time of day, ``serial`` the
number of the change.
"""

from dataclasses import dataclass, replace
from datetime import datetime

from xmode_transfer.domain.fleet import (
    Call,
    FleetState,
    FleetTurn,
    FleetTurnEnd,
    cost,
    entering,
    priority,
)

REBASE_ABOVE = 1e6
"""A virtual time beyond this is put back to 0, so that priorities fit their 32 bits."""


@dataclass(frozen=True, slots=True)
class Seat:
    """One customer. ``turn`` is what everybody may see of it.

    ``spent`` is what its turns have cost so far, on the fleet's virtual time. ``hurried`` and ``serving_at``
    belong to the turn that is queued or running; those that begin with ``called`` came while that ran, and
    belong to the next one. ``generation`` is that of the running turn's lease. ``leaves``: it takes part no
    more, and is gone when its running turn ends.
    """

    turn: FleetTurn
    weight: int = 1
    spent: float = 0.0
    backfill: bool = False
    hurried: bool = False
    serving_at: datetime | None = None
    called_again: bool = False
    called_hurried: bool = False
    called_serving_at: datetime | None = None
    leaves: bool = False
    generation: int = 0
    reread_at: datetime | None = None

    @property
    def customer(self) -> str:
        return self.turn.customer

    @property
    def is_queued(self) -> bool:
        return self.turn.state is FleetState.QUEUED

    @property
    def is_running(self) -> bool:
        return self.turn.state is FleetState.RUNNING

    @property
    def waiting(self) -> bool:
        """Whether its turns belong into the queue of those that may not get on: the last one was refused or
        failed in a way that the next would meet too."""
        return bool(self.turn.reason)

    @property
    def priority(self) -> int:
        """Of its job, while it is queued."""
        return priority(self.spent, backfill=self.backfill)


def seated(customer: str, weight: int, now: datetime, serial: int) -> Seat:
    """A customer that takes part from now on."""
    return Seat(FleetTurn(customer, FleetState.RESTING, now, serial), weight)


def leaving(seat: Seat, serial: int) -> Seat:
    """Its turn runs, and is its last one."""
    return replace(
        seat,
        turn=replace(seat.turn, stop_asked=True, serial=serial),
        leaves=True,
        called_again=False,
        called_hurried=False,
        called_serving_at=None,
    )


def staying(seat: Seat, weight: int) -> Seat:
    """It takes part, or does so again, with that weight."""
    return replace(seat, weight=weight, leaves=False)


def known(seat: Seat, turn: FleetTurn, serial: int) -> Seat:
    """What is known of a customer before its first turn in this fleet."""
    if seat.turn.ended_serial or seat.is_queued or seat.is_running:
        return seat
    fresh = replace(turn, customer=seat.customer, serial=seat.turn.serial, ended_serial=0, holder=None)
    return seat if fresh == seat.turn else replace(seat, turn=replace(fresh, serial=serial))


def called(seat: Seat, call: Call, clock: float, now: datetime, serial: int) -> Seat:
    """The same seat where the call changes nothing."""
    if seat.leaves:
        return seat
    if seat.is_running:
        return replace(
            seat,
            called_again=True,
            called_hurried=seat.called_hurried or call.hurried,
            called_serving_at=_later(seat.called_serving_at, call.serving_at),
        )
    asked = replace(
        seat,
        hurried=seat.hurried or call.hurried,
        serving_at=_later(seat.serving_at, call.serving_at),
    )
    return asked if asked.is_queued else _queued(asked, clock, now, serial)


def is_called(seat: Seat, call: Call) -> bool:
    """Whether such a call would change nothing, whatever the time."""
    return seat == called(seat, call, 0.0, seat.turn.since_at, 0)


def asked_to_stop(seat: Seat, serial: int) -> Seat:
    if not seat.is_running or seat.turn.stop_asked:
        return seat
    return replace(seat, turn=replace(seat.turn, stop_asked=True, serial=serial))


def begun(
    seat: Seat, clock: float, now: datetime, serial: int, holder: str, generation: int
) -> tuple[Seat, float]:
    """The turn of a queued customer begins. Answers the virtual time after that, too. What a turn of the
    waiting queue had spent says nothing about the regular one."""
    turn = replace(
        seat.turn, state=FleetState.RUNNING, since_at=now, serial=serial, holder=holder, stop_asked=False
    )
    after = replace(seat, turn=turn, spent=seat.spent + cost(seat.weight), generation=generation)
    return after, clock if seat.waiting else max(clock, seat.spent)


def told(seat: Seat, serial: int, feed: str, period: str) -> Seat:
    """What the running turn delivers now."""
    return replace(seat, turn=replace(seat.turn, serial=serial, feed=feed, period=period))


def ended(seat: Seat, clock: float, now: datetime, serial: int, end: FleetTurnEnd) -> Seat:
    """The running turn is over. A time of the schedule that was not served, because not everything was
    looked at, stays with the customer."""
    turn = FleetTurn(
        customer=seat.customer,
        state=FleetState.BROKEN_OFF if end.reason else FleetState.RESTING,
        since_at=now,
        serial=serial,
        ended_serial=serial,
        feed=end.feed,
        period=end.period,
        next_at=end.next_at,
        reason=end.reason,
        again=end.again,
        looked=end.looked,
        refused=end.refused,
    )
    serving_at = None if end.looked else seat.serving_at
    after = replace(
        _next(replace(seat, turn=turn, serving_at=serving_at, hurried=False)),
        backfill=end.backfill,
        reread_at=end.reread_at or seat.reread_at,
    )
    if (end.again or seat.called_again) and not seat.leaves:
        return _queued(after, clock, now, serial)
    return after


def taken_over(seat: Seat, clock: float, now: datetime, serial: int) -> Seat:
    """The running turn is held by nobody any more, and nothing is known of how it ended: it is queued
    again, with all that it was to do."""
    return _queued(_next(seat), clock, now, serial)


def rebased(seat: Seat, clock: float) -> Seat:
    """After the virtual time ``clock`` was put back to 0. The job of one that is queued has another priority
    then."""
    return replace(seat, spent=max(0.0, seat.spent - clock))


def _next(seat: Seat) -> Seat:
    """What came while the turn ran belongs to the next one."""
    return replace(
        seat,
        hurried=seat.hurried or seat.called_hurried,
        serving_at=_later(seat.serving_at, seat.called_serving_at),
        called_again=False,
        called_hurried=False,
        called_serving_at=None,
        generation=0,
    )


def _queued(seat: Seat, clock: float, now: datetime, serial: int) -> Seat:
    turn = replace(
        seat.turn, state=FleetState.QUEUED, since_at=now, serial=serial, holder=None, stop_asked=False
    )
    return replace(seat, turn=turn, spent=entering(seat.spent, clock))


def _later(one: datetime | None, other: datetime | None) -> datetime | None:
    return max(filter(None, (one, other)), default=None)

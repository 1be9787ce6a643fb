"""Who takes the jobs of a ledger's customers: one daemon alone, or a fleet of daemons and workers. Never
both: each would believe that it knows whose turn it is, and what an outage left.

Each process holds a lease that says which it is, and looks for the others only when it has that. So of two
that start at the same moment at least one sees the other.
"""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Literal

from xmode_transfer import telemetry
from xmode_transfer.model.errors import AlreadyRunning, LedgerError
from xmode_transfer.model.records import Lease, holder_shown
from xmode_transfer.telemetry import Event
from xmode_transfer.transfer import leasing
from xmode_transfer.transfer.context import Context

ALONE = "daemon"
Member = Literal["daemon", "worker"]
_MEMBERS: tuple[Member, ...] = ("daemon", "worker")
_UNTIL = f"one that died gives its place up within {leasing.TTL_SECONDS:.0f} seconds"


@contextmanager
def _held(context: Context, name: str) -> Iterator[Lease]:
    """As ``leasing.held``; but who ends does so although the ledger cannot be told. The lease is free as soon
    as the process is gone."""
    lease = context.ledger.leases.claim(name, context.holder, leasing.TTL_SECONDS)
    try:
        with leasing.kept(context.ledger, lease):
            yield lease
    finally:
        try:
            context.ledger.leases.release(lease)
        except LedgerError as error:
            telemetry.warn(Event.SHUTDOWN_NOT_RECORDED, **error.log_context())


@contextmanager
def alone(context: Context) -> Iterator[Lease]:
    """The right to be the one daemon that takes all jobs itself. Raises AlreadyRunning beside another one,
    and beside a fleet."""
    with ExitStack() as stack:
        try:
            lease = stack.enter_context(_held(context, ALONE))
        except AlreadyRunning as error:
            raise AlreadyRunning(
                "a daemon works with this ledger already: " + error.message.partition("by ")[2],
                hint=f"one daemon serves all customers. End that one first, or wait: {_UNTIL}. `run` works "
                "beside a daemon",
            ) from error
        _refuse_beside_a_fleet(context)
        yield lease


@contextmanager
def of_many(context: Context, member: Member) -> Iterator[Lease]:
    """The lease of a daemon or a worker of a fleet. Raises AlreadyRunning beside a daemon that takes all
    jobs itself."""
    with _held(context, f"{member}/{context.holder}") as lease:
        for other in context.ledger.leases.held(ALONE):
            raise AlreadyRunning(
                "a daemon that takes all turns itself (`--engine threads`) works with this ledger: "
                f"{holder_shown(other.holder)}",
                hint="one daemon alone or a fleet serves a ledger's customers, not both. The operator has to "
                f"end that one first; what it leaves is gone on with. If it has ended, wait: {_UNTIL}",
            )
        yield lease


def _refuse_beside_a_fleet(context: Context) -> None:
    fleet = {member: context.ledger.leases.held(f"{member}/") for member in _MEMBERS}
    told = [_told(member, leases) for member, leases in fleet.items() if leases]
    if told:
        raise AlreadyRunning(
            f"a fleet works with this ledger: {' and '.join(told)}",
            hint="one daemon alone or a fleet serves a ledger's customers, not both. The operator has to end "
            "the fleet's daemons and workers first, or to start this one with `--engine procrastinate`, so "
            f"that it joins them. If they have ended, wait: {_UNTIL}",
        )


def _told(member: Member, leases: Sequence[Lease]) -> str:
    count = f"1 {member}" if len(leases) == 1 else f"{len(leases)} {member}s"
    return f"{count} ({holder_shown(leases[0].holder)}{', ...' if len(leases) > 1 else ''})"

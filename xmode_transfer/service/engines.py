"""The engine of a ledger: one daemon alone, or a fleet of daemons and workers. Never both: each would keep
its own queue.

Each process takes a lease that names its kind, then checks for processes of the other kind. Of two that
start at the same moment, at least one sees the other.
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
_UNTIL = f"the lease of a dead process expires within {leasing.TTL_SECONDS:.0f} seconds"


@contextmanager
def _held(context: Context, name: str) -> Iterator[Lease]:
    """Like ``leasing.held``, but tolerate a ledger that is away at the end. The lease is free as soon as the
    process is gone."""
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
    """Hold the lease of a daemon that runs all jobs itself. Raises AlreadyRunning beside another daemon or a
    fleet."""
    with ExitStack() as stack:
        try:
            lease = stack.enter_context(_held(context, ALONE))
        except AlreadyRunning as error:
            raise AlreadyRunning(
                "another daemon uses this ledger: " + error.message.partition("by ")[2],
                hint=f"one daemon serves all customers. Stop that one first, or wait: {_UNTIL}. `run` works "
                "beside a daemon",
            ) from error
        _refuse_beside_a_fleet(context)
        yield lease


@contextmanager
def of_many(context: Context, member: Member) -> Iterator[Lease]:
    """Hold the lease of a fleet's daemon or worker. Raises AlreadyRunning beside a daemon that runs all jobs
    itself."""
    with _held(context, f"{member}/{context.holder}") as lease:
        for other in context.ledger.leases.held(ALONE):
            raise AlreadyRunning(
                "a daemon with its own worker (`--engine threads`) uses this ledger: "
                f"{holder_shown(other.holder)}",
                hint="a ledger is served by one daemon or by a fleet, not both. Stop that daemon first; its "
                f"unfinished work is resumed. If it has stopped, wait: {_UNTIL}",
            )
        yield lease


def _refuse_beside_a_fleet(context: Context) -> None:
    fleet = {member: context.ledger.leases.held(f"{member}/") for member in _MEMBERS}
    members = [_counted(member, leases) for member, leases in fleet.items() if leases]
    if members:
        raise AlreadyRunning(
            f"a fleet uses this ledger: {' and '.join(members)}",
            hint="a ledger is served by one daemon or by a fleet, not both. Stop the fleet's daemons and "
            "workers first, or join the fleet with `--engine procrastinate`. "
            f"If they have stopped, wait: {_UNTIL}",
        )


def _counted(member: Member, leases: Sequence[Lease]) -> str:
    count = f"1 {member}" if len(leases) == 1 else f"{len(leases)} {member}s"
    return f"{count} ({holder_shown(leases[0].holder)}{', ...' if len(leases) > 1 else ''})"

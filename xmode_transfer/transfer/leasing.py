"""Holding a lease for as long as a piece of work takes."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from xmode_transfer import telemetry
from xmode_transfer.ledger import Ledger
from xmode_transfer.model.errors import AlreadyRunning, LeaseLost, XmodeError
from xmode_transfer.model.records import Lease
from xmode_transfer.telemetry import Event

TTL_SECONDS = 45.0  # how long a machine may be frozen before another may take over
_RENEW_SECONDS = TTL_SECONDS / 4
_POLL_SECONDS = 0.2


def of_delivery(customer: str, feed: str, period: str) -> str:
    """What is claimed by whoever changes what a period's delivery consists of."""
    return f"delivery/{customer}/{feed}/{period}"


@contextmanager
def held(
    ledger: Ledger, name: str, holder: str, *, wait_seconds: float = 0, stop: threading.Event | None = None
) -> Iterator[Lease]:
    """Claims ``name``, renews the lease in the background, gives it back at the end. Raises AlreadyRunning
    when somebody else still has it after ``wait_seconds``, or when ``stop`` is set meanwhile."""
    lease = _claim(ledger, name, holder, wait_seconds, stop or threading.Event())
    try:
        with kept(ledger, lease):
            yield lease
    finally:
        ledger.leases.release(lease)


def _claim(ledger: Ledger, name: str, holder: str, wait_seconds: float, stop: threading.Event) -> Lease:
    for _ in range(int(wait_seconds / _POLL_SECONDS)):
        with suppress(AlreadyRunning):
            return ledger.leases.claim(name, holder, TTL_SECONDS)
        if stop.wait(_POLL_SECONDS):
            break
    return ledger.leases.claim(name, holder, TTL_SECONDS)


@contextmanager
def kept(ledger: Ledger, lease: Lease, *, lost: Callable[[], None] = lambda: None) -> Iterator[None]:
    """Renews a lease that is ours in the background, and leaves giving it back to the caller. ``lost`` is
    called, by another thread, when somebody has taken it over."""
    done = threading.Event()

    def renew() -> None:
        while not done.wait(_RENEW_SECONDS):
            try:
                ledger.leases.renew(lease, TTL_SECONDS)
            except LeaseLost:
                telemetry.log(Event.LEASE_LOST, lease=lease.name)
                lost()
                return  # the ledger refuses our next write, which ends the work
            except XmodeError as error:
                telemetry.log(Event.LEASE_NOT_RENEWED, lease=lease.name, **error.log_context())

    keeper = threading.Thread(target=renew, name=f"lease {lease.name}", daemon=True)
    keeper.start()
    try:
        yield
    finally:
        done.set()
        keeper.join()

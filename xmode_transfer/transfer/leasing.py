"""Hold a lease while a piece of work runs."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from xmode_transfer import telemetry
from xmode_transfer.ledger import Ledger
from xmode_transfer.model.errors import AlreadyRunning, LeaseLost, XmodeError
from xmode_transfer.model.records import Lease
from xmode_transfer.telemetry import Event

TTL_SECONDS = 45.0  # a machine may be frozen for this long before another takes over
_RENEW_SECONDS = TTL_SECONDS / 4
_POLL_SECONDS = 0.2


def of_delivery(customer: str, feed: str, period: str) -> str:
    """Returns the name of the lease for changes to a period's delivery."""
    return f"delivery/{customer}/{feed}/{period}"


@contextmanager
def held(
    ledger: Ledger, name: str, holder: str, *, wait_seconds: float = 0, stop: threading.Event | None = None
) -> Iterator[Lease]:
    """Claims ``name``, renews the lease in the background, and releases it at the end. Raises AlreadyRunning
    if another process still holds it after ``wait_seconds``, or if ``stop`` is set while waiting."""
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
    """Renews our lease in the background; the caller releases it. Calls ``lost`` in another thread when
    another process has taken the lease over."""
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

    renewer = threading.Thread(target=renew, name=f"lease {lease.name}", daemon=True)
    renewer.start()
    try:
        yield
    finally:
        done.set()
        renewer.join()

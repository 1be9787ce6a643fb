"""Holding a lease for as long as a piece of work takes."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from xmode_transfer import telemetry
from xmode_transfer.domain.errors import LeaseLost, XmodeError
from xmode_transfer.domain.records import Lease
from xmode_transfer.ports import Ledger
from xmode_transfer.telemetry import Event

TTL_SECONDS = 45.0  # how long a machine may be frozen before another may take over
_RENEW_SECONDS = TTL_SECONDS / 4


def of_delivery(customer: str, feed: str, period: str) -> str:
    """What is claimed by whoever changes what a period's delivery consists of."""
    return f"delivery/{customer}/{feed}/{period}"


@contextmanager
def held(ledger: Ledger, name: str, holder: str) -> Iterator[Lease]:
    """Claims ``name``, renews the lease in the background, gives it back at the end. Raises
    AlreadyRunning."""
    lease = ledger.claim(name, holder, TTL_SECONDS)
    done = threading.Event()

    def renew() -> None:
        while not done.wait(_RENEW_SECONDS):
            try:
                ledger.renew(lease, TTL_SECONDS)
            except LeaseLost:
                telemetry.log(Event.LEASE_LOST, lease=name)
                return  # the ledger refuses our next write, which ends the work
            except XmodeError as error:
                telemetry.log(Event.LEASE_NOT_RENEWED, lease=name, **error.log_context())

    keeper = threading.Thread(target=renew, name=f"lease {name}", daemon=True)
    keeper.start()
    try:
        yield lease
    finally:
        done.set()
        keeper.join()
        ledger.release(lease)

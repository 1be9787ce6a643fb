"""Which of several daemons does the housekeeping."""

from datetime import timedelta
from typing import TYPE_CHECKING

from xmode_transfer import telemetry
from xmode_transfer.domain.daemons import longest_silence
from xmode_transfer.domain.errors import AlreadyRunning, LeaseLost
from xmode_transfer.services.leasing import TTL_SECONDS
from xmode_transfer.services.workbench import Workbench
from xmode_transfer.telemetry import Event

if TYPE_CHECKING:
    from xmode_transfer.domain.records import Lease

LEASE = "house"


class Keeper:
    """The right to clean up and to check access. Asked for at each tick by each daemon; one of them has it,
    and a daemon that no longer ticks loses it to the next that does."""

    def __init__(self, bench: Workbench) -> None:
        self._bench = bench
        self._lease: Lease | None = None

    def keep(self, tick_seconds: int) -> bool:
        """Whether it is ours until the tick after the next. Raises LedgerError."""
        ledger = self._bench.ledger
        ttl_seconds = max(TTL_SECONDS, longest_silence(tick_seconds) / timedelta(seconds=1))
        if self._lease is not None:
            try:
                self._lease = ledger.leases.renew(self._lease, ttl_seconds)
            except LeaseLost:
                self._lease = None
            else:
                return True
        try:
            self._lease = ledger.leases.claim(LEASE, self._bench.holder, ttl_seconds)
        except AlreadyRunning:
            return False
        telemetry.log(Event.HOUSE_TAKEN)
        return True

    def give_back(self) -> None:
        """For the daemon's end. Raises LedgerError."""
        if self._lease is not None:
            self._bench.ledger.leases.release(self._lease)
            self._lease = None

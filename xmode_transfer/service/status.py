"""Source scans for `status`, so that it shows what is due without a running daemon."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace

from xmode_transfer.alerting.health import assess
from xmode_transfer.alerting.health_records import Assessment
from xmode_transfer.config import Configuration, Customer, CustomerState, Feed
from xmode_transfer.delivery.due import CustomerRun, scan_feed
from xmode_transfer.ledger import Ledger
from xmode_transfer.model.errors import Defect, LedgerError, SourceError
from xmode_transfer.model.health import SourceScan, Subscription
from xmode_transfer.model.process import Clock
from xmode_transfer.sources.interface import SourceFactory


def daemon_scans(ledger: Ledger, clock: Clock) -> bool:
    """Return True if a daemon is alive: its scans are recent enough."""
    return any(daemon.is_alive(clock.now()) for daemon in ledger.daemons.newest(1))


class SourceScans:
    """Scans sources. Scans that a read-only ledger does not take are kept in memory and used all the same."""

    def __init__(self, ledger: Ledger, clock: Clock) -> None:
        self._ledger = ledger
        self._clock = clock
        self._kept: dict[Subscription, SourceScan] = {}
        self.refusal: LedgerError | None = None
        """The error with which the ledger refused the last scans."""

    def take(
        self,
        configuration: Configuration,
        sources: SourceFactory,
        names: Iterable[str],
        told: Callable[[int, int], None] | None = None,
    ) -> None:
        """Scan the sources of these customers' feeds and record the result; calls no customer's AWS account.
        ``told`` receives the number of finished subscriptions and the total. Failed scans are recorded too.
        Raises LedgerError when the ledger cannot be read."""
        self.refusal = None
        self._kept.clear()
        wanted = list(_active(configuration, names))
        for number, (customer, feed) in enumerate(wanted):
            if told is not None:
                told(number, len(wanted))
            seen = CustomerRun(customer.name)
            try:
                scan_feed(sources, self._ledger, self._clock, customer, feed, seen, record=self._record)
            except (SourceError, Defect):
                continue

    def _record(self, look: SourceScan) -> None:
        if self.refusal is None:
            try:
                self._ledger.sources.record(look)
            except LedgerError as error:
                self.refusal = error
            else:
                return
        last = self._ledger.sources.last(look.customer, look.feed)
        self._kept[look.customer, look.feed] = look.after(last)

    def assess(self, configuration: Configuration) -> Assessment:
        """Assess all customers by the ledger and the scans in memory. Raises LedgerError."""
        snapshot = self._ledger.snapshot()
        return assess(
            configuration, replace(snapshot, scans={**snapshot.scans, **self._kept}), self._clock.now()
        )


def _active(configuration: Configuration, names: Iterable[str]) -> Iterator[tuple[Customer, Feed]]:
    for name in names:
        customer = configuration.customers.get(name)
        if customer is None or name in configuration.broken or customer.state is not CustomerState.ACTIVE:
            continue
        for feed in customer.feeds:
            yield customer, configuration.feeds[feed]

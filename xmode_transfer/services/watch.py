"""Watching over deliveries: how everybody fares, by the ledger alone."""

from xmode_transfer.domain.config import Configuration
from xmode_transfer.domain.health import Assessment, assess
from xmode_transfer.ports import Clock, Ledger


def assess_all(configuration: Configuration, ledger: Ledger, clock: Clock) -> Assessment:
    """How every configured customer fares now: the one evaluator behind `status`, the page, the metrics and
    the alerts. Reads the ledger and calls nobody; costs by the number of subscriptions, not by the length of
    their history. For one customer's calendar of periods see ``Ledger.calendar``. Raises LedgerError."""
    return assess(configuration, ledger.survey(), clock.now())

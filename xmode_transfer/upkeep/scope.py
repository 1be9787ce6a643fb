"""Which periods a command is asked for, and whether there are any."""

from collections.abc import Iterable

from xmode_transfer.config import Configuration, Customer
from xmode_transfer.ledger import Ledger
from xmode_transfer.model.errors import ConfigError
from xmode_transfer.model.periods import Period, period_labelled
from xmode_transfer.model.records import Status
from xmode_transfer.model.verification import Scope


def check_scope(
    ledger: Ledger,
    configuration: Configuration,
    customer: Customer,
    feed: str | None,
    periods: Iterable[str | None],
) -> None:
    """Raises ConfigError for a feed that the customer neither subscribes to nor has ever received, and for a
    period that is not written as its feed's periods are."""
    if (
        feed is not None
        and feed not in customer.feeds
        and not ledger.deliveries.find(customer.name, feed, limit=1)
    ):
        raise ConfigError(
            f"{customer.name} has never received a feed {feed}",
            hint=f"its feeds: {', '.join(customer.feeds)}",
        )
    configured = configuration.feeds.get(feed) if feed is not None else None
    for label in periods:
        if label is None:
            continue
        try:
            known = Period.parse(label, configured.period) if configured else period_labelled(label)
        except ValueError as error:
            raise ConfigError(
                f"{feed}: {error}", hint="`xmode-transfer list --summary` has them all"
            ) from None
        if known is None:
            raise ConfigError(
                f"{label!r} is no period",
                hint="write it like 2026-11-22T05, 2026-11-22, 2026-W47, 2026-11 or none",
            )


def check_delivered(ledger: Ledger, customer: Customer, feed: str | None, period: str) -> None:
    """Raises ConfigError for a period of which no delivery to the customer was ever begun: nothing can be
    proven of it, and "nothing is wrong" would be taken for a proof."""
    if not ledger.deliveries.find(customer.name, feed, period, limit=1):
        what = f"{feed} {period}" if feed is not None else period
        raise ConfigError(
            f"nothing of {what} was ever delivered to {customer.name}",
            hint=f"`xmode-transfer status --customer {customer.name}` has what is due, `xmode-transfer list "
            f"--customer {customer.name} --summary` what was delivered",
        )


def why_nothing(ledger: Ledger, customer: Customer, scope: Scope) -> str:
    """Why the ledger has no key that is meant."""
    delivered = ledger.deliveries.find(customer.name, scope.feed, scope.period, [Status.DELIVERED])
    if any(scope.covers(item.feed, item.period) and item.object_count for item in delivered):
        return "cleanups have removed all that was delivered"
    if scope == Scope():
        return "nothing has been delivered yet"
    return "nothing has been delivered of what is named"

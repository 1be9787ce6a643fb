"""Which feeds and periods are meant, where a person names them for something that was delivered before."""

from collections.abc import Iterable

from xmode_transfer.domain.config import Configuration, Customer
from xmode_transfer.domain.errors import ConfigError
from xmode_transfer.domain.periods import Period, period_labelled
from xmode_transfer.ports import Ledger


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
        and not ledger.deliveries(customer.name, feed, limit=1)
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

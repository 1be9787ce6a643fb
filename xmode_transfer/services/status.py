"""Looking at sources where nobody else does, so that `status` says what is due also without a daemon."""

from collections.abc import Callable, Iterable, Iterator

from xmode_transfer.domain.config import Configuration, Customer, CustomerState, Feed
from xmode_transfer.domain.errors import Defect, LedgerError, SourceError
from xmode_transfer.ports import Clock, Ledger, SourceFactory
from xmode_transfer.services import looking
from xmode_transfer.services.run import CustomerRun, Selection, due


def daemon_looks(ledger: Ledger, clock: Clock) -> bool:
    """Whether a daemon is alive, by the ledger: then what it has seen is new enough."""
    return any(daemon.is_alive(clock.now()) for daemon in ledger.daemons(1))


def look_at(
    configuration: Configuration,
    ledger: Ledger,
    sources: SourceFactory,
    clock: Clock,
    names: Iterable[str],
    told: Callable[[int, int], None] | None = None,
) -> None:
    """Looks at the sources of these customers' feeds and remembers it; calls no customer's AWS account.
    ``told`` hears how many subscriptions are done, of how many. A source that cannot be looked at is
    remembered as such; a ledger that takes no more looks ends it, since what it has is shown all the same."""
    wanted = list(_active(configuration, names))
    for number, (customer, feed) in enumerate(wanted):
        if told is not None:
            told(number, len(wanted))
        seen = CustomerRun(customer.name)
        try:
            states = due(sources, ledger, clock, customer, feed, Selection(), seen)
            looking.remembered(ledger, clock, customer, feed, seen.waiting, seen.unfollowed, states)
        except (SourceError, Defect):
            continue
        except LedgerError:
            return


def _active(configuration: Configuration, names: Iterable[str]) -> Iterator[tuple[Customer, Feed]]:
    for name in names:
        customer = configuration.customers.get(name)
        if customer is None or name in configuration.broken or customer.state is not CustomerState.ACTIVE:
            continue
        for feed in customer.feeds:
            yield customer, configuration.feeds[feed]

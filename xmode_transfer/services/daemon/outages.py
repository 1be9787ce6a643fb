"""What a worker has to know of outages, which only daemons can tell of."""

from xmode_transfer.domain.config import CatchUp, Configuration
from xmode_transfer.domain.schedule import outage
from xmode_transfer.services.workbench import Workbench


def makes_up(configuration: Configuration, name: str) -> bool:
    """Whether the customer is delivered all that an outage left. Of others a daemon may have passed periods
    over since they were looked at."""
    customer = configuration.customers.get(name)
    return customer is None or customer.catch_up is CatchUp.ALL


def is_held(bench: Workbench, configuration: Configuration, name: str) -> bool:
    """Whether a daemon has yet to say what is passed over: the customer was queued before an outage that is
    not over yet. The daemon that ends it calls the customer anew. Raises LedgerError."""
    if makes_up(configuration, name):
        return False
    ticked = bench.ledger.daemons.newest(1)
    return bool(ticked) and outage(ticked[0].ticked_at, bench.clock.now()) is not None

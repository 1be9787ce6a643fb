"""What several machines need besides: a ledger on PostgreSQL, and the queue in it."""

from dataclasses import replace
from importlib.util import find_spec

from xmode_transfer.adapters.ledger import Ledger
from xmode_transfer.adapters.secrets import ledger_url
from xmode_transfer.bootstrap.queue import LedgerQueue
from xmode_transfer.domain.config import Service
from xmode_transfer.domain.config.ledger_url import SQLITE, backend
from xmode_transfer.domain.errors import ConfigError
from xmode_transfer.ports import Fleet
from xmode_transfer.services.workbench import Sharing, Workbench

_INSTALL = "pip install 'xmode-transfer[cluster]'"


def check_installed() -> None:
    """Raises ConfigError without the extra `cluster`."""
    for module in ("psycopg", "procrastinate"):
        if find_spec(module) is None:
            raise ConfigError(
                f"Several machines share their work by means of {module}, which is not installed here.",
                hint=f"The operator has to run `{_INSTALL}` on this machine; or let one machine do it all: "
                "`xmode-transfer daemon` needs nothing besides.",
            )


def check(service: Service) -> None:
    """Raises ConfigError where the ledger or this installation is for one machine only."""
    check_installed()
    if backend(ledger_url(service.ledger)) == SQLITE:
        raise ConfigError(
            "The ledger lies in SQLite, which serves one machine. Several share one that lies in PostgreSQL.",
            hint="The operator has to move it (`xmode-transfer ledger copy postgresql://USER@HOST/DATABASE`) "
            "and to write that URL as `ledger:` into service.yaml; or let one machine do it all: "
            "`xmode-transfer daemon`.",
        )


def queue(service: Service) -> str:
    """Makes the queue in the ledger's database, if it is not there as it should be, and answers libpq's
    connection string for it, which may hold a password. Raises ConfigError, LedgerError."""
    from xmode_transfer.adapters.ledger.postgres import address
    from xmode_transfer.bootstrap import queue_schema

    url = ledger_url(service.ledger)
    queue_schema.make(url)
    return address.parse(url).conninfo


def fleet(ledger: Ledger) -> Fleet:
    """The fleet that is written in the ledger."""
    return ledger.fleet(LedgerQueue())


def shared(bench: Workbench, service: Service) -> Workbench:
    """The workbench of a worker, who sends large deliveries together with others."""
    shares = bench.ledger.shares(LedgerQueue())
    return replace(bench, sharing=Sharing(shares, service.cluster))

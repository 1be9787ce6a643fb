"""What several machines need besides: a ledger on PostgreSQL, and the queue in it."""

from importlib.util import find_spec

from xmode_transfer.config import Service
from xmode_transfer.config.ledger_url import SQLITE, backend
from xmode_transfer.config.secrets import ledger_url
from xmode_transfer.ledger import Ledger
from xmode_transfer.model.errors import ConfigError
from xmode_transfer.model.work_queue import WorkQueue

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


def queue(service: Service, ledger: Ledger) -> WorkQueue:
    """The queue of the fleet, which is made in the ledger's database if it is not there as it should be.
    Raises ConfigError, LedgerError."""
    from xmode_transfer.service import queue_schema

    queue_schema.make(ledger_url(service.ledger))
    return ledger.queue

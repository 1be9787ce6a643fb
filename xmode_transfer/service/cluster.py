"""Requirements of a fleet: a ledger in PostgreSQL, and the queue in it."""

from importlib.util import find_spec

from xmode_transfer.config import Service
from xmode_transfer.config.secrets import SQLITE, backend, ledger_url
from xmode_transfer.ledger import Ledger
from xmode_transfer.model.errors import ConfigError
from xmode_transfer.model.jobs import WorkQueue

_INSTALL = "pip install 'xmode-transfer[cluster]'"


def check_installed() -> None:
    """Raises ConfigError without the extra `cluster`."""
    for module in ("psycopg", "procrastinate"):
        if find_spec(module) is None:
            raise ConfigError(
                f"A fleet requires {module}, which is not installed.",
                hint=f"Run `{_INSTALL}` on this machine; or use a single machine: "
                "`xmode-transfer daemon` needs no extra.",
            )


def check(service: Service) -> None:
    """Raises ConfigError where the ledger or this installation is for one machine only."""
    check_installed()
    if backend(ledger_url(service.ledger)) == SQLITE:
        raise ConfigError(
            "The ledger is in SQLite, which supports one machine. A fleet needs a ledger in PostgreSQL.",
            hint="Copy it (`xmode-transfer ledger copy postgresql://USER@HOST/DATABASE`) "
            "and set that URL as `ledger:` in service.yaml; or use a single machine: "
            "`xmode-transfer daemon`.",
        )


def queue(service: Service, ledger: Ledger) -> WorkQueue:
    """Return the fleet's queue, creating or upgrading its tables in the ledger's database. Raises
    ConfigError, LedgerError."""
    from xmode_transfer.service import queue_schema

    queue_schema.make(ledger_url(service.ledger))
    return ledger.queue

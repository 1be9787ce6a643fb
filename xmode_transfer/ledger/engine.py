"""Which database a ledger's URL names, and opening it."""

from importlib import import_module

from xmode_transfer.ledger import processes
from xmode_transfer.ledger.database import Database
from xmode_transfer.ledger.sqlite import database as sqlite
from xmode_transfer.ledger.sqlite.database import BUSY_TIMEOUT_SECONDS, path_of
from xmode_transfer.model.errors import ConfigError

__all__ = ["BUSY_TIMEOUT_SECONDS", "Database", "connect", "is_postgres", "path_of"]

_POSTGRES = ("postgresql", "postgres")


def is_postgres(url: str) -> bool:
    """Whether a ledger's URL names a database on a PostgreSQL server."""
    return url.partition("://")[0] in _POSTGRES


def connect(url: str, *, create: bool, holder: str | None = None, waits: bool = True) -> Database:
    """Opens the database. A new SQLite file is made, readable by its owner only, if ``create`` allows it; a
    database on a server has to be there.

    ``holder`` is the name under which this process claims leases; ``waits``: for a server that is starting.
    Raises ConfigError for a URL that is none,
    and where the extra ``cluster`` is not installed.
    """
    if not is_postgres(url):
        return sqlite.connect(url, create=create)
    try:
        postgres = import_module("xmode_transfer.ledger.postgres.database")
    except ImportError as error:
        if error.name is not None and error.name.startswith("xmode_transfer"):
            raise
        raise ConfigError(
            f"ledger: a ledger on PostgreSQL needs a part that is not installed ({error}).",
            hint="Install it with `pip install 'xmode-transfer[cluster]'`, or write sqlite:///var/ledger.db.",
        ) from error
    opened = postgres.connect(url, holder=holder or processes.this_process(), waits=waits)
    assert isinstance(opened, Database)
    return opened

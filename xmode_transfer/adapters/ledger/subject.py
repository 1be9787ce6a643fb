"""What the subjects of a ledger share: how each reads, writes, and writes under a lease."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from sqlalchemy import Connection, Select

from xmode_transfer.adapters.ledger import leases
from xmode_transfer.adapters.ledger.database import Database
from xmode_transfer.adapters.ledger.statements import Statements
from xmode_transfer.adapters.ledger.writer import GroupCommit
from xmode_transfer.domain.errors import LedgerError
from xmode_transfer.domain.records import Lease

if TYPE_CHECKING:
    from xmode_transfer.ports import Clock

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Store:
    """A database, and the one thread that writes to it."""

    database: Database
    writer: GroupCommit
    statements: Statements
    clock: "Clock"


class Subject:
    """The queries about one subject. Methods that take a ``lease`` raise LeaseLost, and write nothing, when
    the lease has been taken over."""

    def __init__(self, store: Store) -> None:
        self._database = store.database
        self._writer = store.writer
        self._statements = store.statements
        self._clock = store.clock

    def _rows(self, query: Select[Any]) -> Sequence[Any]:
        return self._database.read(lambda connection: connection.execute(query).all())

    def _read(self, action: Callable[[Connection], T]) -> T:
        return self._database.read(action)

    def _write(self, action: Callable[[Connection], T]) -> T:
        """What the action writes must be there once also where it is run twice."""
        return self._writer.call(action)

    def _fenced(self, lease: Lease, action: Callable[[Connection], T]) -> T:
        """As ``_write``, if the lease is still ours, and stays so until the commit."""

        def fenced(connection: Connection) -> T:
            leases.check(connection, lease)
            return action(connection)

        return self._writer.call(fenced)


def unknown(what: str, name: str) -> LedgerError:
    return LedgerError(
        f"The ledger knows no {what} {name}.",
        hint="Nothing was written. Either the ledger was replaced by an older copy while we ran, or this is "
        "a defect.",
    )

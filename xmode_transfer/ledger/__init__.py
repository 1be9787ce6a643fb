"""The durable record in an SQL database (docs/ledger.md)."""

from typing import TYPE_CHECKING

from xmode_transfer.ledger import leases, schema, snapshot
from xmode_transfer.ledger.checking import Judgements
from xmode_transfer.ledger.customer_formats import CustomerTables, NativeManifests
from xmode_transfer.ledger.database import Database
from xmode_transfer.ledger.deliveries import Deliveries, Runs, Uploads
from xmode_transfer.ledger.keys import Keys, Operations
from xmode_transfer.ledger.leases import Leases
from xmode_transfer.ledger.objects import Objects
from xmode_transfer.ledger.recalls import Recalls
from xmode_transfer.ledger.tables import SCHEMA_VERSION
from xmode_transfer.ledger.watching import (
    Alerts,
    Challenges,
    Checks,
    Daemons,
    Discrepancies,
    Notices,
    Sources,
)
from xmode_transfer.ledger.work_queue import ProcrastinateQueue
from xmode_transfer.ledger.writer import GroupCommit
from xmode_transfer.model.errors import LedgerMissing
from xmode_transfer.model.health import Snapshot

if TYPE_CHECKING:
    from xmode_transfer.model.process import Clock


def open_ledger(url: str, clock: "Clock", *, holder: str | None = None, waits: bool = True) -> "Ledger":
    """Open the ledger of that URL, and create its schema or bring it up to date.

    ``?timeout=5`` waits so many seconds for another process's lock instead of 30. ``holder`` (default:
    ``database.this_process()``) is the name under which this process claims leases; other machines notice its
    death at once for this name only. With ``waits``, wait for a server that is starting. Raises ConfigError
    for an invalid URL, and LedgerErrors.
    """
    database = schema.connect(url, create=True, holder=holder, waits=waits)
    try:
        schema.prepare(database)
    except BaseException:
        database.close()
        raise
    return Ledger(database, clock)


def open_existing(url: str, clock: "Clock") -> "Ledger | None":
    """Open a ledger to read from it, without creating or migrating it; return None without a current one."""
    try:
        database = schema.connect(url, create=False, waits=False)
    except LedgerMissing:
        return None
    try:
        is_current = database.read(lambda c: schema.version_of(c, database)) == SCHEMA_VERSION
    except BaseException:
        database.close()
        raise
    if not is_current:
        database.close()
        return None
    return Ledger(database, clock)


class Ledger:
    """The durable record: what a method has acknowledged survives kill -9 and power loss. Thread-safe.

    A method that raises a LedgerError has written nothing. Those that take a ``lease`` raise LeaseLost if it
    was taken over.
    """

    def __init__(self, database: Database, clock: "Clock") -> None:
        self._database = database
        writer = self._writer = GroupCommit(database, leases.check)
        self.leases = Leases(database, writer, clock)
        self.deliveries = Deliveries(database, writer)
        self.objects = Objects(database, writer)
        self.keys = Keys(database, writer)
        self.runs = Runs(database, writer)
        self.uploads = Uploads(database, writer)
        self.operations = Operations(database, writer)
        self.checks = Checks(database, writer)
        self.challenges = Challenges(database, writer)
        self.sources = Sources(database, writer)
        self.discrepancies = Discrepancies(database, writer)
        self.alerts = Alerts(database, writer)
        self.notices = Notices(database, writer)
        self.judgements = Judgements(database, writer)
        self.recalls = Recalls(database, writer)
        self.native = NativeManifests(database, writer)
        self.tables = CustomerTables(database, writer)
        self.daemons = Daemons(database, writer)
        self.queue = ProcrastinateQueue(database, writer, clock)

    def snapshot(self) -> Snapshot:
        """Return every subscription's state in one view. Its cost does not grow with the history."""
        return snapshot.snapshot(self._database)

    def prove_writable(self) -> None:
        """Raise what any write would raise now. Commits to the disk, and changes nothing."""
        self._writer.call(lambda c: leases.try_writing(c, self._database))

    def hurry(self) -> None:
        """Stop waiting for a ledger that is away: every method, also one that waits in another thread, makes
        one last attempt and returns, or raises LedgerUnreachable, within seconds. Idempotent."""
        self._database.hurry()

    def close(self) -> None:
        """Write what is queued, and close the database. Idempotent."""
        self._database.hurry()
        self._writer.close()
        self._database.close()

"""Our durable record in an SQL database (docs/ledger.md)."""

from typing import TYPE_CHECKING

from xmode_transfer.ledger import leases, schema, snapshot
from xmode_transfer.ledger.database import Database
from xmode_transfer.ledger.deliveries import Deliveries, Runs, Uploads
from xmode_transfer.ledger.keys import Keys
from xmode_transfer.ledger.leases import Leases
from xmode_transfer.ledger.objects import Objects
from xmode_transfer.ledger.operations import Operations
from xmode_transfer.ledger.schema import connect
from xmode_transfer.ledger.watching import Alerts, Checks, Daemons, Discrepancies, Notices, Sources
from xmode_transfer.ledger.work_queue import ProcrastinateQueue
from xmode_transfer.ledger.writer import GroupCommit
from xmode_transfer.model.health import Snapshot

if TYPE_CHECKING:
    from xmode_transfer.model.process import Clock


def open_ledger(
    url: str, clock: "Clock", *, create: bool = True, holder: str | None = None, waits: bool = True
) -> "Ledger":
    """Opens the ledger at a URL such as ``sqlite:////var/lib/xmode/ledger.db`` or
    ``postgresql://xmode@db/xmode`` and brings its schema up to date.

    A relative path is relative to the working directory. ``?timeout=5`` waits that many seconds for another
    process's lock instead of 30. Without ``create`` the ledger must be there already. ``holder`` is the name
    under which this process will claim leases (``processes.this_process()`` when left out): of this one alone
    another machine can see at once that it has died. Unless ``waits``, a server that says that it is starting
    is as one that is not there. Raises ConfigError for a URL that is none, LedgerTooNew
    when a later version made the ledger, and the other LedgerErrors.
    """
    database = connect(url, create=create, holder=holder, waits=waits)
    try:
        schema.prepare(database, create=create)
    except BaseException:
        database.close()
        raise
    return Ledger(database, clock)


class Ledger:
    """Our durable record. What a method has acknowledged survives kill -9 and power loss; ``open_ledger``
    makes it.

    Methods that take a ``lease`` raise LeaseLost, and write nothing, when the lease has been taken over.
    Every method may raise LedgerLocked, LedgerReadOnly, LedgerFull or LedgerCorrupt; then nothing of that
    call was written. Thread-safe.
    """

    def __init__(self, database: Database, clock: "Clock") -> None:
        self._database = database
        self._clock = clock
        writer = self._writer = GroupCommit(database, leases.check)
        self.leases = Leases(database, writer, clock)
        self.deliveries = Deliveries(database, writer)
        self.objects = Objects(database, writer)
        self.keys = Keys(database, writer)
        self.runs = Runs(database, writer)
        self.uploads = Uploads(database, writer)
        self.operations = Operations(database, writer)
        self.checks = Checks(database, writer)
        self.sources = Sources(database, writer)
        self.discrepancies = Discrepancies(database, writer)
        self.alerts = Alerts(database, writer)
        self.notices = Notices(database, writer)
        self.daemons = Daemons(database, writer)
        self.queue = ProcrastinateQueue(database, writer, clock)
        """The queue of a fleet, on PostgreSQL."""

    def snapshot(self) -> Snapshot:
        """How every subscription stands, in one consistent view. Costs by the number of subscriptions and of
        what is open, not by the length of the history."""
        return snapshot.snapshot(self._database)

    # --- The ledger itself

    def prove_writable(self) -> None:
        """Raises what any write would raise now. Commits to the disk, and leaves nothing behind."""
        self._writer.call(lambda c: leases.write_and_take_back(c, self._database))

    def hurry(self) -> None:
        """The process is to end soon: from now on nobody waits for a ledger that is away. Every method goes
        on with one last attempt, also in other threads and where it waits already, and answers, or raises
        LedgerUnreachable, within seconds. Idempotent; waits for nothing."""
        self._database.hurry()

    def close(self) -> None:
        """Flushes what is queued. Idempotent."""
        self._database.hurry()
        self._writer.close()
        self._database.close()

"""The ledger: our durable record, by subjects."""

from collections.abc import Iterable
from typing import TYPE_CHECKING

from xmode_transfer.adapters.ledger import alerts, leases, schema, survey
from xmode_transfer.adapters.ledger.checks import Checks
from xmode_transfer.adapters.ledger.daemons import Daemons
from xmode_transfer.adapters.ledger.database import Database
from xmode_transfer.adapters.ledger.deliveries import Deliveries
from xmode_transfer.adapters.ledger.discrepancies import Discrepancies
from xmode_transfer.adapters.ledger.engine import connect
from xmode_transfer.adapters.ledger.keys import Keys
from xmode_transfer.adapters.ledger.leases import Leases
from xmode_transfer.adapters.ledger.notices import Notices
from xmode_transfer.adapters.ledger.objects import Objects
from xmode_transfer.adapters.ledger.operations import Operations
from xmode_transfer.adapters.ledger.runs import Runs
from xmode_transfer.adapters.ledger.sources import Sources
from xmode_transfer.adapters.ledger.statements import Statements
from xmode_transfer.adapters.ledger.subject import Store, Subject
from xmode_transfer.adapters.ledger.uploads import Uploads
from xmode_transfer.adapters.ledger.work_queue import ProcrastinateQueue
from xmode_transfer.adapters.ledger.writer import GroupCommit
from xmode_transfer.domain.alerts import Alert
from xmode_transfer.domain.looks import Survey
from xmode_transfer.domain.records import Lease

if TYPE_CHECKING:
    from xmode_transfer.ports import Clock


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
        self._writer = GroupCommit(database, leases.check)
        self._clock = clock
        store = Store(database, self._writer, Statements(database), clock)
        self.leases = Leases(database, self._writer, clock)
        self.deliveries = Deliveries(store)
        self.objects = Objects(store)
        self.keys = Keys(store)
        self.runs = Runs(store)
        self.uploads = Uploads(store)
        self.operations = Operations(store)
        self.checks = Checks(store)
        self.sources = Sources(store)
        self.discrepancies = Discrepancies(store)
        self.alerts = Alerts(store)
        self.notices = Notices(store)
        self.daemons = Daemons(store)
        self.queue = ProcrastinateQueue(store)
        """The queue of a fleet, on PostgreSQL."""

    def survey(self) -> Survey:
        """How every subscription stands, in one consistent view. Costs by the number of subscriptions and of
        what is open, not by the length of the history."""
        return survey.survey(self._database)

    # --- The ledger itself

    def check(self) -> list[str]:
        """What the database finds wrong with itself, a line each; empty when all is well. Reads the whole
        ledger."""
        return self._database.problems()

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


class Alerts(Subject):
    """Which causes are alerts, and who was notified."""

    def known(self) -> list[Alert]:
        """All that are remembered, in the order of fingerprints."""
        return self._read(alerts.known)

    def record(self, lease: Lease, changed: Iterable[Alert] = (), forgotten: Iterable[str] = ()) -> None:
        """Adds or overwrites alerts; forgets those of these fingerprints. All of it or nothing."""
        news, gone = list(changed), list(forgotten)
        self._fenced(lease, lambda c: alerts.write(c, self._database, news, gone))

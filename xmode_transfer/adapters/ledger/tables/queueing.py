"""What the queue of a fleet keeps beside Procrastinate's own tables: what each customer has had, what its
last job came to, and the workers."""

from sqlalchemy import Boolean, Column, Double, Integer, Table

from xmode_transfer.adapters.ledger.tables.base import TEXT, Rows, Time, metadata
from xmode_transfer.domain.work_queue import QueueEntry, WorkerRecord

# Who is queued or running is not here: Procrastinate's jobs say so.
ENTRY = Rows(QueueEntry, elsewhere={"customer", "state", "holder"})
WORKER = Rows(WorkerRecord, elsewhere={"holder", "gone"})

queue_customers = Table(
    "queue_customers",
    metadata,
    Column("customer", TEXT, primary_key=True),
    Column("weight", Integer, nullable=False),
    Column("spent", Double, nullable=False),
    Column("backfill", Boolean, nullable=False),
    Column("serving_at", Time()),
    Column("reread_at", Time()),
    *ENTRY.columns(),
    sqlite_with_rowid=False,
)

# One row: the virtual time.
queue_clock = Table(
    "queue_clock",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("clock", Double, nullable=False),
    sqlite_with_rowid=False,
)

# One life of a worker each.
workers = Table(
    "workers",
    metadata,
    Column("holder", TEXT, primary_key=True),
    *WORKER.columns(),
    sqlite_with_rowid=False,
)

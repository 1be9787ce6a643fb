"""The tables of the ledger; docs/ledger.md says what each column means.

What is written here is the schema of ``SCHEMA_VERSION``; the migrations lead to it from the first release's
(a test compares the two). Times are text, ISO 8601 in UTC with microseconds and ``Z``: it sorts as time does,
reads well in a database shell, and becomes a datetime in a fifth of the time that a number takes. Text sorts
by code point in every database.
"""

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Double,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    Integer,
    MetaData,
    PrimaryKeyConstraint,
    Table,
    UniqueConstraint,
    text,
)
from sqlalchemy.schema import SchemaItem

from xmode_transfer.ledger.tables.base import ROW_NUMBER, TEXT, Notified, Rows, Time, metadata
from xmode_transfer.model.findings import AccessReport, Finding, Leftover
from xmode_transfer.model.health import Alert, Notice, SourceScan
from xmode_transfer.model.jobs import QueueEntry
from xmode_transfer.model.process import DaemonRecord, WorkerRecord
from xmode_transfer.model.records import (
    Capabilities,
    Delivery,
    MissingObject,
    MultipartUpload,
    PlannedObject,
    Receipt,
    Run,
    UploadedPart,
)
from xmode_transfer.model.upkeep import Discrepancy, OperationRecord, Removal

DELIVERY = Rows(Delivery, elsewhere=("customer", "feed", "period", "revision"))
RUN = Rows(Run)
OBJECT = Rows(PlannedObject)
RECEIPT = Rows(Receipt, elsewhere=("removed", "superseded"))
MISSING = Rows(MissingObject)
UPLOAD = Rows(MultipartUpload, elsewhere=("parts",))
PART = Rows(UploadedPart)
CAPABILITIES = Rows(Capabilities)
CHECK = Rows(AccessReport, elsewhere=("findings", "left"))
FINDING = Rows(Finding, elsewhere=("fix",))
LEFTOVER = Rows(Leftover)
ACT = Rows(OperationRecord)
REMOVAL = Rows(Removal, elsewhere=("feed", "period"))
DAEMON = Rows(DaemonRecord)
LOOK = Rows(SourceScan)
DISCREPANCY = Rows(Discrepancy)
NOTICE = Rows(Notice)
ALERT = Rows(Alert, elsewhere=("notifications",))
# Who is queued or running is not in our tables: Procrastinate's jobs say so.
ENTRY = Rows(QueueEntry, elsewhere=("customer", "state", "holder"))
WORKER = Rows(WorkerRecord, elsewhere=("holder", "gone"))


def _sorted_table(name: str, *parts: SchemaItem) -> Table:
    """A table that SQLite, too, stores in the order of its primary key."""
    return Table(name, metadata, *parts, sqlite_with_rowid=False)


# A period of one customer's feed. Its number stands for the three names in the big tables.
periods = Table(
    "periods",
    metadata,
    Column("id", ROW_NUMBER, primary_key=True),
    Column("customer", TEXT, nullable=False),
    Column("feed", TEXT, nullable=False),
    Column("period", TEXT, nullable=False),
    UniqueConstraint("customer", "feed", "period"),
)

deliveries = _sorted_table(
    "deliveries",
    Column("period_id", ROW_NUMBER, ForeignKey("periods.id"), nullable=False),
    Column("revision", Integer, nullable=False),
    *DELIVERY.columns(),
    PrimaryKeyConstraint("period_id", "revision"),
    UniqueConstraint("id"),
    Index(None, "status", "updated_at"),
    Index(None, "updated_at"),
    Index(
        None,
        "period_id",
        sqlite_where=text("not_attested IS NOT NULL"),
        postgresql_where=text("not_attested IS NOT NULL"),
    ),
)

runs = _sorted_table(
    "runs",
    *RUN.columns(),
    PrimaryKeyConstraint("id"),
    ForeignKeyConstraint(["delivery_id"], ["deliveries.id"]),
    Index(None, "delivery_id"),
    Index(None, "started_at"),
)

# The plan. It is stored in the order in which it is read: one delivery's names.
objects = _sorted_table(
    "objects",
    Column("period_id", ROW_NUMBER, nullable=False),
    Column("revision", Integer, nullable=False),
    *OBJECT.columns(),
    PrimaryKeyConstraint("period_id", "revision", "name"),
    ForeignKeyConstraint(["period_id", "revision"], ["deliveries.period_id", "deliveries.revision"]),
)

# The proofs. In the primary key the name comes before the revision, so that what a whole period has received
# is one straight walk through this table, however many revisions (a drop folder's batches) it came in.
receipts = _sorted_table(
    "receipts",
    Column("period_id", ROW_NUMBER, nullable=False),
    Column("revision", Integer, nullable=False),
    *RECEIPT.columns(),
    PrimaryKeyConstraint("period_id", "name", "revision"),
    ForeignKeyConstraint(
        ["period_id", "revision", "name"], ["objects.period_id", "objects.revision", "objects.name"]
    ),
)

# What was delivered, and is not in a revision's manifest because it is gone.
missing = _sorted_table(
    "missing",
    Column("period_id", ROW_NUMBER, nullable=False),
    Column("revision", Integer, nullable=False),
    *MISSING.columns(),
    PrimaryKeyConstraint("period_id", "revision", "name"),
    ForeignKeyConstraint(["period_id", "revision"], ["deliveries.period_id", "deliveries.revision"]),
)

# A lease that was given back keeps its row, without a holder, so that its generation never starts again.
leases = _sorted_table(
    "leases",
    Column("name", TEXT, primary_key=True),
    Column("generation", BigInteger, nullable=False),
    Column("holder", TEXT),
    Column("claimed_at", TEXT),
    Column("expires_at", TEXT),
    Column("presence", TEXT),
)

uploads = Table(
    "uploads",
    metadata,
    Column("id", ROW_NUMBER, primary_key=True),
    *UPLOAD.columns(),
    UniqueConstraint("upload_id"),
    ForeignKeyConstraint(["delivery_id"], ["deliveries.id"]),
    Index(None, "delivery_id"),
    Index(None, "customer"),
    Index(None, "status"),
)

upload_parts = _sorted_table(
    "upload_parts",
    Column("upload", ROW_NUMBER, ForeignKey("uploads.id"), nullable=False),
    *PART.columns(),
    PrimaryKeyConstraint("upload", "number"),
)

capabilities = _sorted_table(
    "capabilities",
    Column("customer", TEXT, primary_key=True),
    *CAPABILITIES.columns(),
)

access_checks = Table(
    "access_checks",
    metadata,
    Column("id", ROW_NUMBER, primary_key=True),
    *CHECK.columns(),
    Column("outcome", TEXT, nullable=False),
    Index(None, "customer", "checked_at"),
)

access_findings = _sorted_table(
    "access_findings",
    Column("check_id", ROW_NUMBER, ForeignKey("access_checks.id"), nullable=False),
    Column("number", Integer, nullable=False),
    *FINDING.columns(),
    PrimaryKeyConstraint("check_id", "number"),
)

access_leftovers = _sorted_table(
    "access_leftovers",
    Column("check_id", ROW_NUMBER, ForeignKey("access_checks.id"), nullable=False),
    Column("number", Integer, nullable=False),
    *LEFTOVER.columns(),
    PrimaryKeyConstraint("check_id", "number"),
)

acts = _sorted_table(
    "acts",
    *ACT.columns(),
    PrimaryKeyConstraint("id"),
    Index(None, "customer", "started_at"),
)

# Stored by what is asked for most: whether a key of a period was removed.
removals = _sorted_table(
    "removals",
    Column("period_id", ROW_NUMBER, ForeignKey("periods.id"), nullable=False),
    Column("act_id", TEXT, ForeignKey("acts.id"), nullable=False),
    *REMOVAL.columns(),
    PrimaryKeyConstraint("period_id", "key", "act_id"),
)

# One life of a daemon each.
daemons = _sorted_table(
    "daemons",
    *DAEMON.columns(),
    PrimaryKeyConstraint("holder"),
    Index(None, "ticked_at"),
)

visits = _sorted_table(
    "visits",
    Column("customer", TEXT, nullable=False),
    Column("work", TEXT, nullable=False),
    Column("served_at", Time, nullable=False),
    PrimaryKeyConstraint("customer", "work"),
)

passed_over = _sorted_table(
    "passed_over",
    Column("customer", TEXT, nullable=False),
    Column("feed", TEXT, nullable=False),
    Column("period", TEXT, nullable=False),
    Column("marker", TEXT, nullable=False),
    Column("passed_at", Time, nullable=False),
    PrimaryKeyConstraint("customer", "feed", "period"),
)

# The last look at a feed's source for a customer, whoever looked.
looks = _sorted_table(
    "looks",
    *LOOK.columns(),
    PrimaryKeyConstraint("customer", "feed"),
)

# What the last verification of a period found that is not as it was delivered.
discrepancies = _sorted_table(
    "discrepancies",
    Column("customer", TEXT, nullable=False),
    *DISCREPANCY.columns(),
    PrimaryKeyConstraint("customer", "feed", "period", "flaw"),
)

# One row for each cause that is an alert; kept for a while after it is resolved.
alerts = _sorted_table(
    "alerts",
    *ALERT.columns(),
    Column("notifications", Notified, nullable=False),
    PrimaryKeyConstraint("fingerprint"),
)

# What customers are told in their own buckets; a row before the object.
notices = _sorted_table(
    "notices",
    *NOTICE.columns(),
    PrimaryKeyConstraint("customer", "feed", "period", "kind", "revision"),
    Index(None, "status"),
)

# What the queue of a fleet keeps beside Procrastinate's own tables: what each customer has had, and what its
# last job came to.
queue_customers = _sorted_table(
    "queue_customers",
    Column("customer", TEXT, primary_key=True),
    Column("weight", Integer, nullable=False),
    Column("spent", Double, nullable=False),
    Column("backfill", Boolean, nullable=False),
    Column("serving_at", Time),
    Column("reread_at", Time),
    *ENTRY.columns(),
)

# One row: the virtual time.
queue_clock = _sorted_table(
    "queue_clock",
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("clock", Double, nullable=False),
)

# One life of a worker each.
workers = _sorted_table(
    "workers",
    Column("holder", TEXT, primary_key=True),
    *WORKER.columns(),
)

# Where a plan waits, out of everybody's way, while the source is still being listed: each connection has its
# own.
staged_objects = Table(
    "staged_objects",
    MetaData(),
    *OBJECT.columns(),
    PrimaryKeyConstraint("name"),
    prefixes=["TEMPORARY"],
    sqlite_with_rowid=False,
)

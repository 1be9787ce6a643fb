"""The tables of the ledger; docs/ledger.md says what each column means.

What is written here is the schema of ``SCHEMA_VERSION``; the migrations lead to it from the first release's
(a test compares the two). Times are text, ISO 8601 in UTC with microseconds and ``Z``: it sorts as time does,
reads well in a database shell, and becomes a datetime in a fifth of the time that a number takes. Text sorts
by code point in every database.
"""

from sqlalchemy import (
    BigInteger,
    Column,
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

from xmode_transfer.adapters.ledger.tables.base import ROW_NUMBER, TEXT, Notified, Rows, Time, metadata
from xmode_transfer.adapters.ledger.tables.fleet import fleet as fleet
from xmode_transfer.adapters.ledger.tables.fleet import turns as turns
from xmode_transfer.adapters.ledger.tables.fleet import workers as workers
from xmode_transfer.domain.acts import Act, Removal
from xmode_transfer.domain.alerts import Alert
from xmode_transfer.domain.daemons import DaemonRecord
from xmode_transfer.domain.findings import AccessReport, Finding, Leftover
from xmode_transfer.domain.looks import Look
from xmode_transfer.domain.notices import Notice
from xmode_transfer.domain.records import (
    Capabilities,
    Delivery,
    MissingObject,
    MultipartUpload,
    PlannedObject,
    Receipt,
    Run,
    UploadedPart,
)
from xmode_transfer.domain.verification import Discrepancy

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
ACT = Rows(Act)
REMOVAL = Rows(Removal, elsewhere=("feed", "period"))
DAEMON = Rows(DaemonRecord)
LOOK = Rows(Look)
DISCREPANCY = Rows(Discrepancy)
NOTICE = Rows(Notice)
ALERT = Rows(Alert, elsewhere=("notifications",))

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

deliveries = Table(
    "deliveries",
    metadata,
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
    sqlite_with_rowid=False,
)

runs = Table(
    "runs",
    metadata,
    *RUN.columns(),
    PrimaryKeyConstraint("id"),
    ForeignKeyConstraint(["delivery_id"], ["deliveries.id"]),
    Index(None, "delivery_id"),
    Index(None, "started_at"),
    sqlite_with_rowid=False,
)

# The plan. It is stored in the order in which it is read: one delivery's names.
objects = Table(
    "objects",
    metadata,
    Column("period_id", ROW_NUMBER, nullable=False),
    Column("revision", Integer, nullable=False),
    *OBJECT.columns(),
    PrimaryKeyConstraint("period_id", "revision", "name"),
    ForeignKeyConstraint(["period_id", "revision"], ["deliveries.period_id", "deliveries.revision"]),
    sqlite_with_rowid=False,
)

# The proofs. In the primary key the name comes before the revision, so that what a whole period has received
# is one straight walk through this table, however many revisions (a drop folder's batches) it came in.
receipts = Table(
    "receipts",
    metadata,
    Column("period_id", ROW_NUMBER, nullable=False),
    Column("revision", Integer, nullable=False),
    *RECEIPT.columns(),
    PrimaryKeyConstraint("period_id", "name", "revision"),
    ForeignKeyConstraint(
        ["period_id", "revision", "name"], ["objects.period_id", "objects.revision", "objects.name"]
    ),
    sqlite_with_rowid=False,
)

# What was delivered, and is not in a revision's manifest because it is gone.
missing = Table(
    "missing",
    metadata,
    Column("period_id", ROW_NUMBER, nullable=False),
    Column("revision", Integer, nullable=False),
    *MISSING.columns(),
    PrimaryKeyConstraint("period_id", "revision", "name"),
    ForeignKeyConstraint(["period_id", "revision"], ["deliveries.period_id", "deliveries.revision"]),
    sqlite_with_rowid=False,
)

# A lease that was given back keeps its row, without a holder, so that its generation never starts again.
leases = Table(
    "leases",
    metadata,
    Column("name", TEXT, primary_key=True),
    Column("generation", BigInteger, nullable=False),
    Column("holder", TEXT),
    Column("claimed_at", TEXT),
    Column("expires_at", TEXT),
    Column("presence", TEXT),
    sqlite_with_rowid=False,
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

upload_parts = Table(
    "upload_parts",
    metadata,
    Column("upload", ROW_NUMBER, ForeignKey("uploads.id"), nullable=False),
    *PART.columns(),
    PrimaryKeyConstraint("upload", "number"),
    sqlite_with_rowid=False,
)

capabilities = Table(
    "capabilities",
    metadata,
    Column("customer", TEXT, primary_key=True),
    *CAPABILITIES.columns(),
    sqlite_with_rowid=False,
)

access_checks = Table(
    "access_checks",
    metadata,
    Column("id", ROW_NUMBER, primary_key=True),
    *CHECK.columns(),
    Column("outcome", TEXT, nullable=False),
    Index(None, "customer", "checked_at"),
)

access_findings = Table(
    "access_findings",
    metadata,
    Column("check_id", ROW_NUMBER, ForeignKey("access_checks.id"), nullable=False),
    Column("number", Integer, nullable=False),
    *FINDING.columns(),
    PrimaryKeyConstraint("check_id", "number"),
    sqlite_with_rowid=False,
)

access_leftovers = Table(
    "access_leftovers",
    metadata,
    Column("check_id", ROW_NUMBER, ForeignKey("access_checks.id"), nullable=False),
    Column("number", Integer, nullable=False),
    *LEFTOVER.columns(),
    PrimaryKeyConstraint("check_id", "number"),
    sqlite_with_rowid=False,
)

acts = Table(
    "acts",
    metadata,
    *ACT.columns(),
    PrimaryKeyConstraint("id"),
    Index(None, "customer", "started_at"),
    sqlite_with_rowid=False,
)

# Stored by what is asked for most: whether a key of a period was removed.
removals = Table(
    "removals",
    metadata,
    Column("period_id", ROW_NUMBER, ForeignKey("periods.id"), nullable=False),
    Column("act_id", TEXT, ForeignKey("acts.id"), nullable=False),
    *REMOVAL.columns(),
    PrimaryKeyConstraint("period_id", "key", "act_id"),
    sqlite_with_rowid=False,
)

# One life of a daemon each.
daemons = Table(
    "daemons",
    metadata,
    *DAEMON.columns(),
    PrimaryKeyConstraint("holder"),
    Index(None, "ticked_at"),
    sqlite_with_rowid=False,
)

visits = Table(
    "visits",
    metadata,
    Column("customer", TEXT, nullable=False),
    Column("work", TEXT, nullable=False),
    Column("served_at", Time, nullable=False),
    PrimaryKeyConstraint("customer", "work"),
    sqlite_with_rowid=False,
)

passed_over = Table(
    "passed_over",
    metadata,
    Column("customer", TEXT, nullable=False),
    Column("feed", TEXT, nullable=False),
    Column("period", TEXT, nullable=False),
    Column("marker", TEXT, nullable=False),
    Column("passed_at", Time, nullable=False),
    PrimaryKeyConstraint("customer", "feed", "period"),
    sqlite_with_rowid=False,
)

# The last look at a feed's source for a customer, whoever looked.
looks = Table(
    "looks",
    metadata,
    *LOOK.columns(),
    PrimaryKeyConstraint("customer", "feed"),
    sqlite_with_rowid=False,
)

# What the last verification of a period found that is not as it was delivered.
discrepancies = Table(
    "discrepancies",
    metadata,
    Column("customer", TEXT, nullable=False),
    *DISCREPANCY.columns(),
    PrimaryKeyConstraint("customer", "feed", "period", "flaw"),
    sqlite_with_rowid=False,
)

# One row for each cause that is an alert; kept for a while after it is resolved.
alerts = Table(
    "alerts",
    metadata,
    *ALERT.columns(),
    Column("notifications", Notified, nullable=False),
    PrimaryKeyConstraint("fingerprint"),
    sqlite_with_rowid=False,
)

# What customers are told in their own buckets; a row before the object.
notices = Table(
    "notices",
    metadata,
    *NOTICE.columns(),
    PrimaryKeyConstraint("customer", "feed", "period", "kind", "revision"),
    Index(None, "status"),
    sqlite_with_rowid=False,
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

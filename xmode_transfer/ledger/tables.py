"""The tables of the ledger, and the mapping of their rows to records. docs/ledger.md describes each column.

Times are text, ISO 8601 in UTC with microseconds and ``Z``: it sorts by time, is readable, and becomes a
datetime in a fifth of the time that a number takes. Text sorts by code point in every database.
"""

import sqlalchemy as sa
from sqlalchemy import Column, ForeignKey, ForeignKeyConstraint, Index, PrimaryKeyConstraint, Table
from sqlalchemy.schema import SchemaItem

from xmode_transfer.ledger.rows import ROW_NUMBER, TEXT, Rows, Time
from xmode_transfer.model.checks import Judgement, Release
from xmode_transfer.model.delta import DeltaTable, TableCommit, TableFile
from xmode_transfer.model.findings import AccessReport, Challenge, Finding, Leftover
from xmode_transfer.model.health import Alert, Notice, SourceScan
from xmode_transfer.model.jobs import QueueEntry
from xmode_transfer.model.native import NativeManifest
from xmode_transfer.model.process import DaemonRecord, WorkerRecord
from xmode_transfer.model.recall import Recall, RecallProgress, Withdrawn
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

SCHEMA_VERSION = "0003"

metadata = sa.MetaData(
    naming_convention={
        "pk": "pk_%(table_name)s",
        "fk": "fk_%(table_name)s_%(referred_table_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    }
)

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
OPERATION = Rows(OperationRecord)
REMOVAL = Rows(Removal, elsewhere=("feed", "period"))
DAEMON = Rows(DaemonRecord)
SCAN = Rows(SourceScan)
DISCREPANCY = Rows(Discrepancy)
NOTICE = Rows(Notice)
ALERT = Rows(Alert)
JUDGEMENT = Rows(Judgement)
RELEASE = Rows(Release)
RECALL = Rows(Recall)
WITHDRAWN = Rows(Withdrawn)
RECALL_PROGRESS = Rows(RecallProgress)
CHALLENGE = Rows(Challenge)
NATIVE = Rows(NativeManifest, elsewhere=("feed", "period"))
TABLE = Rows(DeltaTable)
TABLE_FILE = Rows(TableFile, elsewhere=("period",))
TABLE_COMMIT = Rows(TableCommit)
# Procrastinate's jobs have the state and the holder.
ENTRY = Rows(QueueEntry, elsewhere=("customer", "state", "holder"))
WORKER = Rows(WorkerRecord, elsewhere=("holder", "gone"))


def _sorted_table(name: str, *parts: SchemaItem) -> Table:
    """A table that SQLite, too, stores in the order of its primary key."""
    return Table(name, metadata, *parts, sqlite_with_rowid=False)


def _texts(*names: str) -> list[Column[str]]:
    return [Column(name, TEXT, nullable=False) for name in names]


def _of_delivery() -> list[Column[int]]:
    return [Column("period_id", ROW_NUMBER, nullable=False), Column("revision", sa.Integer, nullable=False)]


_NAMES_DELIVERY = (["period_id", "revision"], ["deliveries.period_id", "deliveries.revision"])

# The number of a period of one customer's feed replaces the three names in the big tables.
periods = Table(
    "periods",
    metadata,
    Column("id", ROW_NUMBER, primary_key=True),
    *_texts("customer", "feed", "period"),
    sa.UniqueConstraint("customer", "feed", "period"),
    Index(None, "feed", "period"),
)

_is_not_attested = sa.text("not_attested IS NOT NULL")
deliveries = _sorted_table(
    "deliveries",
    Column("period_id", ROW_NUMBER, ForeignKey("periods.id"), nullable=False),
    Column("revision", sa.Integer, nullable=False),
    *DELIVERY.columns(),
    PrimaryKeyConstraint("period_id", "revision"),
    sa.UniqueConstraint("id"),
    Index(None, "status", "updated_at"),
    Index(None, "updated_at"),
    Index(None, "period_id", sqlite_where=_is_not_attested, postgresql_where=_is_not_attested),
)

runs = _sorted_table(
    "runs",
    *RUN.columns(),
    PrimaryKeyConstraint("id"),
    ForeignKeyConstraint(["delivery_id"], ["deliveries.id"]),
    Index(None, "delivery_id"),
    Index(None, "started_at"),
)

objects = _sorted_table(
    "objects",
    *_of_delivery(),
    *OBJECT.columns(),
    PrimaryKeyConstraint("period_id", "revision", "name"),
    ForeignKeyConstraint(*_NAMES_DELIVERY),
)

# The name precedes the revision, so that everything that a period has received is one sequential read, also
# of a drop folder, whose every batch is a revision.
receipts = _sorted_table(
    "receipts",
    *_of_delivery(),
    *RECEIPT.columns(),
    PrimaryKeyConstraint("period_id", "name", "revision"),
    ForeignKeyConstraint(
        ["period_id", "revision", "name"], ["objects.period_id", "objects.revision", "objects.name"]
    ),
)

# Objects that were delivered, are gone, and are therefore not in a revision's manifest.
missing = _sorted_table(
    "missing",
    *_of_delivery(),
    *MISSING.columns(),
    PrimaryKeyConstraint("period_id", "revision", "name"),
    ForeignKeyConstraint(*_NAMES_DELIVERY),
)

leases = _sorted_table(
    "leases",
    Column("name", TEXT, primary_key=True),
    Column("generation", sa.BigInteger, nullable=False),
    Column("holder", TEXT),
    Column("claimed_at", Time),
    Column("expires_at", Time),
    Column("presence", TEXT),
)

uploads = Table(
    "uploads",
    metadata,
    Column("id", ROW_NUMBER, primary_key=True),
    *UPLOAD.columns(),
    sa.UniqueConstraint("upload_id"),
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
    "capabilities", Column("customer", TEXT, primary_key=True), *CAPABILITIES.columns()
)

access_checks = Table(
    "access_checks",
    metadata,
    Column("id", ROW_NUMBER, primary_key=True),
    *CHECK.columns(),
    *_texts("outcome"),
    Index(None, "customer", "checked_at"),
)


def _of_check(name: str, rows: Rows[Finding] | Rows[Leftover]) -> Table:
    return _sorted_table(
        name,
        Column("check_id", ROW_NUMBER, ForeignKey("access_checks.id"), nullable=False),
        Column("number", sa.Integer, nullable=False),
        *rows.columns(),
        PrimaryKeyConstraint("check_id", "number"),
    )


access_findings = _of_check("access_findings", FINDING)
access_leftovers = _of_check("access_leftovers", LEFTOVER)

operations = _sorted_table(
    "acts", *OPERATION.columns(), PrimaryKeyConstraint("id"), Index(None, "customer", "started_at")
)

# In the order of the most frequent query: was a key of a period removed?
removals = _sorted_table(
    "removals",
    Column("period_id", ROW_NUMBER, ForeignKey("periods.id"), nullable=False),
    Column("act_id", TEXT, ForeignKey("acts.id"), nullable=False),
    *REMOVAL.columns(),
    PrimaryKeyConstraint("period_id", "key", "act_id"),
)

# One life of a daemon each.
daemons = _sorted_table(
    "daemons", *DAEMON.columns(), PrimaryKeyConstraint("holder"), Index(None, "ticked_at")
)

visits = _sorted_table(
    "visits",
    *_texts("customer", "work"),
    Column("served_at", Time, nullable=False),
    PrimaryKeyConstraint("customer", "work"),
)

skipped_periods = _sorted_table(
    "passed_over",
    *_texts("customer", "feed", "period", "marker"),
    Column("passed_at", Time, nullable=False),
    PrimaryKeyConstraint("customer", "feed", "period"),
)

scans = _sorted_table("looks", *SCAN.columns(), PrimaryKeyConstraint("customer", "feed"))

discrepancies = _sorted_table(
    "discrepancies",
    *_texts("customer"),
    *DISCREPANCY.columns(),
    PrimaryKeyConstraint("customer", "feed", "period", "flaw"),
)

alerts = _sorted_table("alerts", *ALERT.columns(), PrimaryKeyConstraint("fingerprint"))

# The row is written before the object.
notices = _sorted_table(
    "notices",
    *NOTICE.columns(),
    PrimaryKeyConstraint("customer", "feed", "period", "kind", "revision"),
    Index(None, "status"),
)

# The last verdict on each period at the source; of a drop folder, on each file that is not sound.
judgements = _sorted_table(
    "judgements",
    *JUDGEMENT.columns(),
    PrimaryKeyConstraint("feed", "period", "name"),
    Index(None, "verdict", "judged_at"),
)

releases = _sorted_table(
    "releases",
    *RELEASE.columns(),
    PrimaryKeyConstraint("feed", "period", "name", "fingerprint", "customer"),
)

recalls = _sorted_table("recalls", *RECALL.columns(), PrimaryKeyConstraint("id"))

withdrawn = _sorted_table(
    "withdrawn",
    *WITHDRAWN.columns(),
    # Two recalls may withdraw the same: of one customer and then of all, or despite a hold.
    PrimaryKeyConstraint("feed", "period", "name", "size", "algorithm", "checksum", "customer", "recall"),
    ForeignKeyConstraint(["recall"], ["recalls.id"]),
    Index(None, "recall"),
)

recall_customers = _sorted_table(
    "recall_customers",
    *RECALL_PROGRESS.columns(),
    PrimaryKeyConstraint("recall", "customer"),
    ForeignKeyConstraint(["recall"], ["recalls.id"]),
)

# Lists of a delivery's objects in the formats of customers' tools.
native_manifests = _sorted_table(
    "native_manifests",
    Column("period_id", ROW_NUMBER, ForeignKey("periods.id"), nullable=False),
    *NATIVE.columns(),
    PrimaryKeyConstraint("period_id", "key"),
)

# Feeds as tables: a row for each that was begun and not ended.
customer_tables = _sorted_table("tables", *TABLE.columns(), PrimaryKeyConstraint("customer", "feed"))

table_files = _sorted_table(
    "table_files",
    Column("period_id", ROW_NUMBER, ForeignKey("periods.id"), nullable=False),
    *TABLE_FILE.columns(),
    PrimaryKeyConstraint("period_id", "key"),
)

# The schema of the files that a delivery is about to add, from its plan to its commit.
table_schemas = _sorted_table(
    "table_schemas",
    *_of_delivery(),
    Column("table_schema", TEXT, nullable=False),
    PrimaryKeyConstraint("period_id", "revision"),
    ForeignKeyConstraint(*_NAMES_DELIVERY),
)

table_commits = _sorted_table(
    "table_commits",
    *TABLE_COMMIT.columns(),
    PrimaryKeyConstraint("customer", "feed", "version"),
    Index(None, "customer", "feed", "period"),
)

# The ownership challenge of a sign-up: a token that its bucket's owner can read, kept as its SHA-256.
challenges = _sorted_table("challenges", *CHALLENGE.columns(), PrimaryKeyConstraint("customer"))

# Beside Procrastinate's own tables: the cost of each customer's jobs, and the last result.
queue_customers = _sorted_table(
    "queue_customers",
    Column("customer", TEXT, primary_key=True),
    Column("weight", sa.Integer, nullable=False),
    Column("spent", sa.Double, nullable=False),
    Column("backfill", sa.Boolean, nullable=False),
    Column("serving_at", Time),
    Column("reread_at", Time),
    *ENTRY.columns(),
)

# One row: the virtual time.
queue_clock = _sorted_table(
    "queue_clock",
    Column("id", sa.Integer, primary_key=True, autoincrement=False),
    Column("clock", sa.Double, nullable=False),
)

# One life of a worker each.
workers = _sorted_table("workers", Column("holder", TEXT, primary_key=True), *WORKER.columns())

# A plan while the source is still being listed.
staged_objects = Table(
    "staged_objects",
    sa.MetaData(),
    *OBJECT.columns(),
    PrimaryKeyConstraint("name"),
    prefixes=["TEMPORARY"],
    sqlite_with_rowid=False,
)

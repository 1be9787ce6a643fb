"""What was planned, sent and proven, and done to customers' buckets besides."""

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

from xmode_transfer.adapters.ledger.tables.base import ROW_NUMBER, TEXT, failure_columns, metadata

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
    Column("id", TEXT, nullable=False),
    Column("status", TEXT, nullable=False),
    Column("created_at", TEXT, nullable=False),
    Column("updated_at", TEXT, nullable=False),
    Column("marker", TEXT, nullable=False),
    Column("object_count", BigInteger, nullable=False),
    Column("total_bytes", BigInteger, nullable=False),
    Column("manifest_key", TEXT),
    Column("manifest_checksum", TEXT),
    Column("delivered_at", TEXT),
    *failure_columns(),
    Column("attempts", Integer, nullable=False),
    Column("next_attempt_at", TEXT),
    Column("missing_count", BigInteger),
    Column("not_attested", TEXT),
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
    Column("id", TEXT, primary_key=True),
    Column("delivery_id", TEXT, ForeignKey("deliveries.id"), nullable=False, index=True),
    Column("started_at", TEXT, nullable=False, index=True),
    Column("holder", TEXT, nullable=False),
    Column("engine", TEXT, nullable=False),
    Column("finished_at", TEXT),
    Column("outcome", TEXT),
    Column("uploaded", BigInteger, nullable=False),
    Column("skipped", BigInteger, nullable=False),
    Column("failed", BigInteger, nullable=False),
    Column("bytes", BigInteger, nullable=False),
    Column("seconds", Double, nullable=False),
    *failure_columns(),
    sqlite_with_rowid=False,
)

# The plan. It is stored in the order in which it is read: one delivery's names.
objects = Table(
    "objects",
    metadata,
    Column("period_id", ROW_NUMBER, nullable=False),
    Column("revision", Integer, nullable=False),
    Column("name", TEXT, nullable=False),
    Column("key", TEXT, nullable=False),
    Column("size", BigInteger, nullable=False),
    Column("modified_ns", BigInteger, nullable=False),
    Column("identity", TEXT, nullable=False),
    Column("carried", Boolean, nullable=False),
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
    Column("name", TEXT, nullable=False),
    Column("key", TEXT, nullable=False),
    Column("size", BigInteger, nullable=False),
    Column("algorithm", TEXT, nullable=False),
    Column("checksum", TEXT, nullable=False),
    Column("etag", TEXT, nullable=False),
    Column("delivered_at", TEXT, nullable=False),
    Column("version_id", TEXT),
    Column("sha256", TEXT),
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
    Column("name", TEXT, nullable=False),
    Column("key", TEXT, nullable=False),
    Column("size", BigInteger, nullable=False),
    Column("algorithm", TEXT, nullable=False),
    Column("checksum", TEXT, nullable=False),
    Column("reason", TEXT, nullable=False),
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

# The last transaction of each writer on a database server, by which it is known whether a commit that was not
# answered was written.
writers = Table(
    "writers",
    metadata,
    Column("writer", TEXT, primary_key=True),
    Column("number", BigInteger, nullable=False),
    Column("at", TEXT, nullable=False),
    sqlite_with_rowid=False,
)

uploads = Table(
    "uploads",
    metadata,
    Column("id", ROW_NUMBER, primary_key=True),
    Column("upload_id", TEXT, nullable=False),
    Column("delivery_id", TEXT, ForeignKey("deliveries.id"), nullable=False, index=True),
    Column("customer", TEXT, nullable=False, index=True),
    Column("name", TEXT, nullable=False),
    Column("key", TEXT, nullable=False),
    Column("size", BigInteger, nullable=False),
    Column("modified_ns", BigInteger, nullable=False),
    Column("identity", TEXT, nullable=False),
    Column("part_size", BigInteger, nullable=False),
    Column("algorithm", TEXT, nullable=False),
    Column("opened_at", TEXT, nullable=False),
    Column("status", TEXT, nullable=False, index=True),
    Column("sent_bytes", BigInteger, nullable=False),
    Column("abort_at", TEXT),
    UniqueConstraint("upload_id"),
)

upload_parts = Table(
    "upload_parts",
    metadata,
    Column("upload", ROW_NUMBER, ForeignKey("uploads.id"), nullable=False),
    Column("number", Integer, nullable=False),
    Column("size", BigInteger, nullable=False),
    Column("etag", TEXT, nullable=False),
    Column("checksum", TEXT, nullable=False),
    PrimaryKeyConstraint("upload", "number"),
    sqlite_with_rowid=False,
)

capabilities = Table(
    "capabilities",
    metadata,
    Column("customer", TEXT, primary_key=True),
    Column("multipart", Boolean),
    Column("abort", Boolean),
    Column("region", TEXT),
    Column("versioned", Boolean),
    Column("kms", Boolean),
    Column("learned_at", TEXT),
    sqlite_with_rowid=False,
)

access_checks = Table(
    "access_checks",
    metadata,
    Column("id", ROW_NUMBER, primary_key=True),
    Column("customer", TEXT, nullable=False),
    Column("checked_at", TEXT, nullable=False),
    Column("outcome", TEXT, nullable=False),
    Column("interrupted", Boolean, nullable=False),
    Column("seconds", Double, nullable=False),
    Index(None, "customer", "checked_at"),
)

access_findings = Table(
    "access_findings",
    metadata,
    Column("check_id", ROW_NUMBER, ForeignKey("access_checks.id"), nullable=False),
    Column("number", Integer, nullable=False),
    Column("probe", TEXT, nullable=False),
    Column("result", TEXT, nullable=False),
    Column("cause", TEXT),
    Column("party", TEXT),
    Column("severity", TEXT, nullable=False),
    Column("message", TEXT, nullable=False),
    Column("request_id", TEXT),
    Column("said", TEXT, nullable=False),
    PrimaryKeyConstraint("check_id", "number"),
    sqlite_with_rowid=False,
)

access_leftovers = Table(
    "access_leftovers",
    metadata,
    Column("check_id", ROW_NUMBER, ForeignKey("access_checks.id"), nullable=False),
    Column("number", Integer, nullable=False),
    Column("kind", TEXT, nullable=False),
    Column("key", TEXT, nullable=False),
    Column("bytes", BigInteger, nullable=False),
    Column("id", TEXT),
    PrimaryKeyConstraint("check_id", "number"),
    sqlite_with_rowid=False,
)

acts = Table(
    "acts",
    metadata,
    Column("id", TEXT, primary_key=True),
    Column("kind", TEXT, nullable=False),
    Column("customer", TEXT, nullable=False),
    Column("holder", TEXT, nullable=False),
    Column("person", TEXT, nullable=False),
    Column("reason", TEXT, nullable=False),
    Column("started_at", TEXT, nullable=False),
    Column("finished_at", TEXT),
    Column("outcome", TEXT),
    Column("objects", BigInteger, nullable=False),
    Column("bytes", BigInteger, nullable=False),
    Column("failed", BigInteger, nullable=False),
    *failure_columns(),
    Index(None, "customer", "started_at"),
    sqlite_with_rowid=False,
)

# Stored by what is asked for most: whether a key of a period was removed.
removals = Table(
    "removals",
    metadata,
    Column("period_id", ROW_NUMBER, ForeignKey("periods.id"), nullable=False),
    Column("key", TEXT, nullable=False),
    Column("act_id", TEXT, ForeignKey("acts.id"), nullable=False),
    Column("revision", Integer, nullable=False),
    Column("manifest", Boolean, nullable=False),
    Column("size", BigInteger, nullable=False),
    Column("etag", TEXT, nullable=False),
    Column("delivered_at", TEXT, nullable=False),
    Column("reason", TEXT, nullable=False),
    Column("outcome", TEXT, nullable=False),
    Column("at", TEXT, nullable=False),
    PrimaryKeyConstraint("period_id", "key", "act_id"),
    sqlite_with_rowid=False,
)

# Where a plan waits, out of everybody's way, while the source is still being listed: each connection has its
# own.
staged_objects = Table(
    "staged_objects",
    MetaData(),
    Column("name", TEXT, primary_key=True),
    Column("key", TEXT, nullable=False),
    Column("size", BigInteger, nullable=False),
    Column("modified_ns", BigInteger, nullable=False),
    Column("identity", TEXT, nullable=False),
    Column("carried", Boolean, nullable=False),
    prefixes=["TEMPORARY"],
    sqlite_with_rowid=False,
)

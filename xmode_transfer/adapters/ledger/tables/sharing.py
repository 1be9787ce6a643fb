"""Deliveries that several workers send together."""

from sqlalchemy import BigInteger, Boolean, Column, ForeignKey, Integer, PrimaryKeyConstraint, Table

from xmode_transfer.adapters.ledger.tables.base import TEXT, failure_columns, metadata

# The pieces of the deliveries that are divided now; they go when the closer has all of them back.
chunks = Table(
    "chunks",
    metadata,
    Column("delivery_id", TEXT, ForeignKey("deliveries.id"), nullable=False),
    Column("number", Integer, nullable=False),
    Column("lease", TEXT, nullable=False),
    Column("customer", TEXT, nullable=False),
    Column("under_lease", TEXT, nullable=False),
    Column("under_generation", BigInteger, nullable=False),
    Column("under_holder", TEXT, nullable=False),
    Column("fingerprint", TEXT, nullable=False),
    Column("called_off", Boolean, nullable=False),
    Column("after_name", TEXT, nullable=False),
    Column("last_name", TEXT, nullable=False),
    Column("objects", BigInteger, nullable=False),
    Column("bytes", BigInteger, nullable=False),
    Column("worked_by", TEXT),
    Column("done", Boolean, nullable=False),
    Column("told_bytes", BigInteger, nullable=False),
    Column("uploaded", BigInteger, nullable=False),
    Column("uploaded_bytes", BigInteger, nullable=False),
    Column("adopted", BigInteger, nullable=False),
    Column("failed", BigInteger, nullable=False),
    Column("failures", TEXT, nullable=False),
    Column("passing", Boolean, nullable=False),
    Column("stale", Boolean, nullable=False),
    *failure_columns(),
    PrimaryKeyConstraint("delivery_id", "number"),
    sqlite_with_rowid=False,
)

"""Daemons, looks at sources, alerts, and what customers are told."""

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Integer,
    PrimaryKeyConstraint,
    Table,
)

from xmode_transfer.adapters.ledger.tables.base import TEXT, failure_columns, metadata

# One life of a daemon each.
daemons = Table(
    "daemons",
    metadata,
    Column("holder", TEXT, primary_key=True),
    Column("started_at", TEXT, nullable=False),
    Column("ticked_at", TEXT, nullable=False, index=True),
    Column("tick_seconds", Integer, nullable=False),
    Column("workers", Integer, nullable=False),
    Column("busy", Integer, nullable=False),
    Column("configuration_loaded_at", TEXT),
    Column("configuration_problems", TEXT, nullable=False),
    *failure_columns(),
    Column("stopping", Boolean, nullable=False),
    Column("stopped_at", TEXT),
    sqlite_with_rowid=False,
)

visits = Table(
    "visits",
    metadata,
    Column("customer", TEXT, nullable=False),
    Column("work", TEXT, nullable=False),
    Column("served_at", TEXT, nullable=False),
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
    Column("passed_at", TEXT, nullable=False),
    PrimaryKeyConstraint("customer", "feed", "period"),
    sqlite_with_rowid=False,
)

# The last look at a feed's source for a customer, whoever looked.
looks = Table(
    "looks",
    metadata,
    Column("customer", TEXT, nullable=False),
    Column("feed", TEXT, nullable=False),
    Column("looked_at", TEXT, nullable=False),
    Column("first_looked_at", TEXT, nullable=False),
    Column("newest_complete", TEXT),
    Column("due_count", Integer, nullable=False),
    Column("due", TEXT, nullable=False),
    Column("due_since_at", TEXT),
    Column("waiting_count", Integer, nullable=False),
    Column("waiting", TEXT, nullable=False),
    *failure_columns(),
    Column("failing_since_at", TEXT),
    PrimaryKeyConstraint("customer", "feed"),
    sqlite_with_rowid=False,
)

# What the last verification of a period found that is not as it was delivered.
discrepancies = Table(
    "discrepancies",
    metadata,
    Column("customer", TEXT, nullable=False),
    Column("feed", TEXT, nullable=False),
    Column("period", TEXT, nullable=False),
    Column("flaw", TEXT, nullable=False),
    Column("keys", BigInteger, nullable=False),
    Column("first_key", TEXT, nullable=False),
    Column("since_at", TEXT, nullable=False),
    PrimaryKeyConstraint("customer", "feed", "period", "flaw"),
    sqlite_with_rowid=False,
)

# One row for each cause that is an alert; kept for a while after it is resolved.
alerts = Table(
    "alerts",
    metadata,
    Column("fingerprint", TEXT, primary_key=True),
    Column("cause", TEXT, nullable=False),
    Column("detail", TEXT, nullable=False),
    Column("party", TEXT, nullable=False),
    Column("urgent", Boolean, nullable=False),
    Column("summary", TEXT, nullable=False),
    Column("message", TEXT, nullable=False),
    Column("hint", TEXT, nullable=False),
    Column("since_at", TEXT, nullable=False),
    Column("customers", TEXT, nullable=False),
    Column("customer_count", Integer, nullable=False),
    Column("opened_at", TEXT),
    Column("resolved_at", TEXT),
    Column("notifications", TEXT, nullable=False),
    sqlite_with_rowid=False,
)

# What customers are told in their own buckets; a row before the object.
notices = Table(
    "notices",
    metadata,
    Column("customer", TEXT, nullable=False),
    Column("feed", TEXT, nullable=False),
    Column("period", TEXT, nullable=False),
    Column("kind", TEXT, nullable=False),
    Column("revision", Integer, nullable=False),
    Column("key", TEXT, nullable=False),
    Column("body", TEXT, nullable=False),
    Column("made_at", TEXT, nullable=False),
    Column("status", TEXT, nullable=False, index=True),
    Column("attempts", Integer, nullable=False),
    Column("next_attempt_at", TEXT),
    Column("put_at", TEXT),
    Column("error", TEXT, nullable=False),
    PrimaryKeyConstraint("customer", "feed", "period", "kind", "revision"),
    sqlite_with_rowid=False,
)

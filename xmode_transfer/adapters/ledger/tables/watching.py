"""Daemons, looks at sources, alerts, and what customers are told."""

from sqlalchemy import (
    Boolean,
    Column,
    Index,
    Integer,
    PrimaryKeyConstraint,
    Table,
)

from xmode_transfer.adapters.ledger.tables.base import TEXT, Rows, Time, metadata
from xmode_transfer.domain.daemons import DaemonRecord
from xmode_transfer.domain.looks import Look
from xmode_transfer.domain.notices import Notice
from xmode_transfer.domain.verification import Discrepancy

DAEMON = Rows(DaemonRecord)
LOOK = Rows(Look)
DISCREPANCY = Rows(Discrepancy)
NOTICE = Rows(Notice)

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
    *NOTICE.columns(),
    PrimaryKeyConstraint("customer", "feed", "period", "kind", "revision"),
    Index(None, "status"),
    sqlite_with_rowid=False,
)

"""The round of the fleet, and its workers."""

from sqlalchemy import BigInteger, Boolean, Column, Double, Integer, Table

from xmode_transfer.adapters.ledger.tables.base import TEXT, metadata

# One row. Whoever changes a turn locks it first, so that serials are given in the order of commits and no
# two processes wait for each other's turns.
fleet = Table(
    "fleet",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("serial", BigInteger, nullable=False),
    Column("clock", Double, nullable=False),
    Column("swept_at", TEXT),
    sqlite_with_rowid=False,
)

turns = Table(
    "turns",
    metadata,
    Column("customer", TEXT, primary_key=True),
    Column("state", TEXT, nullable=False, index=True),
    Column("since_at", TEXT, nullable=False),
    Column("serial", BigInteger, nullable=False, index=True),
    Column("ended_serial", BigInteger, nullable=False),
    Column("holder", TEXT),
    Column("generation", BigInteger, nullable=False),
    Column("stop_asked", Boolean, nullable=False),
    Column("feed", TEXT),
    Column("period", TEXT),
    Column("next_at", TEXT),
    Column("reason", TEXT, nullable=False),
    Column("again", Boolean, nullable=False),
    Column("looked", Boolean, nullable=False),
    Column("refused", Boolean, nullable=False),
    Column("weight", Integer, nullable=False),
    Column("spent", Double, nullable=False),
    Column("backfill", Boolean, nullable=False),
    Column("hurried", Boolean, nullable=False),
    Column("serving_at", TEXT),
    Column("called_again", Boolean, nullable=False),
    Column("called_hurried", Boolean, nullable=False),
    Column("called_serving_at", TEXT),
    Column("leaves", Boolean, nullable=False),
    Column("reread_at", TEXT),
    sqlite_with_rowid=False,
)

# One life of a worker each.
workers = Table(
    "workers",
    metadata,
    Column("holder", TEXT, primary_key=True),
    Column("started_at", TEXT, nullable=False),
    Column("seen_at", TEXT, nullable=False),
    Column("places", Integer, nullable=False),
    Column("busy", Integer, nullable=False),
    Column("waiting", Integer, nullable=False),
    Column("stopping", Boolean, nullable=False),
    Column("stopped_at", TEXT),
    Column("version", TEXT, nullable=False),
    Column("trouble", TEXT, nullable=False),
    sqlite_with_rowid=False,
)

"""Checks before release, recalls, and challenges of ownership."""

import sqlalchemy as sa
from alembic import op

from xmode_transfer.ledger.rows import TEXT
from xmode_transfer.ledger.tables import metadata

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

_NEW = ("judgements", "releases", "recalls", "withdrawn", "recall_customers", "challenges")


def upgrade() -> None:
    op.add_column("deliveries", sa.Column("fingerprint", TEXT))
    op.add_column("deliveries", sa.Column("replaces", TEXT))
    op.create_index("ix_periods_feed_period", "periods", ["feed", "period"])
    metadata.create_all(op.get_bind(), [metadata.tables[name] for name in _NEW])

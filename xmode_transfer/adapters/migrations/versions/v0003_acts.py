"""Who did what to customers' buckets, and the keys that cleanups removed."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

TEXT = sa.Text(collation="C").with_variant(sa.Text(), "sqlite")
ROW_NUMBER = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.create_table(
        "acts",
        sa.Column("id", TEXT, nullable=False),
        sa.Column("kind", TEXT, nullable=False),
        sa.Column("customer", TEXT, nullable=False),
        sa.Column("holder", TEXT, nullable=False),
        sa.Column("person", TEXT, nullable=False),
        sa.Column("reason", TEXT, nullable=False),
        sa.Column("started_at", TEXT, nullable=False),
        sa.Column("finished_at", TEXT),
        sa.Column("outcome", TEXT),
        sa.Column("objects", sa.BigInteger(), nullable=False),
        sa.Column("bytes", sa.BigInteger(), nullable=False),
        sa.Column("failed", sa.BigInteger(), nullable=False),
        sa.Column("failure_cause", TEXT),
        sa.Column("failure_party", TEXT),
        sa.Column("failure_message", TEXT),
        sa.Column("failure_hint", TEXT),
        sa.Column("failure_retryable", sa.Boolean()),
        sa.Column("failure_request_id", TEXT),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_acts")),
        sqlite_with_rowid=False,
    )
    op.create_index(op.f("ix_acts_customer_started_at"), "acts", ["customer", "started_at"])
    op.create_table(
        "removals",
        sa.Column("period_id", ROW_NUMBER, nullable=False),
        sa.Column("key", TEXT, nullable=False),
        sa.Column("act_id", TEXT, nullable=False),
        sa.Column("revision", sa.Integer(), nullable=False),
        sa.Column("manifest", sa.Boolean(), nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("etag", TEXT, nullable=False),
        sa.Column("delivered_at", TEXT, nullable=False),
        sa.Column("reason", TEXT, nullable=False),
        sa.Column("outcome", TEXT, nullable=False),
        sa.Column("at", TEXT, nullable=False),
        sa.ForeignKeyConstraint(["act_id"], ["acts.id"], name=op.f("fk_removals_acts")),
        sa.ForeignKeyConstraint(["period_id"], ["periods.id"], name=op.f("fk_removals_periods")),
        sa.PrimaryKeyConstraint("period_id", "key", "act_id", name=op.f("pk_removals")),
        sqlite_with_rowid=False,
    )

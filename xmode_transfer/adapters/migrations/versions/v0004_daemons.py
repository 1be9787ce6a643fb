"""Daemons, the visits that they have paid, and what they passed over."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

TEXT = sa.Text(collation="C").with_variant(sa.Text(), "sqlite")


def upgrade() -> None:
    op.create_table(
        "daemons",
        sa.Column("holder", TEXT, nullable=False),
        sa.Column("started_at", TEXT, nullable=False),
        sa.Column("ticked_at", TEXT, nullable=False),
        sa.Column("tick_seconds", sa.Integer(), nullable=False),
        sa.Column("workers", sa.Integer(), nullable=False),
        sa.Column("busy", sa.Integer(), nullable=False),
        sa.Column("configuration_loaded_at", TEXT),
        sa.Column("configuration_problems", TEXT, nullable=False),
        sa.Column("failure_cause", TEXT),
        sa.Column("failure_party", TEXT),
        sa.Column("failure_message", TEXT),
        sa.Column("failure_hint", TEXT),
        sa.Column("failure_retryable", sa.Boolean()),
        sa.Column("failure_request_id", TEXT),
        sa.Column("stopping", sa.Boolean(), nullable=False),
        sa.Column("stopped_at", TEXT),
        sa.PrimaryKeyConstraint("holder", name=op.f("pk_daemons")),
        sqlite_with_rowid=False,
    )
    op.create_index(op.f("ix_daemons_ticked_at"), "daemons", ["ticked_at"])
    op.create_table(
        "visits",
        sa.Column("customer", TEXT, nullable=False),
        sa.Column("work", TEXT, nullable=False),
        sa.Column("served_at", TEXT, nullable=False),
        sa.PrimaryKeyConstraint("customer", "work", name=op.f("pk_visits")),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "passed_over",
        sa.Column("customer", TEXT, nullable=False),
        sa.Column("feed", TEXT, nullable=False),
        sa.Column("period", TEXT, nullable=False),
        sa.Column("marker", TEXT, nullable=False),
        sa.Column("passed_at", TEXT, nullable=False),
        sa.PrimaryKeyConstraint("customer", "feed", "period", name=op.f("pk_passed_over")),
        sqlite_with_rowid=False,
    )

"""Notices for customers."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

TEXT = sa.Text(collation="C").with_variant(sa.Text(), "sqlite")


def upgrade() -> None:
    op.create_table(
        "notices",
        sa.Column("customer", TEXT, nullable=False),
        sa.Column("feed", TEXT, nullable=False),
        sa.Column("period", TEXT, nullable=False),
        sa.Column("kind", TEXT, nullable=False),
        sa.Column("revision", sa.Integer(), nullable=False),
        sa.Column("key", TEXT, nullable=False),
        sa.Column("body", TEXT, nullable=False),
        sa.Column("made_at", TEXT, nullable=False),
        sa.Column("status", TEXT, nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("next_attempt_at", TEXT),
        sa.Column("put_at", TEXT),
        sa.Column("error", TEXT, nullable=False),
        sa.PrimaryKeyConstraint(
            "customer", "feed", "period", "kind", "revision", name=op.f("pk_notices")
        ),
        sqlite_with_rowid=False,
    )
    op.create_index(op.f("ix_notices_status"), "notices", ["status"])

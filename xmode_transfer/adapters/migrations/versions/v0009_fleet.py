"""The round of the fleet, and its workers."""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None

TEXT = sa.Text(collation="C").with_variant(sa.Text(), "sqlite")


def upgrade() -> None:
    op.create_table(
        "fleet",
        sa.Column("id", sa.Integer(), nullable=False, autoincrement=False),
        sa.Column("serial", sa.BigInteger(), nullable=False),
        sa.Column("clock", sa.Double(), nullable=False),
        sa.Column("swept_at", TEXT),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_fleet")),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "turns",
        sa.Column("customer", TEXT, nullable=False),
        sa.Column("state", TEXT, nullable=False),
        sa.Column("since_at", TEXT, nullable=False),
        sa.Column("serial", sa.BigInteger(), nullable=False),
        sa.Column("ended_serial", sa.BigInteger(), nullable=False),
        sa.Column("holder", TEXT),
        sa.Column("generation", sa.BigInteger(), nullable=False),
        sa.Column("stop_asked", sa.Boolean(), nullable=False),
        sa.Column("feed", TEXT),
        sa.Column("period", TEXT),
        sa.Column("next_at", TEXT),
        sa.Column("reason", TEXT, nullable=False),
        sa.Column("again", sa.Boolean(), nullable=False),
        sa.Column("looked", sa.Boolean(), nullable=False),
        sa.Column("refused", sa.Boolean(), nullable=False),
        sa.Column("weight", sa.Integer(), nullable=False),
        sa.Column("spent", sa.Double(), nullable=False),
        sa.Column("backfill", sa.Boolean(), nullable=False),
        sa.Column("hurried", sa.Boolean(), nullable=False),
        sa.Column("serving_at", TEXT),
        sa.Column("called_again", sa.Boolean(), nullable=False),
        sa.Column("called_hurried", sa.Boolean(), nullable=False),
        sa.Column("called_serving_at", TEXT),
        sa.Column("leaves", sa.Boolean(), nullable=False),
        sa.Column("reread_at", TEXT),
        sa.PrimaryKeyConstraint("customer", name=op.f("pk_turns")),
        sqlite_with_rowid=False,
    )
    op.create_index(op.f("ix_turns_state"), "turns", ["state"])
    op.create_index(op.f("ix_turns_serial"), "turns", ["serial"])
    op.create_table(
        "workers",
        sa.Column("holder", TEXT, nullable=False),
        sa.Column("started_at", TEXT, nullable=False),
        sa.Column("seen_at", TEXT, nullable=False),
        sa.Column("places", sa.Integer(), nullable=False),
        sa.Column("busy", sa.Integer(), nullable=False),
        sa.Column("waiting", sa.Integer(), nullable=False),
        sa.Column("stopping", sa.Boolean(), nullable=False),
        sa.Column("stopped_at", TEXT),
        sa.Column("version", TEXT, nullable=False),
        sa.Column("trouble", TEXT, nullable=False),
        sa.PrimaryKeyConstraint("holder", name=op.f("pk_workers")),
        sqlite_with_rowid=False,
    )

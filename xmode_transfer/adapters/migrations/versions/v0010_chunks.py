"""Deliveries that several workers send together."""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None

TEXT = sa.Text(collation="C").with_variant(sa.Text(), "sqlite")


def upgrade() -> None:
    op.create_table(
        "chunks",
        sa.Column("delivery_id", TEXT, nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("lease", TEXT, nullable=False),
        sa.Column("customer", TEXT, nullable=False),
        sa.Column("under_lease", TEXT, nullable=False),
        sa.Column("under_generation", sa.BigInteger(), nullable=False),
        sa.Column("under_holder", TEXT, nullable=False),
        sa.Column("fingerprint", TEXT, nullable=False),
        sa.Column("called_off", sa.Boolean(), nullable=False),
        sa.Column("after_name", TEXT, nullable=False),
        sa.Column("last_name", TEXT, nullable=False),
        sa.Column("objects", sa.BigInteger(), nullable=False),
        sa.Column("bytes", sa.BigInteger(), nullable=False),
        sa.Column("worked_by", TEXT),
        sa.Column("done", sa.Boolean(), nullable=False),
        sa.Column("told_bytes", sa.BigInteger(), nullable=False),
        sa.Column("uploaded", sa.BigInteger(), nullable=False),
        sa.Column("uploaded_bytes", sa.BigInteger(), nullable=False),
        sa.Column("adopted", sa.BigInteger(), nullable=False),
        sa.Column("failed", sa.BigInteger(), nullable=False),
        sa.Column("failures", TEXT, nullable=False),
        sa.Column("passing", sa.Boolean(), nullable=False),
        sa.Column("stale", sa.Boolean(), nullable=False),
        sa.Column("failure_cause", TEXT),
        sa.Column("failure_party", TEXT),
        sa.Column("failure_message", TEXT),
        sa.Column("failure_hint", TEXT),
        sa.Column("failure_retryable", sa.Boolean()),
        sa.Column("failure_request_id", TEXT),
        sa.ForeignKeyConstraint(
            ["delivery_id"], ["deliveries.id"], name=op.f("fk_chunks_deliveries")
        ),
        sa.PrimaryKeyConstraint("delivery_id", "number", name=op.f("pk_chunks")),
        sqlite_with_rowid=False,
    )

"""Alerts, and what each channel was told of them."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

TEXT = sa.Text(collation="C").with_variant(sa.Text(), "sqlite")


def upgrade() -> None:
    op.create_table(
        "alerts",
        sa.Column("fingerprint", TEXT, nullable=False),
        sa.Column("cause", TEXT, nullable=False),
        sa.Column("detail", TEXT, nullable=False),
        sa.Column("party", TEXT, nullable=False),
        sa.Column("urgent", sa.Boolean(), nullable=False),
        sa.Column("summary", TEXT, nullable=False),
        sa.Column("message", TEXT, nullable=False),
        sa.Column("hint", TEXT, nullable=False),
        sa.Column("since_at", TEXT, nullable=False),
        sa.Column("customers", TEXT, nullable=False),
        sa.Column("customer_count", sa.Integer(), nullable=False),
        sa.Column("episode", sa.Integer(), nullable=False),
        sa.Column("first_seen_at", TEXT, nullable=False),
        sa.Column("last_seen_at", TEXT, nullable=False),
        sa.Column("opened_at", TEXT),
        sa.Column("resolved_at", TEXT),
        sa.PrimaryKeyConstraint("fingerprint", name=op.f("pk_alerts")),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "tellings",
        sa.Column("fingerprint", TEXT, nullable=False),
        sa.Column("channel", TEXT, nullable=False),
        sa.Column("episode", sa.Integer(), nullable=False),
        sa.Column("told", TEXT),
        sa.Column("told_at", TEXT),
        sa.Column("customers", TEXT, nullable=False),
        sa.Column("customer_count", sa.Integer(), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("next_attempt_at", TEXT),
        sa.Column("error", TEXT, nullable=False),
        sa.ForeignKeyConstraint(["fingerprint"], ["alerts.fingerprint"], name=op.f("fk_tellings_alerts")),
        sa.PrimaryKeyConstraint("fingerprint", "channel", name=op.f("pk_tellings")),
        sqlite_with_rowid=False,
    )

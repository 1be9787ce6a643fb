"""Alerts without episodes, with what each channel knows in one column. Those that are open open anew."""

import sqlalchemy as sa
from alembic import op

revision = "0016"
down_revision = "0015"
branch_labels = None
depends_on = None

TEXT = sa.Text(collation="C").with_variant(sa.Text(), "sqlite")


def upgrade() -> None:
    op.drop_table("tellings")
    op.drop_table("alerts")
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
        sa.Column("opened_at", TEXT),
        sa.Column("resolved_at", TEXT),
        sa.Column("notifications", TEXT, nullable=False),
        sa.PrimaryKeyConstraint("fingerprint", name=op.f("pk_alerts")),
        sqlite_with_rowid=False,
    )

"""The last look at each feed's source for each customer."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

TEXT = sa.Text(collation="C").with_variant(sa.Text(), "sqlite")


def upgrade() -> None:
    op.create_table(
        "looks",
        sa.Column("customer", TEXT, nullable=False),
        sa.Column("feed", TEXT, nullable=False),
        sa.Column("looked_at", TEXT, nullable=False),
        sa.Column("first_looked_at", TEXT, nullable=False),
        sa.Column("newest_complete", TEXT),
        sa.Column("due_count", sa.Integer(), nullable=False),
        sa.Column("due", TEXT, nullable=False),
        sa.Column("due_since_at", TEXT),
        sa.Column("waiting_count", sa.Integer(), nullable=False),
        sa.Column("waiting", TEXT, nullable=False),
        sa.Column("failure_cause", TEXT),
        sa.Column("failure_party", TEXT),
        sa.Column("failure_message", TEXT),
        sa.Column("failure_hint", TEXT),
        sa.Column("failure_retryable", sa.Boolean()),
        sa.Column("failure_request_id", TEXT),
        sa.Column("failing_since_at", TEXT),
        sa.PrimaryKeyConstraint("customer", "feed", name=op.f("pk_looks")),
        sqlite_with_rowid=False,
    )

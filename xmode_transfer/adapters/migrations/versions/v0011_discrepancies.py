"""What the last verification found that is not as it was delivered."""

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None

TEXT = sa.Text(collation="C").with_variant(sa.Text(), "sqlite")


def upgrade() -> None:
    op.create_table(
        "discrepancies",
        sa.Column("customer", TEXT, nullable=False),
        sa.Column("feed", TEXT, nullable=False),
        sa.Column("period", TEXT, nullable=False),
        sa.Column("flaw", TEXT, nullable=False),
        sa.Column("keys", sa.BigInteger(), nullable=False),
        sa.Column("first_key", TEXT, nullable=False),
        sa.Column("since_at", TEXT, nullable=False),
        sa.PrimaryKeyConstraint("customer", "feed", "period", "flaw", name=op.f("pk_discrepancies")),
        sqlite_with_rowid=False,
    )

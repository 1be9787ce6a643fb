"""What a ledger on a server needs: by what a lease's holder is seen to live, and what was written last."""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

TEXT = sa.Text(collation="C").with_variant(sa.Text(), "sqlite")


def upgrade() -> None:
    op.add_column("leases", sa.Column("presence", TEXT))
    op.create_table(
        "writers",
        sa.Column("writer", TEXT, nullable=False),
        sa.Column("number", sa.BigInteger(), nullable=False),
        sa.Column("at", TEXT, nullable=False),
        sa.PrimaryKeyConstraint("writer", name=op.f("pk_writers")),
        sqlite_with_rowid=False,
    )

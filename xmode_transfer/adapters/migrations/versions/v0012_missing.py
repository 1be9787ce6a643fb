"""What was delivered and a revision's manifest does not list, because it is gone."""

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None

TEXT = sa.Text(collation="C").with_variant(sa.Text(), "sqlite")
ROW_NUMBER = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.add_column("deliveries", sa.Column("missing_count", sa.BigInteger()))
    op.create_table(
        "missing",
        sa.Column("period_id", ROW_NUMBER, nullable=False),
        sa.Column("revision", sa.Integer(), nullable=False),
        sa.Column("name", TEXT, nullable=False),
        sa.Column("key", TEXT, nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("algorithm", TEXT, nullable=False),
        sa.Column("checksum", TEXT, nullable=False),
        sa.Column("reason", TEXT, nullable=False),
        sa.ForeignKeyConstraint(
            ["period_id", "revision"],
            ["deliveries.period_id", "deliveries.revision"],
            name=op.f("fk_missing_deliveries"),
        ),
        sa.PrimaryKeyConstraint("period_id", "revision", "name", name=op.f("pk_missing")),
        sqlite_with_rowid=False,
    )

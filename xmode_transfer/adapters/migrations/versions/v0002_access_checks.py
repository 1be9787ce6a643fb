"""The history of the checks of customers' access."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

TEXT = sa.Text(collation="C").with_variant(sa.Text(), "sqlite")
ROW_NUMBER = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.create_table(
        "access_checks",
        sa.Column("id", ROW_NUMBER, nullable=False),
        sa.Column("customer", TEXT, nullable=False),
        sa.Column("checked_at", TEXT, nullable=False),
        sa.Column("outcome", TEXT, nullable=False),
        sa.Column("interrupted", sa.Boolean(), nullable=False),
        sa.Column("seconds", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_access_checks")),
    )
    op.create_index(op.f("ix_access_checks_customer_checked_at"), "access_checks", ["customer", "checked_at"])
    op.create_table(
        "access_findings",
        sa.Column("check_id", ROW_NUMBER, nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("probe", TEXT, nullable=False),
        sa.Column("result", TEXT, nullable=False),
        sa.Column("cause", TEXT),
        sa.Column("party", TEXT),
        sa.Column("severity", TEXT, nullable=False),
        sa.Column("message", TEXT, nullable=False),
        sa.Column("request_id", TEXT),
        sa.Column("said", TEXT, nullable=False),
        sa.ForeignKeyConstraint(
            ["check_id"], ["access_checks.id"], name=op.f("fk_access_findings_access_checks")
        ),
        sa.PrimaryKeyConstraint("check_id", "number", name=op.f("pk_access_findings")),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "access_leftovers",
        sa.Column("check_id", ROW_NUMBER, nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("kind", TEXT, nullable=False),
        sa.Column("key", TEXT, nullable=False),
        sa.Column("bytes", sa.BigInteger(), nullable=False),
        sa.Column("id", TEXT),
        sa.ForeignKeyConstraint(
            ["check_id"], ["access_checks.id"], name=op.f("fk_access_leftovers_access_checks")
        ),
        sa.PrimaryKeyConstraint("check_id", "number", name=op.f("pk_access_leftovers")),
        sqlite_with_rowid=False,
    )

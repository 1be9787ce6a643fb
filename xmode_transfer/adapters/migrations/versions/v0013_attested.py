"""Whether a delivery that was taken back from its manifest is attested by our signature."""

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None

TEXT = sa.Text(collation="C").with_variant(sa.Text(), "sqlite")


def upgrade() -> None:
    op.add_column("deliveries", sa.Column("not_attested", TEXT))
    op.create_index(
        op.f("ix_deliveries_period_id"),
        "deliveries",
        ["period_id"],
        sqlite_where=sa.text("not_attested IS NOT NULL"),
        postgresql_where=sa.text("not_attested IS NOT NULL"),
    )

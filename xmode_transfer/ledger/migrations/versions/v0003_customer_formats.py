"""Native manifests, and feeds as tables."""

import sqlalchemy as sa
from alembic import op

from xmode_transfer.ledger.rows import ROW_NUMBER, TEXT

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        'native_manifests',
        sa.Column("period_id", ROW_NUMBER, nullable=False),
        sa.Column("kind", TEXT, nullable=False),
        sa.Column("revision", sa.BigInteger, nullable=False),
        sa.Column("key", TEXT, nullable=False),
        sa.Column("size", sa.BigInteger, nullable=False),
        sa.Column("etag", TEXT, nullable=False),
        sa.Column("algorithm", TEXT, nullable=False),
        sa.Column("checksum", TEXT, nullable=False),
        sa.Column("delivered_at", TEXT, nullable=False),
        sa.PrimaryKeyConstraint("period_id", "key", name="pk_native_manifests"),
        sa.ForeignKeyConstraint(['period_id'], ['periods.id'], name="fk_native_manifests_periods"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        'tables',
        sa.Column("customer", TEXT, nullable=False),
        sa.Column("feed", TEXT, nullable=False),
        sa.Column("root", TEXT, nullable=False),
        sa.Column("id", TEXT, nullable=False),
        sa.Column("columns", TEXT, nullable=False),
        sa.Column("created_at", TEXT, nullable=False),
        sa.Column("version", sa.BigInteger, nullable=False),
        sa.Column("table_schema", TEXT, nullable=False),
        sa.Column("checkpoint", sa.BigInteger),
        sa.Column("hint_etag", TEXT),
        sa.Column("ending_at", TEXT),
        sa.PrimaryKeyConstraint("customer", "feed", name="pk_tables"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        'table_files',
        sa.Column("period_id", ROW_NUMBER, nullable=False),
        sa.Column("key", TEXT, nullable=False),
        sa.Column("size", sa.BigInteger, nullable=False),
        sa.Column("rows", sa.BigInteger, nullable=False),
        sa.Column("statistics", TEXT, nullable=False),
        sa.Column("modified_at", TEXT, nullable=False),
        sa.Column("version", sa.BigInteger),
        sa.PrimaryKeyConstraint("period_id", "key", name="pk_table_files"),
        sa.ForeignKeyConstraint(['period_id'], ['periods.id'], name="fk_table_files_periods"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        'table_schemas',
        sa.Column("period_id", ROW_NUMBER, nullable=False),
        sa.Column("revision", sa.Integer, nullable=False),
        sa.Column("table_schema", TEXT, nullable=False),
        sa.PrimaryKeyConstraint("period_id", "revision", name="pk_table_schemas"),
        sa.ForeignKeyConstraint(['period_id', 'revision'], ['deliveries.period_id', 'deliveries.revision'], name="fk_table_schemas_deliveries"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        'table_commits',
        sa.Column("customer", TEXT, nullable=False),
        sa.Column("feed", TEXT, nullable=False),
        sa.Column("version", sa.BigInteger, nullable=False),
        sa.Column("period", TEXT, nullable=False),
        sa.Column("revision", sa.BigInteger),
        sa.Column("files", sa.BigInteger, nullable=False),
        sa.Column("rows", sa.BigInteger, nullable=False),
        sa.Column("committed_at", TEXT, nullable=False),
        sa.PrimaryKeyConstraint("customer", "feed", "version", name="pk_table_commits"),
        sqlite_with_rowid=False,
    )
    op.create_index("ix_table_commits_customer_feed_period", "table_commits", ['customer', 'feed', 'period'])

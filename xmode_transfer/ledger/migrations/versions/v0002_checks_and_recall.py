"""Checks before release, recalls, and challenges of ownership."""

import sqlalchemy as sa
from alembic import op

from xmode_transfer.ledger.rows import TEXT

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("deliveries", sa.Column("fingerprint", TEXT))
    op.add_column("deliveries", sa.Column("replaces", TEXT))
    op.add_column("removals", sa.Column("locked_until", TEXT))
    op.create_index("ix_periods_feed_period", "periods", ["feed", "period"])
    op.create_table(
        'judgements',
        sa.Column("feed", TEXT, nullable=False),
        sa.Column("period", TEXT, nullable=False),
        sa.Column("name", TEXT, nullable=False),
        sa.Column("fingerprint", TEXT, nullable=False),
        sa.Column("verdict", TEXT, nullable=False),
        sa.Column("files", sa.BigInteger, nullable=False),
        sa.Column("bytes", sa.BigInteger, nullable=False),
        sa.Column("failed", TEXT, nullable=False),
        sa.Column("judged_at", TEXT, nullable=False),
        sa.Column("shape", TEXT, nullable=False),
        sa.Column("rules", TEXT, nullable=False),
        sa.PrimaryKeyConstraint("feed", "period", "name", name="pk_judgements"),
        sqlite_with_rowid=False,
    )
    op.create_index("ix_judgements_verdict_judged_at", "judgements", ['verdict', 'judged_at'])
    op.create_table(
        'releases',
        sa.Column("feed", TEXT, nullable=False),
        sa.Column("period", TEXT, nullable=False),
        sa.Column("name", TEXT, nullable=False),
        sa.Column("fingerprint", TEXT, nullable=False),
        sa.Column("customer", TEXT, nullable=False),
        sa.Column("decision", TEXT, nullable=False),
        sa.Column("person", TEXT, nullable=False),
        sa.Column("reason", TEXT, nullable=False),
        sa.Column("decided_at", TEXT, nullable=False),
        sa.Column("failed", TEXT, nullable=False),
        sa.PrimaryKeyConstraint("feed", "period", "name", "fingerprint", "customer", name="pk_releases"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        'recalls',
        sa.Column("id", TEXT, nullable=False),
        sa.Column("feed", TEXT, nullable=False),
        sa.Column("reason", TEXT, nullable=False),
        sa.Column("person", TEXT, nullable=False),
        sa.Column("started_at", TEXT, nullable=False),
        sa.Column("customer", TEXT, nullable=False),
        sa.Column("despite_hold", TEXT, nullable=False),
        sa.Column("finished_at", TEXT),
        sa.PrimaryKeyConstraint("id", name="pk_recalls"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        'withdrawn',
        sa.Column("recall", TEXT, nullable=False),
        sa.Column("feed", TEXT, nullable=False),
        sa.Column("period", TEXT, nullable=False),
        sa.Column("name", TEXT, nullable=False),
        sa.Column("size", sa.BigInteger, nullable=False),
        sa.Column("algorithm", TEXT, nullable=False),
        sa.Column("checksum", TEXT, nullable=False),
        sa.Column("customer", TEXT, nullable=False),
        sa.PrimaryKeyConstraint("feed", "period", "name", "size", "algorithm", "checksum", "customer", "recall", name="pk_withdrawn"),
        sa.ForeignKeyConstraint(['recall'], ['recalls.id'], name="fk_withdrawn_recalls"),
        sqlite_with_rowid=False,
    )
    op.create_index("ix_withdrawn_recall", "withdrawn", ['recall'])
    op.create_table(
        'recall_customers',
        sa.Column("recall", TEXT, nullable=False),
        sa.Column("customer", TEXT, nullable=False),
        sa.Column("state", TEXT, nullable=False),
        sa.Column("updated_at", TEXT, nullable=False),
        sa.Column("objects", sa.BigInteger, nullable=False),
        sa.Column("bytes", sa.BigInteger, nullable=False),
        sa.Column("outcomes", TEXT, nullable=False),
        sa.Column("failure_cause", TEXT),
        sa.Column("failure_responsible", TEXT),
        sa.Column("failure_message", TEXT),
        sa.Column("failure_hint", TEXT),
        sa.Column("failure_retryable", sa.Boolean),
        sa.Column("failure_request_id", TEXT),
        sa.Column("attempts", sa.BigInteger, nullable=False),
        sa.Column("next_attempt_at", TEXT),
        sa.Column("finished_at", TEXT),
        sa.Column("notified_at", TEXT),
        sa.PrimaryKeyConstraint("recall", "customer", name="pk_recall_customers"),
        sa.ForeignKeyConstraint(['recall'], ['recalls.id'], name="fk_recall_customers_recalls"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        'challenges',
        sa.Column("customer", TEXT, nullable=False),
        sa.Column("bucket", TEXT, nullable=False),
        sa.Column("key", TEXT, nullable=False),
        sa.Column("token_sha256", TEXT, nullable=False),
        sa.Column("challenged_at", TEXT, nullable=False),
        sa.Column("person", TEXT, nullable=False),
        sa.Column("tries", sa.BigInteger, nullable=False),
        sa.Column("confirmed_at", TEXT),
        sa.Column("confirmed_by", TEXT),
        sa.PrimaryKeyConstraint("customer", name="pk_challenges"),
        sqlite_with_rowid=False,
    )

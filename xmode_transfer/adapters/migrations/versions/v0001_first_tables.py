"""The first tables."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

# A migration is never changed once it was released, so it has its own words for what tables/ calls the same.
TEXT = sa.Text(collation="C").with_variant(sa.Text(), "sqlite")
ROW_NUMBER = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.create_table(
        "capabilities",
        sa.Column("customer", TEXT, nullable=False),
        sa.Column("multipart", sa.Boolean()),
        sa.Column("abort", sa.Boolean()),
        sa.Column("region", TEXT),
        sa.Column("versioned", sa.Boolean()),
        sa.Column("kms", sa.Boolean()),
        sa.Column("learned_at", TEXT),
        sa.PrimaryKeyConstraint("customer", name=op.f("pk_capabilities")),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "leases",
        sa.Column("name", TEXT, nullable=False),
        sa.Column("generation", sa.BigInteger(), nullable=False),
        sa.Column("holder", TEXT),
        sa.Column("claimed_at", TEXT),
        sa.Column("expires_at", TEXT),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_leases")),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "periods",
        sa.Column("id", ROW_NUMBER, nullable=False),
        sa.Column("customer", TEXT, nullable=False),
        sa.Column("feed", TEXT, nullable=False),
        sa.Column("period", TEXT, nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_periods")),
        sa.UniqueConstraint("customer", "feed", "period", name=op.f("uq_periods_customer_feed_period")),
    )
    op.create_table(
        "deliveries",
        sa.Column("period_id", ROW_NUMBER, nullable=False),
        sa.Column("revision", sa.Integer(), nullable=False),
        sa.Column("id", TEXT, nullable=False),
        sa.Column("status", TEXT, nullable=False),
        sa.Column("created_at", TEXT, nullable=False),
        sa.Column("updated_at", TEXT, nullable=False),
        sa.Column("marker", TEXT, nullable=False),
        sa.Column("object_count", sa.BigInteger(), nullable=False),
        sa.Column("total_bytes", sa.BigInteger(), nullable=False),
        sa.Column("manifest_key", TEXT),
        sa.Column("manifest_checksum", TEXT),
        sa.Column("delivered_at", TEXT),
        sa.Column("failure_cause", TEXT),
        sa.Column("failure_party", TEXT),
        sa.Column("failure_message", TEXT),
        sa.Column("failure_hint", TEXT),
        sa.Column("failure_retryable", sa.Boolean()),
        sa.Column("failure_request_id", TEXT),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("next_attempt_at", TEXT),
        sa.ForeignKeyConstraint(["period_id"], ["periods.id"], name=op.f("fk_deliveries_periods")),
        sa.PrimaryKeyConstraint("period_id", "revision", name=op.f("pk_deliveries")),
        sa.UniqueConstraint("id", name=op.f("uq_deliveries_id")),
        sqlite_with_rowid=False,
    )
    op.create_index(op.f("ix_deliveries_status_updated_at"), "deliveries", ["status", "updated_at"])
    op.create_index(op.f("ix_deliveries_updated_at"), "deliveries", ["updated_at"])
    op.create_table(
        "objects",
        sa.Column("period_id", ROW_NUMBER, nullable=False),
        sa.Column("revision", sa.Integer(), nullable=False),
        sa.Column("name", TEXT, nullable=False),
        sa.Column("key", TEXT, nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("modified_ns", sa.BigInteger(), nullable=False),
        sa.Column("identity", TEXT, nullable=False),
        sa.Column("carried", sa.Boolean(), nullable=False),
        sa.ForeignKeyConstraint(
            ["period_id", "revision"],
            ["deliveries.period_id", "deliveries.revision"],
            name=op.f("fk_objects_deliveries"),
        ),
        sa.PrimaryKeyConstraint("period_id", "revision", "name", name=op.f("pk_objects")),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "runs",
        sa.Column("id", TEXT, nullable=False),
        sa.Column("delivery_id", TEXT, nullable=False),
        sa.Column("started_at", TEXT, nullable=False),
        sa.Column("holder", TEXT, nullable=False),
        sa.Column("engine", TEXT, nullable=False),
        sa.Column("finished_at", TEXT),
        sa.Column("outcome", TEXT),
        sa.Column("uploaded", sa.BigInteger(), nullable=False),
        sa.Column("skipped", sa.BigInteger(), nullable=False),
        sa.Column("failed", sa.BigInteger(), nullable=False),
        sa.Column("bytes", sa.BigInteger(), nullable=False),
        sa.Column("seconds", sa.Double(), nullable=False),
        sa.Column("failure_cause", TEXT),
        sa.Column("failure_party", TEXT),
        sa.Column("failure_message", TEXT),
        sa.Column("failure_hint", TEXT),
        sa.Column("failure_retryable", sa.Boolean()),
        sa.Column("failure_request_id", TEXT),
        sa.ForeignKeyConstraint(["delivery_id"], ["deliveries.id"], name=op.f("fk_runs_deliveries")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_runs")),
        sqlite_with_rowid=False,
    )
    op.create_index(op.f("ix_runs_delivery_id"), "runs", ["delivery_id"])
    op.create_index(op.f("ix_runs_started_at"), "runs", ["started_at"])
    op.create_table(
        "uploads",
        sa.Column("id", ROW_NUMBER, nullable=False),
        sa.Column("upload_id", TEXT, nullable=False),
        sa.Column("delivery_id", TEXT, nullable=False),
        sa.Column("customer", TEXT, nullable=False),
        sa.Column("name", TEXT, nullable=False),
        sa.Column("key", TEXT, nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("modified_ns", sa.BigInteger(), nullable=False),
        sa.Column("identity", TEXT, nullable=False),
        sa.Column("part_size", sa.BigInteger(), nullable=False),
        sa.Column("algorithm", TEXT, nullable=False),
        sa.Column("opened_at", TEXT, nullable=False),
        sa.Column("status", TEXT, nullable=False),
        sa.Column("sent_bytes", sa.BigInteger(), nullable=False),
        sa.Column("abort_at", TEXT),
        sa.ForeignKeyConstraint(["delivery_id"], ["deliveries.id"], name=op.f("fk_uploads_deliveries")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_uploads")),
        sa.UniqueConstraint("upload_id", name=op.f("uq_uploads_upload_id")),
    )
    op.create_index(op.f("ix_uploads_customer"), "uploads", ["customer"])
    op.create_index(op.f("ix_uploads_delivery_id"), "uploads", ["delivery_id"])
    op.create_index(op.f("ix_uploads_status"), "uploads", ["status"])
    op.create_table(
        "receipts",
        sa.Column("period_id", ROW_NUMBER, nullable=False),
        sa.Column("revision", sa.Integer(), nullable=False),
        sa.Column("name", TEXT, nullable=False),
        sa.Column("key", TEXT, nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("algorithm", TEXT, nullable=False),
        sa.Column("checksum", TEXT, nullable=False),
        sa.Column("etag", TEXT, nullable=False),
        sa.Column("delivered_at", TEXT, nullable=False),
        sa.Column("version_id", TEXT),
        sa.Column("sha256", TEXT),
        sa.ForeignKeyConstraint(
            ["period_id", "revision", "name"],
            ["objects.period_id", "objects.revision", "objects.name"],
            name=op.f("fk_receipts_objects"),
        ),
        sa.PrimaryKeyConstraint("period_id", "name", "revision", name=op.f("pk_receipts")),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "upload_parts",
        sa.Column("upload", ROW_NUMBER, nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("etag", TEXT, nullable=False),
        sa.Column("checksum", TEXT, nullable=False),
        sa.ForeignKeyConstraint(["upload"], ["uploads.id"], name=op.f("fk_upload_parts_uploads")),
        sa.PrimaryKeyConstraint("upload", "number", name=op.f("pk_upload_parts")),
        sqlite_with_rowid=False,
    )

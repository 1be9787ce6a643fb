"""A turn's lease is the customer's, which ``run`` takes too."""

from alembic import op

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute(
        "UPDATE leases SET name = 'customer/' || substr(name, 6) WHERE name > 'turn/' AND name < 'turn0'"
    )

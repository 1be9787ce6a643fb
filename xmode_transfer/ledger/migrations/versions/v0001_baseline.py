"""The tables of the first release.

A new ledger is made of the tables as they are (``ledger.schema.create_tables``), so there is nothing
to do here: this is where the migrations of later releases begin.
"""

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Nothing: no ledger is older."""

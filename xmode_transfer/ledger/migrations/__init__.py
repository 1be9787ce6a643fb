"""The schema of the ledger, version by version (Alembic). Applied by ``ledger.schema``."""

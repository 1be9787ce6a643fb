"""The schema of the ledger, version by version (Alembic). Applied by ``adapters.ledger.schema``."""

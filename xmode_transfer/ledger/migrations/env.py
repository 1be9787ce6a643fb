"""Alembic's entry point: it runs the migrations in the transaction of the connection that it is handed."""

from alembic import context

from xmode_transfer.ledger.tables.base import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    render_as_batch=True,
)
with context.begin_transaction():
    context.run_migrations()

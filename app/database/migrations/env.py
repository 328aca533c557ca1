"""What Alembic runs for `flask db upgrade`: app.database.session hands it the connection."""

from alembic import context

from app.database.tables import Table

# Batches, since SQLite cannot alter a table in place.
context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=Table.metadata,
    render_as_batch=True,
    compare_type=True,
)
with context.begin_transaction():
    context.run_migrations()

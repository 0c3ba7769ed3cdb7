"""Alembic's entry point: runs on the connection that `infra.postgres.migrate` opened, in its search path."""

from alembic import context

from runtara.infra.schema import metadata

context.configure(connection=context.config.attributes["connection"], target_metadata=metadata)
with context.begin_transaction():
    context.run_migrations()

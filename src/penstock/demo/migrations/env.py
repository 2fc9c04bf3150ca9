"""Alembic's entry: runs the migrations on the connection that `users.upgrade` passes."""

from alembic import context

from penstock.demo.users.model import Base

context.configure(connection=context.config.attributes["connection"], target_metadata=Base.metadata)
with context.begin_transaction():
    context.run_migrations()

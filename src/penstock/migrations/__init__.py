"""Alembic on a service's database: one runner at a time, short waits for locks, tried again."""

from penstock.migrations.run import MigrationFailed, run

__all__ = ["MigrationFailed", "run"]

"""The SQLAlchemy engine: its pool, its drivers' settings, and what a failed connect says."""

from penstock.engine.build import build_engine
from penstock.engine.snapshot import pool_snapshot

__all__ = ["build_engine", "pool_snapshot"]

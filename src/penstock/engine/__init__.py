"""The SQLAlchemy engine: its pool, its drivers' settings, and what a failed connect says."""

from penstock.engine.build import build_engine
from penstock.engine.failure import ConnectFailed, FailureReason
from penstock.engine.snapshot import pool_snapshot

__all__ = ["ConnectFailed", "FailureReason", "build_engine", "pool_snapshot"]

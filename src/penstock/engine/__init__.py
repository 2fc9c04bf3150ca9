"""The SQLAlchemy engine: its pool, its drivers' settings, and what a failed connect says."""

from penstock.engine.build import build_engine
from penstock.engine.confinement import Confinement
from penstock.engine.options import EngineOptions
from penstock.engine.snapshot import pool_snapshot
from penstock.engine.statements import watch_statements
from penstock.engine.timeouts import (
    LockTimeout,
    StatementTimeout,
    Timeouts,
    TransactionTimeout,
)

__all__ = [
    "Confinement",
    "EngineOptions",
    "LockTimeout",
    "StatementTimeout",
    "Timeouts",
    "TransactionTimeout",
    "build_engine",
    "pool_snapshot",
    "watch_statements",
]

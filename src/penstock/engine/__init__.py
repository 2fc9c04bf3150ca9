"""The SQLAlchemy engine: its pool, its drivers' settings, and what a failed connect says."""

from penstock.engine.address import identity_of
from penstock.engine.build import (
    EngineKeywords,
    EngineOptions,
    build_engine,
    credential_source,
    pool_snapshot,
)
from penstock.engine.connector import ReadOnlyConnections
from penstock.engine.standby import leave_standby, watch_for_standby
from penstock.engine.timeouts import (
    LockTimeout,
    StatementTimeout,
    Timeouts,
    TransactionTimeout,
)

__all__ = [
    "EngineKeywords",
    "EngineOptions",
    "LockTimeout",
    "ReadOnlyConnections",
    "StatementTimeout",
    "Timeouts",
    "TransactionTimeout",
    "build_engine",
    "credential_source",
    "identity_of",
    "leave_standby",
    "pool_snapshot",
    "watch_for_standby",
]

"""The database layer that a FastAPI service needs in production."""

from penstock.database import (
    BudgetExceeded,
    CommitOutcomeUnknown,
    Database,
    ReadOnlyError,
    ReadOnlySession,
    SessionBusy,
    SessionClosed,
)
from penstock.errors import PenstockError, SettingsError
from penstock.findings import Finding, Severity
from penstock.pool import (
    ConnectFailed,
    LoanReclaimed,
    NestedCheckout,
    PenstockPool,
    PoolClosed,
    PoolFull,
    PoolInAnotherLoop,
    PoolSnapshot,
    PoolSuspended,
    PoolTimeout,
)
from penstock.settings import DatabaseSettings, Environment, Proxy, SizePreset

__all__ = [
    "BudgetExceeded",
    "CommitOutcomeUnknown",
    "ConnectFailed",
    "Database",
    "DatabaseSettings",
    "Environment",
    "Finding",
    "LoanReclaimed",
    "NestedCheckout",
    "PenstockError",
    "PenstockPool",
    "PoolClosed",
    "PoolFull",
    "PoolInAnotherLoop",
    "PoolSnapshot",
    "PoolSuspended",
    "PoolTimeout",
    "Proxy",
    "ReadOnlyError",
    "ReadOnlySession",
    "SessionBusy",
    "SessionClosed",
    "SettingsError",
    "Severity",
    "SizePreset",
]

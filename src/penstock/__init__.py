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
from penstock.engine import ConnectFailed
from penstock.errors import PenstockError, SettingsError
from penstock.findings import Finding, Severity
from penstock.pool import PoolSnapshot
from penstock.settings import DatabaseSettings, Environment, Proxy, SizePreset

__all__ = [
    "BudgetExceeded",
    "CommitOutcomeUnknown",
    "ConnectFailed",
    "Database",
    "DatabaseSettings",
    "Environment",
    "Finding",
    "PenstockError",
    "PoolSnapshot",
    "Proxy",
    "ReadOnlyError",
    "ReadOnlySession",
    "SessionBusy",
    "SessionClosed",
    "SettingsError",
    "Severity",
    "SizePreset",
]

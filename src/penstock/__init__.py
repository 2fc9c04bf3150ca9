"""The database layer that a FastAPI service needs in production."""

from penstock.context import ContextError, ContextRequired, SessionContext
from penstock.database import (
    BudgetExceeded,
    CommitOutcomeUnknown,
    Database,
    ReadOnlyAsyncSession,
    ReadOnlyError,
    ReadOnlySession,
    SelfDeadlock,
    SessionBusy,
    SessionClosed,
)
from penstock.deadlines import DeadlineExceeded
from penstock.engine import LockTimeout, StatementTimeout, TransactionTimeout
from penstock.errors import PenstockError, SettingsError
from penstock.express import (
    ExpressError,
    ParameterError,
    Query,
    QueryRefused,
    Reader,
    Writer,
    query,
)
from penstock.findings import Finding, Severity
from penstock.pool import (
    ConnectFailed,
    LeaseReclaimed,
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
    "ContextError",
    "ContextRequired",
    "Database",
    "DatabaseSettings",
    "DeadlineExceeded",
    "Environment",
    "ExpressError",
    "Finding",
    "LeaseReclaimed",
    "LockTimeout",
    "NestedCheckout",
    "ParameterError",
    "PenstockError",
    "PenstockPool",
    "PoolClosed",
    "PoolFull",
    "PoolInAnotherLoop",
    "PoolSnapshot",
    "PoolSuspended",
    "PoolTimeout",
    "Proxy",
    "Query",
    "QueryRefused",
    "ReadOnlyAsyncSession",
    "ReadOnlyError",
    "ReadOnlySession",
    "Reader",
    "SelfDeadlock",
    "SessionBusy",
    "SessionClosed",
    "SessionContext",
    "SettingsError",
    "Severity",
    "SizePreset",
    "StatementTimeout",
    "TransactionTimeout",
    "Writer",
    "query",
]

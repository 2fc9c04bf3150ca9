"""Every error that Penstock raises on its own account, and what each is a kind of."""

from penstock.base_error import PenstockError, SettingsError
from penstock.context import ContextError, ContextRequired
from penstock.database import (
    BudgetExceeded,
    CommitOutcomeUnknown,
    ReadOnlyError,
    SelfDeadlock,
    SessionBusy,
    SessionClosed,
)
from penstock.deadlines import DeadlineExceeded
from penstock.engine import LockTimeout, StatementTimeout, TransactionTimeout
from penstock.express import ExpressError, ParameterError, QueryRefused
from penstock.pool import (
    ConnectFailed,
    LeaseReclaimed,
    NestedCheckout,
    PoolClosed,
    PoolFull,
    PoolInAnotherLoop,
    PoolSuspended,
    PoolTimeout,
)

__all__ = [
    "BudgetExceeded",
    "CommitOutcomeUnknown",
    "ConnectFailed",
    "ContextError",
    "ContextRequired",
    "DeadlineExceeded",
    "ExpressError",
    "LeaseReclaimed",
    "LockTimeout",
    "NestedCheckout",
    "ParameterError",
    "PenstockError",
    "PoolClosed",
    "PoolFull",
    "PoolInAnotherLoop",
    "PoolSuspended",
    "PoolTimeout",
    "QueryRefused",
    "ReadOnlyError",
    "SelfDeadlock",
    "SessionBusy",
    "SessionClosed",
    "SettingsError",
    "StatementTimeout",
    "TransactionTimeout",
]

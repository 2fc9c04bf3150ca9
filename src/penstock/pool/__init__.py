"""The connection pool: a ledger that decides, and what carries its decisions out."""

from penstock.pool.errors import (
    ConnectFailed,
    FailureReason,
    LeaseReclaimed,
    NestedCheckout,
    PoolClosed,
    PoolFull,
    PoolInAnotherLoop,
    PoolSuspended,
    PoolTimeout,
)
from penstock.pool.events import PoolSnapshot
from penstock.pool.leak import enclosing_tasks, holds_connection
from penstock.pool.policy import PoolPolicy
from penstock.pool.pool import PenstockPool
from penstock.pool.record import Holder, current_holder, current_route, task_of

__all__ = [
    "ConnectFailed",
    "FailureReason",
    "Holder",
    "LeaseReclaimed",
    "NestedCheckout",
    "PenstockPool",
    "PoolClosed",
    "PoolFull",
    "PoolInAnotherLoop",
    "PoolPolicy",
    "PoolSnapshot",
    "PoolSuspended",
    "PoolTimeout",
    "current_holder",
    "current_route",
    "enclosing_tasks",
    "holds_connection",
    "task_of",
]

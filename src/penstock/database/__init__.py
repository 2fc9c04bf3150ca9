"""Databases and their sessions, for requests, scripts and workers alike."""

from penstock.database.connection_lock import (
    ReadOnlyError,
    SelfDeadlock,
    SessionBusy,
    SessionClosed,
)
from penstock.database.database import Database
from penstock.database.lifecycle import BudgetExceeded
from penstock.database.read_session import ReadOnlyAsyncSession, ReadOnlySession
from penstock.database.unit import UnitLane, UnitOfWork
from penstock.express import CommitOutcomeUnknown

__all__ = [
    "BudgetExceeded",
    "CommitOutcomeUnknown",
    "Database",
    "ReadOnlyAsyncSession",
    "ReadOnlyError",
    "ReadOnlySession",
    "SelfDeadlock",
    "SessionBusy",
    "SessionClosed",
    "UnitLane",
    "UnitOfWork",
]

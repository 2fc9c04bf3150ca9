"""Databases and their sessions, for requests, scripts and workers alike."""

from penstock.database.database import Database
from penstock.database.errors import (
    BudgetExceeded,
    ReadOnlyError,
    SelfDeadlock,
    SessionBusy,
    SessionClosed,
)
from penstock.database.read_only import ReadOnlyAsyncSession, ReadOnlySession
from penstock.database.unit import UnitOfWork
from penstock.database.unit_lane import UnitLane
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

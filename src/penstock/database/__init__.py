"""Databases and their sessions, for requests, scripts and workers alike."""

from penstock.database.database import Database
from penstock.database.lifecycle import BudgetExceeded
from penstock.database.members import of_primary
from penstock.database.nesting import SessionBusy
from penstock.database.read_session import ReadOnlyAsyncSession, ReadOnlyError, ReadOnlySession
from penstock.database.session import SessionClosed
from penstock.database.unit import UnitOfWork
from penstock.database.unit_lane import SelfDeadlock, UnitLane
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
    "of_primary",
]

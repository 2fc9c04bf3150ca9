"""The database layer that a FastAPI service needs in production."""

from penstock.base_error import PenstockError
from penstock.context import SessionContext
from penstock.database import Database, ReadOnlyAsyncSession
from penstock.express import Query, query
from penstock.findings import Finding, Severity
from penstock.pool import PenstockPool, PoolSnapshot
from penstock.settings import DatabaseSettings, Environment, Proxy, SizePreset

__all__ = [
    "Database",
    "DatabaseSettings",
    "Environment",
    "Finding",
    "PenstockError",
    "PenstockPool",
    "PoolSnapshot",
    "Proxy",
    "Query",
    "ReadOnlyAsyncSession",
    "SessionContext",
    "Severity",
    "SizePreset",
    "query",
]

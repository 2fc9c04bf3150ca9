"""The express lane: SQLAlchemy's statements, compiled once, at the driver's speed."""

from penstock.express.driver_lane import DriverLane
from penstock.express.errors import (
    CommitOutcomeUnknown,
    ExpressError,
    ParameterError,
    QueryRefused,
)
from penstock.express.json import JsonQuery
from penstock.express.lane import Lane, SqlalchemyLane
from penstock.express.query import Query, query
from penstock.express.reader import Reader
from penstock.express.writer import Writer

__all__ = [
    "CommitOutcomeUnknown",
    "DriverLane",
    "ExpressError",
    "JsonQuery",
    "Lane",
    "ParameterError",
    "Query",
    "QueryRefused",
    "Reader",
    "SqlalchemyLane",
    "Writer",
    "query",
]

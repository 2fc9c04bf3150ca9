"""Penstock for FastAPI: one call that installs it, and the dependencies that routes ask for."""

try:
    import fastapi  # noqa: F401 - to say below what is missing
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        "penstock.fastapi needs FastAPI, which is not installed. Install it with\n"
        "  pip install 'penstock[fastapi]'",
        name=error.name,
    ) from error

from penstock.fastapi.dependencies import (
    CurrentDatabase,
    Reader,
    ReadSession,
    Writer,
    WriteSession,
    current_database,
    read_session,
    reader,
    statement_timeout,
    write_session,
    writer,
)
from penstock.fastapi.errors import Problem, handle_database_errors
from penstock.fastapi.install import install
from penstock.fastapi.middleware import SessionScope
from penstock.fastapi.positions import read_policy
from penstock.fastapi.responses import JSONBytes

__all__ = [
    "CurrentDatabase",
    "JSONBytes",
    "Problem",
    "ReadSession",
    "Reader",
    "SessionScope",
    "WriteSession",
    "Writer",
    "current_database",
    "handle_database_errors",
    "install",
    "read_policy",
    "read_session",
    "reader",
    "statement_timeout",
    "write_session",
    "writer",
]

"""What the text of an error says: the fault, and nobody's values."""

import re
from typing import Any

from sqlalchemy.exc import DBAPIError, SQLAlchemyError, StatementError

from penstock.drivers.driver import CONTEXT_REFUSED
from penstock.drivers.shapes import without_literals
from penstock.errors import PenstockError

__all__ = ["hide_values"]

_QUOTED = re.compile(r'"[^"]*"?')
_AFTER = re.compile(r" at or near .*", re.DOTALL)
"""What the server quotes of a statement that it cannot parse."""
_MYSQLS_VALUE = re.compile(r"(entry|value:?|near) (?:'.*'(?= for (?:key|column) )|'.*')", re.DOTALL)
_CLASS = re.compile(r"<class '[\w.]+'>: ")
"""What SQLAlchemy puts in front of the text of asyncpg."""
_DATA = "22"
"""The class of SQLSTATEs whose messages quote the value that was refused.

https://www.postgresql.org/docs/current/errcodes-appendix.html
"""


def hide_values(error: StatementError, dialect: Any) -> None:
    """Leave values and literals out of an error's text.

    What the driver has attached to its own error stays there for programs, such as asyncpg's
    ``detail`` and psycopg's ``diag``.

    Args:
        error: As SQLAlchemy raises it.
        dialect: SQLAlchemy's, of the engine.
    """
    is_mysql = dialect.name in ("mysql", "mariadb")
    if error.statement:
        error.statement = without_literals(error.statement, is_mysql=is_mysql)
    orig = error.orig
    if orig is None or isinstance(orig, SQLAlchemyError):
        return
    kind = f"({type(orig).__module__}.{type(orig).__name__})"
    if not isinstance(error, DBAPIError):
        error.args = (f"{kind} a value cannot be converted",)
        return
    sqlstate = getattr(orig, "sqlstate", None) or ""
    orig.args = tuple(
        _without_values(said, sqlstate, dialect.name) if isinstance(said, str) else said
        for said in orig.args
    )
    if not isinstance(error, PenstockError):  # whose message is its own
        error.args = (f"{kind} {orig}",)


def _without_values(said: str, sqlstate: str, dialect: str) -> str:
    if dialect != "postgresql":
        return _MYSQLS_VALUE.sub(r"\1 '...'", _QUOTED.sub('"..."', said))
    prefix = found[0] if (found := _CLASS.match(said)) else ""
    message = said[len(prefix) :]
    if message.startswith(CONTEXT_REFUSED):
        return said  # of which the values are known, and left out
    if sqlstate.startswith(_DATA):
        message = _QUOTED.sub('"..."', message.partition(": ")[0])
    # Behind it are the server's DETAIL, which has the row, and what surrounds the statement.
    return prefix + _AFTER.sub("", message.partition("\n")[0])

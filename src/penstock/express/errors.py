"""What can go wrong in the express lane: its own errors, and the driver's in SQLAlchemy's words."""

import asyncio
from collections.abc import Sequence
from typing import Any

from asyncpg.exceptions import (
    InternalClientError,
    InvalidCachedStatementError,
    OutdatedSchemaCacheError,
)
from sqlalchemy.exc import DBAPIError, InvalidRequestError, SQLAlchemyError, StatementError
from sqlalchemy.ext.asyncio import AsyncEngine

from penstock.base_error import PenstockError
from penstock.deadlines import DeadlineExceeded
from penstock.drivers.sqlalchemy_internals import adapted_error
from penstock.engine.timeouts import Timeouts, hide_values

UNKNOWN = (
    "The write was sent, and no answer came {}: it may or may not have been saved. Look for it "
    "before repeating it."
)


class ExpressError(PenstockError, InvalidRequestError):
    """The express lane does not do what was called for; nothing was sent."""


class QueryRefused(ExpressError):  # noqa: N818 - it reads as what happened, like SQLAlchemy's
    """A statement that the express lane cannot run as a session would; the message says why."""


class ParameterError(ExpressError):
    """Values that do not fit the statement: the message names what is missing or unknown."""


class LaneEnded(ExpressError):  # noqa: N818 - it reads as what happened
    """A snapshot or a stream was used after its end."""


class CommitOutcomeUnknown(PenstockError, SQLAlchemyError):  # noqa: N818 - as above
    """The COMMIT was sent and its answer was lost: the work may or may not have been saved.

    It is never retried. Look whether the work is there before it is repeated.
    """


def raise_if_unknown(error: DeadlineExceeded) -> None:
    """Say of a write that the time was up for after it had been sent that its outcome is unknown.

    Raises:
        CommitOutcomeUnknown: It had been sent.
    """
    if error.outcome_unknown:
        raise CommitOutcomeUnknown(UNKNOWN.format(f"within {error.limit}")) from error


_LONGEST_SHOWN = 200
"""Characters of a statement that an error's message has."""

_GONE = ("08", "57P01", "57P02", "57P03")
"""SQLSTATEs with which the server ends a connection: connection exceptions, and its shutdown.

https://www.postgresql.org/docs/current/errcodes-appendix.html
"""


def is_lost(connection: Any, error: BaseException) -> bool:
    """Return whether an error means that the connection is gone, and with it the answer.

    Args:
        connection: asyncpg's.
        error: What it raised.
    """
    if not isinstance(error, Exception) or was_interrupted(error):
        return False
    sqlstate: str = getattr(error, "sqlstate", None) or ""
    # The last is an answer that the driver did not expect, such as the server's farewell.
    is_gone = isinstance(error, OSError | InternalClientError)
    return is_gone or sqlstate.startswith(_GONE) or connection.is_closed()


def is_shutdown(error: BaseException) -> bool:
    """Return whether the server ended the connection for a reason outside of the statement.

    It shuts down, an administrator has ended the connection, or another of its processes has
    crashed.

    Args:
        error: What a session would raise.
    """
    return getattr(getattr(error, "orig", None), "sqlstate", None) in ("57P01", "57P02")


def was_interrupted(error: BaseException) -> bool:
    """Return whether the driver asks the server to cancel: the caller no longer waits."""
    return isinstance(error, asyncio.CancelledError | TimeoutError)


def is_outdated(
    connection: Any, error: BaseException, *, writes: bool, rolls_back_after: bool = False
) -> bool:
    """Return whether a statement failed for what asyncpg knows of types, and may be sent again.

    A table or a type was altered, or dropped and made anew, while statements were prepared with
    the old one.

    Args:
        connection: asyncpg's.
        error: What it raised.
        writes: Whether the statement writes: then only if it has not run.
        rolls_back_after: Whether the open transaction was rolled back to before it.
    """
    is_over = rolls_back_after or not connection.is_in_transaction()
    if not isinstance(error, Exception) or not is_over:
        return False
    if isinstance(error, OutdatedSchemaCacheError):  # found out when the answer was there
        return not writes
    if isinstance(error, InvalidCachedStatementError):  # said before it would have run
        return True
    is_internal = getattr(error, "sqlstate", None) == "XX000"
    return is_internal and "cache lookup failed" in str(error)


def shortened(sql: str) -> str:
    """Return as much of a statement as an error's message has."""
    return " ".join(sql[:_LONGEST_SHOWN].split())


def not_read(sql: str) -> QueryRefused:
    """Return the error for a statement that a reader does not run."""
    return QueryRefused(
        "A reader runs SELECT, WITH, VALUES, TABLE, SHOW and EXPLAIN: give anything else to the "
        f"writer, or to a session. {shortened(sql)}"
    )


def not_converted(error: Exception, sql: str, values: Any) -> StatementError:
    """Return the error that a session would raise where a value cannot be made the driver's.

    Args:
        error: What its type raised.
        sql: What was to be sent.
        values: What was given; the message does not show it.
    """
    kind = type(error)
    said = f"({kind.__module__}.{kind.__qualname__}) a value cannot be converted"
    return StatementError(said, sql, values, error, hide_parameters=True)


class ErrorTranslator:
    """Puts the driver's errors into a session's words.

    Args:
        engine: Whose connections raise them.
        command_timeout: Seconds that a statement may take.
    """

    def __init__(self, engine: AsyncEngine, command_timeout: float) -> None:
        self._dialect = engine.dialect
        self._engine = engine.sync_engine
        self._timeouts = Timeouts("asyncpg", command_timeout)

    def translate(
        self, adapter: Any, error: BaseException, sql: str, arguments: Any
    ) -> BaseException:
        """Return the error that a session would raise.

        Args:
            adapter: SQLAlchemy's, around the driver's connection.
            error: What the driver raised, or the conversion of a value.
            sql: What was sent.
            arguments: With which values; shown only where the engine shows them.
        """
        sql, arguments = getattr(error, "statement_sent", (sql, arguments))
        timeout = self._timeouts.error_for(
            error,
            adapter,
            sql,
            tuple(arguments),
            hide_parameters=self._engine.hide_parameters,
            connection_invalidated=adapter.driver_connection.is_closed(),
        )
        if timeout is None:
            return self._translated(adapter, error, sql, arguments)
        timeout.__cause__ = error
        return timeout

    def _translated(
        self, adapter: Any, error: BaseException, sql: str, arguments: Sequence[Any]
    ) -> BaseException:
        if not isinstance(error, Exception) or isinstance(error, StatementError | TimeoutError):
            return error
        dialect, hides = self._dialect, self._engine.hide_parameters
        base: Any = dialect.loaded_dbapi.Error
        orig = adapted_error(adapter, error)
        if not isinstance(orig, base):
            return error
        raised: Any = DBAPIError.instance(
            sql,
            tuple(arguments),
            orig,
            base,
            hide_parameters=hides,
            connection_invalidated=dialect.is_disconnect(orig, adapter, None),
            dialect=dialect,
        )
        raised.__cause__ = orig
        if hides:
            hide_values(raised, dialect)
        return raised  # type: ignore[no-any-return]  # an error

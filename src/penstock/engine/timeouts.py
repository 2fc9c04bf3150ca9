"""Texts of errors without values, and limits named by their settings."""

import re
from collections.abc import Callable
from typing import Any

from sqlalchemy import Engine, ExceptionContext, event
from sqlalchemy.exc import DBAPIError, OperationalError, SQLAlchemyError, StatementError

from penstock.base_error import PenstockError
from penstock.deadlines import StatementLimit
from penstock.drivers.driver import CONTEXT_REFUSED
from penstock.drivers.sql_text import without_literals
from penstock.pool.errors import ConnectFailed, FailureReason, chain_of, has_no_server
from penstock.settings import DatabaseSettings

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


_TRANSACTION_TIMEOUTS = {
    "25P03": "idle_in_transaction_session_timeout",
    "25P04": "transaction_timeout",
}
"""SQLSTATEs with which the server ends a connection, and the settings that had it do so.

https://www.postgresql.org/docs/current/errcodes-appendix.html
"""
_CANCELLED, _NO_LOCK = "57014", "55P03"
_STATEMENT_TIMEOUT, _LOCK_TIMEOUT = "due to statement timeout", "due to lock timeout"
_BY_USER = "due to user request"
"""What the server says in English; in other languages a limit is known from having been set."""


class StatementTimeout(PenstockError, OperationalError, TimeoutError):  # noqa: N818 - as SQLAlchemy's
    """A statement took longer than it may; where the server ended it, nothing of it is saved.

    Args:
        message: The limit, the setting that it comes from, and what to do.
        orig: The driver's error.
        statement: The SQL; None for COMMIT.
        params: Its values.
        hide_parameters: Whether the text keeps them to itself.
        connection_invalidated: Whether the connection is gone.

    Attributes:
        limit: The setting that the client keeps, and its value; empty where the server does.
        outcome_unknown: Whether a write or a COMMIT may have been saved all the same: the server
            has not answered.
    """

    limit = ""
    outcome_unknown = False
    code = None  # type: ignore[assignment]  # SQLAlchemy's page on such errors has nothing to add

    def __init__(
        self,
        message: str,
        orig: BaseException,
        statement: str | None = None,
        params: Any = None,
        *,
        hide_parameters: bool = True,
        connection_invalidated: bool = False,
    ) -> None:
        super().__init__(statement, params, orig, hide_parameters, connection_invalidated)
        self.args = (message,)


class LockTimeout(StatementTimeout):
    """A statement waited for a lock longer than ``lock_timeout``."""


class TransactionTimeout(StatementTimeout):
    """The server has ended a transaction that was open, or idle, for longer than it may be."""


class Timeouts:
    """Finds which limit, of one database or of its pooler, a driver's error comes from.

    Args:
        driver: Whose errors.
        command_timeout: The setting, in seconds.
    """

    def __init__(self, driver: str, command_timeout: float) -> None:
        self._is_postgresql = driver in ("asyncpg", "psycopg")
        self._is_client_side = driver == "asyncpg"
        self._command_timeout = f"command_timeout={command_timeout:g} s"

    def error_for(
        self,
        error: BaseException,
        adapter: Any,
        statement: str | None = None,
        params: Any = None,
        *,
        hide_parameters: bool = True,
        connection_invalidated: bool = False,
    ) -> Exception | None:
        """Return the error to raise in the place of a driver's; None where no limit was met.

        Args:
            error: The driver's, or SQLAlchemy's translation of it.
            adapter: SQLAlchemy's, around the driver's connection; None where that is gone.
            statement: The SQL; None for COMMIT.
            params: Its values.
            hide_parameters: Whether the text keeps them to itself.
            connection_invalidated: Whether the connection is gone.
        """
        if connection_invalidated and has_no_server(error):
            return ConnectFailed(f"{_NO_SERVER}: {error}", FailureReason.NOT_READY)
        found = self._found(error, adapter)
        if found is None or isinstance(found, Exception):
            return found
        kind, message, outcome_unknown = found
        timeout = kind(
            message,
            error,
            statement,
            params,
            hide_parameters=hide_parameters,
            connection_invalidated=connection_invalidated,
        )
        if outcome_unknown:
            timeout.outcome_unknown, timeout.limit = True, self._command_timeout
        return timeout

    def _found(
        self, error: BaseException, adapter: Any
    ) -> "tuple[type[StatementTimeout], str, bool] | Exception | None":
        if type(error) is TimeoutError and not error.args and self._is_postgresql:
            return StatementTimeout, self._unanswered(), True
        if not isinstance(error, Exception) or isinstance(error, PenstockError):
            return None
        sqlstates = [getattr(link, "sqlstate", None) for link in chain_of(error, causes_only=True)]
        sqlstates.append(getattr(adapter, "ended_by", ""))
        for sqlstate, setting in _TRANSACTION_TIMEOUTS.items():
            if sqlstate in sqlstates:
                return TransactionTimeout, _ended(setting), False
        if sqlstates[0] == _NO_LOCK and _LOCK_TIMEOUT in str(error):
            return LockTimeout, _NOT_LOCKED, False
        if sqlstates[0] == _CANCELLED and _BY_USER not in str(error):
            return self._cancelled(error, getattr(adapter, "limit", None))
        return None

    def _cancelled(
        self, error: BaseException, limit: StatementLimit | None
    ) -> "tuple[type[StatementTimeout], str, bool] | Exception | None":
        if limit is not None and limit.deadline is not None:
            return limit.deadline.exceeded("The server has ended the statement")
        if limit is not None:
            return StatementTimeout, _AT_THE_SERVER.format(limit.limit, _OF_THE_ROUTE), False
        if _STATEMENT_TIMEOUT not in str(error):
            return None
        if self._is_client_side:
            return StatementTimeout, _AT_THE_SERVER.format("its statement_timeout", _OWN), False
        limit_met = f"its statement_timeout, which is {self._command_timeout} by default"
        return StatementTimeout, _AT_THE_SERVER.format(limit_met, _OWN), False

    def _unanswered(self) -> str:
        return (
            f"No answer came within {self._command_timeout}; the statement is being cancelled. "
            "Give it less to do, or raise command_timeout (DATABASE_COMMAND_TIMEOUT)."
        )


_NO_SERVER = (
    "The pooler had no server connection, and nothing of the transaction has reached PostgreSQL"
)
_AT_THE_SERVER = (
    "The server ended the statement after {}; nothing of it is saved. Give it less to do, or {}."
)
_OF_THE_ROUTE = "raise that: statement_timeout() of the route, or of install()"
_OWN = (
    "raise that: it is set by a SET, by server_settings, by ALTER ROLE or ALTER DATABASE, or in "
    "postgresql.conf"
)
_NOT_LOCKED = (
    "The statement waited for a lock longer than its lock_timeout; nothing of it is saved. Try "
    f"again, end what holds the lock (pg_blocking_pids()), or {_OWN}."
)


def _ended(setting: str) -> str:
    return (
        f"The server ended the connection after {setting}; nothing of its transaction is saved. "
        f"Keep transactions short (no waiting for others within one), or {_OWN}."
    )


def explain_timeouts(engine: Engine, settings: DatabaseSettings) -> None:
    """Have an engine raise what names the limit, where a statement has run into one.

    Args:
        engine: On any driver. The listener is its dialect's: with a listener to an event of the
            engine's, it looks for others at each statement.
        settings: Of its database.
    """
    timeouts = Timeouts(settings.driver, settings.command_timeout)
    event.listen(engine.dialect, "handle_error", _explaining(timeouts))


def _explaining(timeouts: Timeouts) -> Callable[[ExceptionContext], Exception | None]:
    def explain(context: ExceptionContext) -> Exception | None:
        hides = context.engine is None or context.engine.hide_parameters
        met = timeouts.error_for(
            context.original_exception,
            _adapter_of(context.connection),
            context.statement,
            context.parameters,
            hide_parameters=hides,
            connection_invalidated=context.is_disconnect,
        )
        raised = met or context.sqlalchemy_exception
        if hides and isinstance(raised, StatementError):
            hide_values(raised, context.dialect)
        return met

    return explain


def _adapter_of(connection: Any) -> Any:
    if connection is None or connection.closed or connection.invalidated:
        return None
    return connection.connection.dbapi_connection

"""Database errors of an application: handled, answered by RFC 9457 problem details, and logged."""

import inspect
import logging
import re
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from http import HTTPStatus
from time import monotonic
from typing import Any

from sqlalchemy.exc import DataError, DBAPIError, IntegrityError, NoResultFound
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.orm.exc import StaleDataError
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import HTTPConnection
from starlette.responses import JSONResponse, Response

from penstock.database import CommitOutcomeUnknown
from penstock.deadlines import DeadlineExceeded
from penstock.drivers.driver import is_outdated_plan
from penstock.engine import LockTimeout, StatementTimeout, TransactionTimeout
from penstock.fastapi.middleware import is_accepted, route_of
from penstock.log_limit import LogLimit
from penstock.pool import ConnectFailed, NestedCheckout, PoolClosed, PoolSuspended, PoolTimeout


class Problem(JSONResponse):
    """An ``application/problem+json`` answer.

    Args:
        status: The HTTP status.
        code: A stable word for programs, such as ``unique_violation``.
        detail: One sentence for people, the same for every occurrence.
        retry_after: Seconds after which asking again is safe and may succeed; None where asking
            again is not known to be safe.
    """

    media_type = "application/problem+json"

    def __init__(
        self, status: HTTPStatus, code: str, detail: str, retry_after: int | None = None
    ) -> None:
        content = {"title": status.phrase, "status": status.value, "code": code, "detail": detail}
        headers = None if retry_after is None else {"Retry-After": str(retry_after)}
        super().__init__(content, status_code=status.value, headers=headers)


@dataclass(frozen=True, slots=True)
class Answer:
    """What :class:`Problem` is made of, for one kind of error.

    Args:
        status: The HTTP status.
        code: The kind of error, for programs.
        detail: The kind of error, for people; without values, names or addresses.
        retry_after: Seconds after which to ask again; None where that is of no use.
        is_programs: Whether the program is at fault, though the client is told of a conflict.
    """

    status: HTTPStatus
    code: str
    detail: str
    retry_after: int | None = None
    is_programs: bool = False

    def problem(self) -> Problem:
        """Return the response."""
        return Problem(self.status, self.code, self.detail, self.retry_after)


_NO_ROW = Answer(HTTPStatus.NOT_FOUND, "not_found", "There is no such record.")
_CONTRADICTION = Answer(
    HTTPStatus.CONFLICT,
    "integrity_violation",
    "The request contradicts data that is already stored.",
)
_STALE = Answer(
    HTTPStatus.CONFLICT,
    "stale_data",
    "The record was changed or deleted by another request in the meantime.",
)
_INVALID_VALUE = Answer(
    HTTPStatus.UNPROCESSABLE_ENTITY,
    "invalid_value",
    "The request has a value that the database cannot store or compute with.",
)
_TOO_LARGE = Answer(
    HTTPStatus.UNPROCESSABLE_ENTITY,
    "value_too_large",
    "The request has a value that is larger than the database can store.",
)
_EXHAUSTED = Answer(
    HTTPStatus.SERVICE_UNAVAILABLE,
    "pool_exhausted",
    "Every database connection is in use.",
    retry_after=1,
)
_SUSPENDED = Answer(
    HTTPStatus.SERVICE_UNAVAILABLE,
    "pool_suspended",
    "The database is not to be used for the moment.",
    retry_after=5,
)
_CLOSED = Answer(
    HTTPStatus.SERVICE_UNAVAILABLE,
    "pool_closed",
    "The service is shutting down.",
    retry_after=5,
)
_UNREACHABLE = Answer(
    HTTPStatus.SERVICE_UNAVAILABLE,
    "database_unavailable",
    "The database cannot be reached.",
    retry_after=5,
)
_CONFLICT = Answer(
    HTTPStatus.SERVICE_UNAVAILABLE,
    "transaction_conflict",
    "The request met another one and was undone.",
    retry_after=1,
)
_CONNECTION_LOST = Answer(
    HTTPStatus.SERVICE_UNAVAILABLE,
    "database_connection_lost",
    "The connection to the database broke while the request was at work.",
)
_OUT_OF_RESOURCES = Answer(
    HTTPStatus.SERVICE_UNAVAILABLE,
    "database_out_of_resources",
    "The database has run out of disk or memory, and the request was undone.",
    retry_after=30,
)
_STATEMENT_TIMEOUT = Answer(
    HTTPStatus.SERVICE_UNAVAILABLE,
    "statement_timeout",
    "The database took too long, and the request was undone.",
)
_CANCELLED = Answer(
    HTTPStatus.SERVICE_UNAVAILABLE,
    "statement_cancelled",
    "The database's operator ended the statement, and the request was undone.",
)
_LOCK_TIMEOUT = Answer(
    HTTPStatus.SERVICE_UNAVAILABLE,
    "lock_timeout",
    "The request waited too long for another one, and was undone.",
    retry_after=1,
)
_LOCKED = Answer(
    HTTPStatus.SERVICE_UNAVAILABLE,
    "lock_not_available",
    "Another request is at work on the same data, and this one was undone.",
    retry_after=1,
)
_SCHEMA_CHANGED = Answer(
    HTTPStatus.SERVICE_UNAVAILABLE,
    "schema_changed",
    "The database's schema was changed in the meantime, and the request was undone.",
    retry_after=1,
)
_TRANSACTION_TIMEOUT = Answer(
    HTTPStatus.SERVICE_UNAVAILABLE,
    "transaction_timeout",
    "The request kept its transaction open for too long, and was undone.",
)
_TIMED_OUT = Answer(
    HTTPStatus.SERVICE_UNAVAILABLE,
    "deadline_exceeded",
    "The database did not answer within the time that the service allows.",
)
_CALLER_TIMED_OUT = Answer(
    HTTPStatus.GATEWAY_TIMEOUT,
    "deadline_exceeded",
    "The time that the request allows was up before the database had answered.",
)
_OUTCOME_UNKNOWN = Answer(
    HTTPStatus.SERVICE_UNAVAILABLE,
    "commit_outcome_unknown",
    "The work may or may not have been saved. Look for it before asking again.",
)
_INTERNAL = Answer(
    HTTPStatus.INTERNAL_SERVER_ERROR, "internal_error", "The request could not be completed."
)

_INTEGRITY = {
    sqlstate: replace(_CONTRADICTION, code=code, is_programs=is_programs)
    for sqlstate, code, is_programs in (
        ("23001", "restrict_violation", False),
        ("23502", "not_null_violation", True),
        ("23503", "foreign_key_violation", False),
        ("23505", "unique_violation", False),
        ("23514", "check_violation", True),
        ("23P01", "exclusion_violation", False),
        ("44000", "check_violation", True),  # of a view, WITH CHECK OPTION
    )
}
"""PostgreSQL's SQLSTATEs: https://www.postgresql.org/docs/current/errcodes-appendix.html"""
_BY_SQLSTATE: Mapping[str, Answer] = {
    **_INTEGRITY,
    "23": _CONTRADICTION,
    "40001": _CONFLICT,
    "40P01": _CONFLICT,
    "53": _OUT_OF_RESOURCES,
    "55P03": _LOCKED,
    "57014": _CANCELLED,
}
"""By a whole SQLSTATE, or by its class."""
_BY_VALUE: Mapping[str, Answer] = {"22": _INVALID_VALUE, "54": _TOO_LARGE}
"""By class: the fault of a value where the statement has any, and of the statement if not."""

_REFUSED_ARGUMENT = re.compile(r"invalid input (?:for query argument \$(\d+)|in row \d+)")
"""asyncpg's words for a value that it does not send, and the express lane's for one of COPY."""
_COPY = "COPY "
"""How a statement begins whose values are no parameters of it."""
_INT4 = 2**31
"""Where PostgreSQL's ``integer`` ends, which most keys are."""


def _integrity(error: IntegrityError, _: HTTPConnection) -> Answer:
    return _INTEGRITY.get(_sqlstate(error), _CONTRADICTION)


def _deadline(error: DeadlineExceeded, _: HTTPConnection) -> Answer:
    if error.is_callers:
        return _CALLER_TIMED_OUT
    # Where nothing but waiting for a connection has taken the time, asking again is safe.
    waited = isinstance(error.__cause__, PoolTimeout)
    return replace(_TIMED_OUT, retry_after=1) if waited else _TIMED_OUT


def _driver(error: DBAPIError, connection: HTTPConnection) -> Answer | None:
    sqlstate = _sqlstate(error)
    for prefix in (sqlstate, sqlstate[:2]):
        if prefix in _BY_SQLSTATE:
            return _BY_SQLSTATE[prefix]
    if error.connection_invalidated:
        return _CONNECTION_LOST
    if is_outdated_plan(error.orig):
        return _SCHEMA_CHANGED
    has_values = error.params or (error.statement or "").startswith(_COPY)
    if not has_values or not (answer := _of_values(error, sqlstate)):
        return None
    return _NO_ROW if _names_no_record(error, connection) else answer


def _of_values(error: DBAPIError, sqlstate: str) -> Answer | None:
    refusal: Any = getattr(error.orig, "__cause__", None)
    if _REFUSED_ARGUMENT.search(str(refusal)):
        # One of the wrong type is a bug: nothing that a client sends changes it.
        is_values = isinstance(refusal.__cause__, ValueError | OverflowError)
        return _INVALID_VALUE if is_values else None
    if sqlstate:
        return _BY_VALUE.get(sqlstate[:2])
    return _INVALID_VALUE if isinstance(error, DataError) else None


def _names_no_record(error: DBAPIError, connection: HTTPConnection) -> bool:
    """Return whether the value is of the path: what the database cannot hold is not there."""
    path = {str(value) for value in connection.path_params.values()}
    return any(str(value) in path for value in _refused_values(error))


def _refused_values(error: DBAPIError) -> Iterator[object]:
    values: Any = error.params or ()
    match = _REFUSED_ARGUMENT.search(str(getattr(error.orig, "__cause__", "")))
    if match and match[1] and int(match[1]) <= len(values):  # more than that are in rows
        yield values[int(match[1]) - 1]
        return
    for value in values.values() if isinstance(values, Mapping) else values:
        is_text = isinstance(value, str) and "\0" in value
        if is_text or (isinstance(value, int) and not -_INT4 <= value < _INT4):
            yield value


def _sqlstate(error: DBAPIError) -> str:
    return getattr(error.orig, "sqlstate", None) or ""


KINDS: Mapping[type[Exception], Callable[..., Answer | None]] = {
    CommitOutcomeUnknown: lambda *_: _OUTCOME_UNKNOWN,
    ConnectFailed: lambda *_: _UNREACHABLE,
    DBAPIError: _driver,
    DeadlineExceeded: _deadline,
    IntegrityError: _integrity,
    LockTimeout: lambda *_: _LOCK_TIMEOUT,
    NoResultFound: lambda *_: _NO_ROW,
    PoolClosed: lambda *_: _CLOSED,
    PoolSuspended: lambda *_: _SUSPENDED,
    PoolTimeoutError: lambda *_: _EXHAUSTED,
    StaleDataError: lambda *_: _STALE,
    StatementTimeout: lambda *_: _STATEMENT_TIMEOUT,
    TransactionTimeout: lambda *_: _TRANSACTION_TIMEOUT,
}
"""The kinds of error that are answered; the closest base class counts."""

_WRITING = (_CONTRADICTION, *_INTEGRITY.values(), _STALE, _OUTCOME_UNKNOWN)
_ALL = (
    _NO_ROW,
    _INVALID_VALUE,
    _TOO_LARGE,
    _EXHAUSTED,
    _SUSPENDED,
    _CLOSED,
    _UNREACHABLE,
    _CONFLICT,
    _CONNECTION_LOST,
    _OUT_OF_RESOURCES,
    _STATEMENT_TIMEOUT,
    _CANCELLED,
    _LOCK_TIMEOUT,
    _LOCKED,
    _SCHEMA_CHANGED,
    _TRANSACTION_TIMEOUT,
    _TIMED_OUT,
    *_WRITING,
)
CODES = frozenset(answer.code for answer in _ALL)


def answer_to(error: Exception, connection: HTTPConnection) -> Answer | None:
    """Return the answer for a database error; None for one that only a 500 fits.

    Args:
        error: What was raised.
        connection: In which request; a value of its path that cannot be stored names no record.
    """
    kind = next((kind for kind in type(error).__mro__ if kind in KINDS), None)
    return KINDS[kind](error, connection) if kind else None


def internal_error() -> Problem:
    """Return the answer for an error that no handler knows."""
    return _INTERNAL.problem()


def statuses_of(codes: Iterable[str], *, writes: bool) -> list[HTTPStatus]:
    """Return with which statuses a route may be answered that uses a database.

    Args:
        codes: Which answers are given.
        writes: Whether the route writes.
    """
    given = [answer for answer in _ALL if answer.code in set(codes)]
    return sorted({answer.status for answer in given if writes or answer not in _WRITING})


_logger = logging.getLogger(__name__)

_EXPECTED = (ConnectFailed, DeadlineExceeded, PoolClosed, PoolTimeoutError)
"""Errors that no code is at fault for: their tracebacks are of no interest."""
_ORDINARY = (HTTPStatus.NOT_FOUND, HTTPStatus.CONFLICT)
"""What a service answers on a good day."""
_OF_THE_REST = (Exception, BaseException, object)
"""What has a handler for everything that has none."""


_TO_LOOK_FOR = "commit_outcome_unknown"


class _ErrorAnswers:
    """Answers the database errors of one application, and logs them.

    Of a client's error the log has a line with the route and the constraint. What an overload or an
    outage brings about comes by the thousand: a line of each kind has the pool's numbers or the
    server's address, no traceback. What the program is at fault for has its traceback. Each code
    has ten lines a second.

    Args:
        app: Whose own handlers take precedence.
        codes: Which answers are given.
        clock: Gives seconds; for the limit of the log.
    """

    def __init__(
        self, app: Starlette, codes: Collection[str], clock: Callable[[], float] = monotonic
    ) -> None:
        self._app = app
        self._codes = codes
        self._limits: defaultdict[str, LogLimit] = defaultdict(partial(LogLimit, clock))

    async def answer(self, connection: HTTPConnection, error: Exception) -> Response:
        """As Starlette's exception handlers do."""
        if (own := self._own_handler(type(error))) is not None:
            return await call_handler(own, connection, error)
        answer = answer_to(error, connection)
        if answer is None or answer.code not in self._codes or is_accepted(connection.scope):
            raise error
        self._log(answer, connection, error)
        return answer.problem()

    def _own_handler(self, kind: type[Exception]) -> Callable[..., Any] | None:
        """Return the application's handler for a base class, which may have come after this one."""
        handlers: Mapping[Any, Callable[..., Any]] = self._app.exception_handlers
        for base in kind.__mro__:
            if base in _OF_THE_REST:
                break
            if base in handlers and handlers[base] != self.answer:
                return handlers[base]
        return None

    def _log(self, answer: Answer, connection: HTTPConnection, error: Exception) -> None:
        if isinstance(error, _EXPECTED) and not isinstance(error, NestedCheckout):
            self._log_briefly(logging.WARNING, answer, " ".join(str(error).split()))
        elif answer.status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            # Each of these may have to be looked for; they are no more than lost connections.
            if answer.code == _TO_LOOK_FOR or self._may_log(f"fault {answer.code}", answer):
                _logger.error("Answered %d %s", answer.status, answer.code, exc_info=error)
        else:
            said = f"{route_of(connection.scope)}, {_cause(error)}"
            level = logging.INFO if answer.status in _ORDINARY else logging.WARNING
            if answer.is_programs:
                self._log_briefly(logging.ERROR, answer, said, error)
            else:
                self._log_briefly(level, answer, said)

    def _log_briefly(
        self, level: int, answer: Answer, said: str, error: Exception | None = None
    ) -> None:
        if self._may_log(answer.code, answer, level):
            _logger.log(
                level, "Answered %d %s: %s", answer.status, answer.code, said, exc_info=error
            )

    def _may_log(self, kind: str, answer: Answer, level: int = logging.WARNING) -> bool:
        left_out = self._limits[kind].passes()
        if left_out:
            _logger.log(level, "%d more were answered by %s", left_out, answer.code)
        return left_out is not None


def handle_database_errors(app: Starlette, codes: Collection[str] = CODES) -> None:
    """Answer database errors of ``app`` by problem details; its own handlers keep precedence.

    Args:
        app: The application. A handler of its own for a base class of an error takes precedence as
            well, but for one of ``Exception``, whenever it is added.
        codes: Which answers are given, such as ``unique_violation``; other errors are raised on.
    """
    answers = _ErrorAnswers(app, frozenset(codes))
    for kind in KINDS:
        app.exception_handlers.setdefault(kind, answers.answer)


async def call_handler(
    handler: Callable[..., Any], connection: HTTPConnection, error: Exception
) -> Response:
    """Have an exception handler answer, whether it is a coroutine function or a plain one."""
    if inspect.iscoroutinefunction(handler):
        response: Response = await handler(connection, error)
    else:
        response = await run_in_threadpool(handler, connection, error)
    return response


def _cause(error: Exception) -> str:
    """Return what was violated, without a value."""
    if not isinstance(error, DBAPIError):
        return type(error).__name__
    orig: Any = error.orig
    # asyncpg's own error is behind SQLAlchemy's; psycopg's tells by an object of its own.
    said = getattr(orig, "diag", None) or getattr(orig, "__cause__", None)
    for what in ("constraint", "column"):
        if name := getattr(said, f"{what}_name", None):
            return f"{what} {name} of table {getattr(said, 'table_name', None)}"
    kind = type(getattr(orig, "__cause__", None) or orig).__name__
    sqlstate = getattr(orig, "sqlstate", None)
    return f"{kind}, SQLSTATE {sqlstate}" if sqlstate else kind

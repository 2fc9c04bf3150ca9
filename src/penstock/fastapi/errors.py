"""Database errors as answers: RFC 9457 problem details that tell a client what to do, and no more.

No answer holds a statement, a value, a constraint's name or an address: that is for the log.
"""

import logging
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from http import HTTPStatus
from time import monotonic

from sqlalchemy.exc import DBAPIError, IntegrityError, NoResultFound
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from starlette.applications import Starlette
from starlette.requests import HTTPConnection
from starlette.responses import JSONResponse, Response

from penstock.database import CommitOutcomeUnknown
from penstock.deadlines import DeadlineExceeded
from penstock.engine import LockTimeout, StatementTimeout, TransactionTimeout
from penstock.log_limit import LogLimit
from penstock.pool import (
    ConnectFailed,
    NestedCheckout,
    PoolClosed,
    PoolSuspended,
    PoolTimeout,
)

__all__ = ["Problem", "handle_database_errors", "internal_error", "problem_of"]

_logger = logging.getLogger(__name__)

_INTEGRITY_CODES = {
    "23502": "not_null_violation",
    "23503": "foreign_key_violation",
    "23505": "unique_violation",
    "23514": "check_violation",
    "23P01": "exclusion_violation",
}
"""PostgreSQL's SQLSTATEs: https://www.postgresql.org/docs/current/errcodes-appendix.html"""
_CONFLICTS = ("40001", "40P01")
"""Serialization failure and deadlock: the server rolled back and asks for another try."""


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
class _Answer:
    """What :class:`Problem` is made of, for one kind of error."""

    status: HTTPStatus
    code: str
    detail: str
    retry_after: int | None = None

    def problem(self) -> Problem:
        return Problem(self.status, self.code, self.detail, self.retry_after)


_NO_ROW = _Answer(HTTPStatus.NOT_FOUND, "not_found", "There is no such record.")
_CONTRADICTION = _Answer(
    HTTPStatus.CONFLICT,
    "integrity_violation",
    "The request contradicts data that is already stored.",
)
_EXHAUSTED = _Answer(
    HTTPStatus.SERVICE_UNAVAILABLE,
    "pool_exhausted",
    "Every database connection is in use.",
    retry_after=1,
)
_SUSPENDED = _Answer(
    HTTPStatus.SERVICE_UNAVAILABLE,
    "pool_suspended",
    "The database is not to be used for the moment.",
    retry_after=5,
)
_CLOSED = _Answer(
    HTTPStatus.SERVICE_UNAVAILABLE,
    "pool_closed",
    "The service is shutting down.",
    retry_after=5,
)
_UNREACHABLE = _Answer(
    HTTPStatus.SERVICE_UNAVAILABLE,
    "database_unavailable",
    "The database cannot be reached.",
    retry_after=5,
)
_CONFLICT = _Answer(
    HTTPStatus.SERVICE_UNAVAILABLE,
    "transaction_conflict",
    "The request met another one and was undone.",
    retry_after=1,
)
_CONNECTION_LOST = _Answer(
    HTTPStatus.SERVICE_UNAVAILABLE,
    "database_connection_lost",
    "The connection to the database broke while the request was at work.",
)
_STATEMENT_TIMEOUT = _Answer(
    HTTPStatus.SERVICE_UNAVAILABLE,
    "statement_timeout",
    "The database took too long, and the request was undone.",
)
_LOCK_TIMEOUT = _Answer(
    HTTPStatus.SERVICE_UNAVAILABLE,
    "lock_timeout",
    "The request waited too long for another one, and was undone.",
    retry_after=1,
)
_TRANSACTION_TIMEOUT = _Answer(
    HTTPStatus.SERVICE_UNAVAILABLE,
    "transaction_timeout",
    "The request kept its transaction open for too long, and was undone.",
)
_TIMED_OUT = _Answer(
    HTTPStatus.SERVICE_UNAVAILABLE,
    "deadline_exceeded",
    "The database did not answer within the time that the service allows.",
)
_CALLER_TIMED_OUT = _Answer(
    HTTPStatus.GATEWAY_TIMEOUT,
    "deadline_exceeded",
    "The time that the request allows was up before the database had answered.",
)
_OUTCOME_UNKNOWN = _Answer(
    HTTPStatus.SERVICE_UNAVAILABLE,
    "commit_outcome_unknown",
    "The work may or may not have been saved. Look for it before asking again.",
)
_INTERNAL = _Answer(
    HTTPStatus.INTERNAL_SERVER_ERROR, "internal_error", "The request could not be completed."
)


def _integrity(error: IntegrityError) -> _Answer:
    code = _INTEGRITY_CODES.get(_sqlstate(error), _CONTRADICTION.code)
    return replace(_CONTRADICTION, code=code)


def _deadline(error: DeadlineExceeded) -> _Answer:
    if error.is_callers:
        return _CALLER_TIMED_OUT
    # Where nothing but waiting for a connection has taken the time, asking again is safe.
    waited = isinstance(error.__cause__, PoolTimeout)
    return replace(_TIMED_OUT, retry_after=1) if waited else _TIMED_OUT


def _driver(error: DBAPIError) -> _Answer | None:
    if _sqlstate(error) in _CONFLICTS:
        return _CONFLICT
    return _CONNECTION_LOST if error.connection_invalidated else None


def _sqlstate(error: DBAPIError) -> str:
    return getattr(error.orig, "sqlstate", None) or ""


_ANSWERS: dict[type[Exception], Callable[..., _Answer | None]] = {
    CommitOutcomeUnknown: lambda _: _OUTCOME_UNKNOWN,
    ConnectFailed: lambda _: _UNREACHABLE,
    DBAPIError: _driver,
    DeadlineExceeded: _deadline,
    IntegrityError: _integrity,
    LockTimeout: lambda _: _LOCK_TIMEOUT,
    NoResultFound: lambda _: _NO_ROW,
    PoolClosed: lambda _: _CLOSED,
    PoolSuspended: lambda _: _SUSPENDED,
    PoolTimeoutError: lambda _: _EXHAUSTED,
    StatementTimeout: lambda _: _STATEMENT_TIMEOUT,
    TransactionTimeout: lambda _: _TRANSACTION_TIMEOUT,
}
_EXPECTED = (ConnectFailed, DeadlineExceeded, PoolClosed, PoolTimeoutError)
"""What is nobody's mistake in the code: where it was raised from is of no interest."""


def problem_of(error: Exception) -> Problem | None:
    """Return the answer for a database error; None for one that only a 500 fits."""
    answer = _answer_to(error)
    return answer.problem() if answer else None


def _answer_to(error: Exception) -> _Answer | None:
    answer_for = next((_ANSWERS[kind] for kind in type(error).__mro__ if kind in _ANSWERS), None)
    return answer_for(error) if answer_for else None


def internal_error() -> Problem:
    """Return the answer for an error that no handler knows."""
    return _INTERNAL.problem()


class _ErrorAnswers:
    """Answers the database errors of one application, and logs those that are its own fault.

    What an overload or an outage brings about comes by the thousand: a line of each kind has the
    pool's numbers or the server's address, and no traceback. Each code has ten lines a second.

    Args:
        clock: Gives seconds; for the limit of the log.
    """

    def __init__(self, clock: Callable[[], float] = monotonic) -> None:
        self._limits: defaultdict[str, LogLimit] = defaultdict(partial(LogLimit, clock))

    async def answer(self, _: HTTPConnection, error: Exception) -> Response:
        """As Starlette's exception handlers do."""
        answer = _answer_to(error)
        if answer is None:
            raise error
        if isinstance(error, _EXPECTED) and not isinstance(error, NestedCheckout):
            self._log_briefly(answer, error)
        elif answer.status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            self._log_fault(answer, error)
        return answer.problem()

    def _log_fault(self, answer: _Answer, error: Exception) -> None:
        # Each may have to be looked for, and there are no more than connections that were lost.
        if answer is _OUTCOME_UNKNOWN or self._may_log(f"fault {answer.code}", answer):
            _logger.error("Answered %d %s", answer.status, answer.code, exc_info=error)

    def _may_log(self, kind: str, answer: _Answer) -> bool:
        left_out = self._limits[kind].passes()
        if left_out:
            _logger.warning("%d more were answered by %s", left_out, answer.code)
        return left_out is not None

    def _log_briefly(self, answer: _Answer, error: Exception) -> None:
        if not self._may_log(answer.code, answer):
            return
        text = " ".join(str(error).split())
        _logger.warning("Answered %d %s: %s", answer.status, answer.code, text)


def handle_database_errors(app: Starlette) -> None:
    """Answer database errors of ``app`` by problem details; its own handlers keep precedence."""
    answers = _ErrorAnswers()
    for kind in _ANSWERS:
        app.exception_handlers.setdefault(kind, answers.answer)

"""Database errors of an application: handled, answered by problem details, and logged."""

import inspect
import logging
from collections import defaultdict
from collections.abc import Callable, Collection, Mapping
from functools import partial
from http import HTTPStatus
from time import monotonic
from typing import Any

from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import HTTPConnection
from starlette.responses import Response

from penstock.deadlines import DeadlineExceeded
from penstock.fastapi.problems import CODES, KINDS, Answer, answer_to
from penstock.fastapi.scope import route_of
from penstock.log_limit import LogLimit
from penstock.pool import ConnectFailed, NestedCheckout, PoolClosed

__all__ = ["call_handler", "handle_database_errors"]

_logger = logging.getLogger(__name__)

_EXPECTED = (ConnectFailed, DeadlineExceeded, PoolClosed, PoolTimeoutError)
"""What is nobody's mistake in the code: where it was raised from is of no interest."""
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
        if answer is None or answer.code not in self._codes:
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

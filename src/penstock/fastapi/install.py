"""Giving an application its database, in one call."""

import logging
from collections.abc import AsyncIterator, Callable, Collection, Iterable
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Mount
from starlette.types import ASGIApp

from penstock.database import Database
from penstock.errors import PenstockError
from penstock.fastapi.access import Access, is_open
from penstock.fastapi.collector import tuned_collector
from penstock.fastapi.deadlines import RequestLimits
from penstock.fastapi.errors import call_handler, handle_database_errors
from penstock.fastapi.live import add_live_routes
from penstock.fastapi.metrics import add_metrics_routes
from penstock.fastapi.openapi import document_problems
from penstock.fastapi.pool_log import PoolLog
from penstock.fastapi.problems import CODES, internal_error
from penstock.fastapi.process_time import ProcessTime
from penstock.fastapi.request_context import ContextOf
from penstock.fastapi.routes import add_health_routes, add_pool_routes, let_others_first
from penstock.fastapi.scope import Observer, SessionScope, within_instrumentation
from penstock.settings import Environment

__all__ = ["install"]

_logger = logging.getLogger(__name__)


def install(
    app: FastAPI,
    database: Database,
    *,
    name: str = "default",
    access: Callable[..., Any] | None = None,
    session_context: ContextOf | None = None,
    answers: bool | Collection[str] = True,
    routes: bool = True,
    readiness_timeout: float = 2.0,
    tune_gc: bool = True,
    process_time: bool = True,
    request_log: bool = True,
    statement_timeout: float | None = None,
    deadline_header: str | None = None,
    deadline_limit: float = 60.0,
) -> None:
    """Give ``app`` its database.

    The database opens before the application's own start and closes after its end. A request's
    writing session is committed before its response leaves. Database errors are answered by
    problem details. ``/health``, ``/health/live`` and ``/health/ready`` are added, and where they
    may be seen, ``/pool``, ``/pool/state``, ``/pool/events``, ``/pool-stats`` and ``/metrics``. It
    does not matter whether routes, middleware, routers and mounted applications come before or
    after this call.

    Args:
        app: The application; not yet started.
        database: What its dependencies will use.
        name: Tells several databases apart; the dependencies use ``default`` unless told.
        access: A dependency (as in ``Depends``) that refuses whoever may not see operational
            numbers. Without one they are shown in development and testing only, and to this
            machine alone where the environment was not named. Only that of the first ``install``
            counts, as does all that follows but ``session_context`` and ``request_log``.
        session_context: Says the role and the settings under which everything runs that a request
            does in this database, such as whose tenant it is: a function, plain or async, of the
            ``Request`` (for a WebSocket, of the ``HTTPConnection``) that returns a
            ``SessionContext``, or None for none. It is asked when the database is first used, once
            for each request; what it raises is raised there. ``docs/tenants.md`` has more.
        answers: Which database errors are answered by problem details: all, none, or those whose
            codes are listed, such as ``{"not_found", "pool_exhausted"}``; ``docs/errors.md`` has
            them. Other errors are raised on.
        routes: Whether to add the operations routes.
        readiness_timeout: Seconds within which each database must answer ``/health/ready``.
        tune_gc: Whether the garbage collector is told, once the application has started, that what
            exists then will stay, and works less often; ``docs/express.md`` has the figures. Not in
            the environment ``testing``, where each test client would pay for it.
        process_time: Whether responses have the header ``X-Process-Time``.
        request_log: Whether each request has a line in the log with the pool's state, at INFO;
            the warning that the pool runs short comes all the same.
        statement_timeout: Seconds for each statement of a request, the wait for its connection
            included, unless its route says otherwise; None for no limit but ``command_timeout``.
        deadline_header: The name of the request header in which callers send how many seconds they
            will wait, such as ``X-Request-Timeout``; None to have no such header.
            ``docs/deadlines.md`` says what becomes of it.
        deadline_limit: Seconds; what callers send there is cut to it.

    Raises:
        ContextError: ``session_context`` is given, and the database is no PostgreSQL.
        PenstockError: ``name`` is taken, the application has already started, or an argument is
            something else.
    """
    _refuse_others(app, database)
    _refuse_arguments(access, readiness_timeout)
    _refuse_context(database, session_context)
    codes = _codes(answers)
    limits = RequestLimits(statement_timeout, deadline_header, deadline_limit)
    if app.middleware_stack is not None:
        raise PenstockError("install(app, database) must come before the application starts.")
    databases: dict[str, Database] | None = getattr(app.state, "penstock", None)
    if databases is None:
        databases = app.state.penstock = {}
        _install_once(app, databases, limits, codes)
        if process_time:
            app.state.penstock_observers.append(ProcessTime())
        if tune_gc and database.settings.environment is not Environment.TESTING:
            _tune_when_started(app)
        if routes:
            add_health_routes(app, databases, readiness_timeout)
            if access is not None or is_open(database):
                operators = Access.by(access, databases)
                add_pool_routes(app, databases, operators)
                add_metrics_routes(app, databases, operators)
                add_live_routes(app, databases, operators)
    if name in databases:
        raise PenstockError(
            f"A database named {name!r} is already installed; give the second one another name: "
            f'install(app, database, name="...").'
        )
    databases[name] = database
    if session_context is not None:
        app.state.penstock_contexts[database] = session_context
    database.telemetry.name = name
    app.state.penstock_observers.append(PoolLog(database, name, lines=request_log))
    _open_with_lifespan(app, database)


def _refuse_others(app: object, database: object) -> None:
    if not isinstance(app, FastAPI):
        raise PenstockError(
            f"install(app, database) takes a FastAPI application, not {type(app).__name__}; "
            "routers and mounted applications share the database of theirs."
        )
    if not isinstance(database, Database):
        raise PenstockError(
            f"install(app, database) takes a Database, not {type(database).__name__}: "
            "Database.from_environment() or Database.from_url(url)."
        )


def _refuse_arguments(access: object, readiness_timeout: object) -> None:
    if access is not None and not callable(access):
        raise PenstockError(
            f"install(access=...) takes a function that refuses, not {type(access).__name__}: "
            "access=guard, without Depends() around it."
        )
    is_number = isinstance(readiness_timeout, int | float)
    if not (is_number and readiness_timeout > 0):  # type: ignore[operator]  # as has been asked
        raise PenstockError(
            f"install(readiness_timeout={readiness_timeout!r}): seconds above 0 are accepted."
        )


def _refuse_context(database: Database, session_context: object) -> None:
    if session_context is None:
        return
    if not callable(session_context):
        raise PenstockError(
            "install(session_context=...) takes a function of the request, not "
            f"{type(session_context).__name__}."
        )
    database.context.check_support()


def _codes(answers: object) -> frozenset[str]:
    if isinstance(answers, bool):
        return CODES if answers else frozenset()
    if isinstance(answers, str) or not isinstance(answers, Collection):
        raise PenstockError(
            f"install(answers=...) takes True, False or codes of answers, not {answers!r}."
        )
    if unknown := sorted(str(code) for code in answers if code not in CODES):
        raise PenstockError(
            f"install(answers=...): {', '.join(unknown)} is not answered; accepted are "
            f"{', '.join(sorted(CODES))}."
        )
    return frozenset(answers)


def _install_once(
    app: FastAPI, databases: dict[str, Database], limits: RequestLimits, codes: frozenset[str]
) -> None:
    build = app.build_middleware_stack
    observers: list[Observer] = []
    app.state.penstock_observers = observers
    contexts: dict[Database, ContextOf] = {}
    app.state.penstock_contexts = contexts
    app.state.penstock_answers = codes

    def build_within_scope() -> ASGIApp:
        _answer_in_mounted(app, codes)
        return within_instrumentation(
            build(),
            lambda inner: SessionScope(
                inner,
                databases,
                _error_answer(app),
                observers,
                contexts=contexts,
                limits_of=limits.of,
            ),
        )

    # The scope must stand outside all middleware, also what is added later or stands outside
    # user middleware; there is no other place for that.
    app.build_middleware_stack = build_within_scope  # type: ignore[method-assign]  # see above
    handle_database_errors(app, codes)
    document_problems(app, codes)


def _answer_in_mounted(app: FastAPI, codes: frozenset[str]) -> None:
    for mounted in _mounted_applications(app.routes):
        handle_database_errors(mounted, codes)


def _open_with_lifespan(app: FastAPI, database: Database) -> None:
    inner = app.router.lifespan_context

    @asynccontextmanager
    async def lifespan(application: Any) -> AsyncIterator[Any]:
        _answer_in_mounted(app, app.state.penstock_answers)
        let_others_first(app)
        async with database, inner(application) as state:
            yield state

    app.router.lifespan_context = lifespan


def _tune_when_started(app: FastAPI) -> None:
    inner = app.router.lifespan_context

    @asynccontextmanager
    async def lifespan(application: Any) -> AsyncIterator[Any]:
        async with inner(application) as state:
            with tuned_collector():
                yield state

    app.router.lifespan_context = lifespan


def _mounted_applications(routes: Iterable[BaseRoute]) -> Iterable[Starlette]:
    for route in routes:
        if isinstance(route, Mount):
            if isinstance(route.app, Starlette):
                yield route.app
            yield from _mounted_applications(route.routes)


def _error_answer(app: FastAPI) -> Callable[[Request, Exception], Any]:
    """Answer a failed COMMIT as the application answers the same error raised in a route."""

    async def answer(request: Request, error: Exception) -> Response:
        handlers = app.exception_handlers
        kinds: list[Any] = [*type(error).__mro__, 500]
        handler = next((handlers[kind] for kind in kinds if kind in handlers), None)
        if handler is not None:
            try:
                return await call_handler(handler, request, error)
            except Exception as failure:  # noqa: BLE001 - whatever it is, a 500 must leave
                error = failure
        _logger.error("The response was withdrawn: its transaction failed", exc_info=error)
        return internal_error()

    return answer

"""Giving an application its database, in one call."""

import gc
import logging
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

from fastapi import FastAPI
from fastapi.dependencies.models import Dependant
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Mount
from starlette.types import ASGIApp

from penstock.base_error import PenstockError
from penstock.database import Database
from penstock.fastapi.dependencies import RequestLimits, access_of
from penstock.fastapi.drain import Drain, close_connection
from penstock.fastapi.errors import (
    CODES,
    Problem,
    call_handler,
    handle_database_errors,
    internal_error,
    statuses_of,
)
from penstock.fastapi.injection import inject_directly, routes_with_dependant
from penstock.fastapi.live import add_live_routes
from penstock.fastapi.middleware import (
    Observer,
    PoolLog,
    ProcessTime,
    SessionScope,
    within_instrumentation,
)
from penstock.fastapi.positions import Positions
from penstock.fastapi.request_sessions import ContextOf
from penstock.fastapi.routes import (
    Access,
    add_health_routes,
    add_metrics_routes,
    add_pool_routes,
    is_open,
    let_others_first,
)
from penstock.settings import Environment

THRESHOLDS = (50_000, 20, 50)
"""Objects made before the youngest generation is looked at, and how many looks it takes until the
next is (``gc.set_threshold``). Python's own 700 or 2,000 is reached every few requests."""


@contextmanager
def tuned_collector() -> Iterator[None]:
    """Leave out of every collection what exists now, and collect less often, for a block.

    An application's modules, models and routes live as long as the process; looking through them
    again and again is most of what a collection costs, and the longest pause that a request meets.
    What is made within the block is collected as usual.
    """
    thresholds = gc.get_threshold()
    gc.collect()
    gc.freeze()
    gc.set_threshold(*THRESHOLDS)
    try:
        yield
    finally:
        gc.set_threshold(*thresholds)
        gc.unfreeze()


_SCHEMA = {
    "title": "Problem",
    "description": "Problem details (RFC 9457) of a request that the database has not fulfilled.",
    "type": "object",
    "properties": {
        "title": {"title": "Title", "type": "string"},
        "status": {"title": "Status", "type": "integer"},
        "code": {"title": "Code", "type": "string"},
        "detail": {"title": "Detail", "type": "string"},
    },
    "required": ["title", "status", "code", "detail"],
}
_NAME = "PenstockProblem"
_CONTENT = {Problem.media_type: {"schema": {"$ref": f"#/components/schemas/{_NAME}"}}}


def document_problems(app: FastAPI, codes: Collection[str]) -> None:
    """Have an application's OpenAPI say how its routes answer when the database refuses.

    What a route or the application says itself of a status stays.

    Args:
        app: The application; it may get more routes.
        codes: Which answers are given.
    """
    make = app.openapi

    def openapi() -> dict[str, Any]:
        schema = make()
        if codes:
            _add_problems(schema, app, codes)
        return schema

    app.openapi = openapi  # type: ignore[method-assign]  # as FastAPI's documentation does


def _add_problems(schema: dict[str, Any], app: FastAPI, codes: Collection[str]) -> None:
    for path, methods, writes in _routes_with_database(app):
        for method in methods:
            operation = schema.get("paths", {}).get(path, {}).get(method.lower())
            if operation is None:
                continue
            schema.setdefault("components", {}).setdefault("schemas", {})[_NAME] = _SCHEMA
            for status in statuses_of(codes, writes=writes):
                answers = operation.setdefault("responses", {})
                response = answers.setdefault(str(status.value), {"description": status.phrase})
                if status == VALIDATION or not response.get("content"):
                    response["content"] = {**response.get("content", {}), **_CONTENT}


VALIDATION = 422
"""The status with which FastAPI answers values that it refuses itself, in its own form."""


def _routes_with_database(app: FastAPI) -> Iterator[tuple[str, Collection[str], bool]]:
    """Return path, methods, and whether something may be written, of each route that asks."""
    for route in routes_with_dependant(app):
        if uses := set(_uses(route.dependant)):
            yield route.path_format, route.methods or (), "write" in uses


def _uses(dependant: Dependant) -> Iterator[str]:
    if use := access_of(dependant.call):
        yield use
    for inner in dependant.dependencies[:]:  # also what is injected directly
        yield from _uses(inner)


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
    drain_delay: float = 0.0,
    tune_gc: bool = True,
    process_time: bool = True,
    request_log: bool = True,
    statement_timeout: float | None = None,
    deadline_header: str | None = None,
    deadline_limit: float = 60.0,
    shows_server: bool | None = None,
) -> None:
    """Give ``app`` its database.

    The database opens before the application's own start and closes after its end. A request's
    writing session is committed before its response leaves. Database errors are answered by
    problem details. ``/health``, ``/health/live`` and ``/health/ready`` are added, and where they
    may be seen, ``/pool``, ``/pool/state``, ``/pool-stats`` and ``/metrics``. It does not matter
    whether routes, middleware, routers and mounted applications come before or after this call.

    Args:
        app: The application; not yet started.
        database: What its dependencies will use.
        name: Tells several databases apart; the dependencies use ``default`` unless told.
        access: A dependency (as in ``Depends``) that refuses those who may not see operational
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
        drain_delay: Seconds for which the process goes on serving after SIGTERM, while
            ``/health/ready`` is 503 and each response closes its connection: as long as a balancer
            takes to notice. ``docs/deployment.md`` has more.
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
        shows_server: Whether responses have the header ``Penstock-Served-By`` where there are
            replicas: which kind of server has read, and how far it was behind. None for in
            development only.

    Raises:
        ContextError: ``session_context`` is given, and the database is no PostgreSQL.
        PenstockError: ``name`` is taken, the application has already started, an argument is
            something else, or replicas have no ``position_key`` where that is needed.
    """
    _refuse_others(app, database)
    _refuse_arguments(access, readiness_timeout, drain_delay)
    _refuse_context(database, session_context)
    codes = _codes(answers)
    limits = RequestLimits(statement_timeout, deadline_header, deadline_limit)
    if app.middleware_stack is not None:
        raise PenstockError("install(app, database) must come before the application starts.")
    databases: dict[str, Database] | None = getattr(app.state, "penstock", None)
    if databases is None:
        databases = app.state.penstock = {}
        if shows_server is None:
            shows_server = database.settings.shows_values
        positions = Positions(databases, shows_server=shows_server)
        _install_once(app, databases, limits, codes, positions)
        if process_time:
            app.state.penstock_observers.append(ProcessTime())
        if tune_gc and database.settings.environment is not Environment.TESTING:
            _tune_when_started(app)
        drain = _drain_at_the_end(app, drain_delay)
        if routes:
            add_health_routes(app, databases, readiness_timeout, drain)
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
    app.state.penstock_positions.add(name, database)
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


def _refuse_arguments(access: object, readiness_timeout: object, drain_delay: object) -> None:
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
    if not (isinstance(drain_delay, int | float) and 0 <= drain_delay <= _LONGEST_DRAIN):
        raise PenstockError(
            f"install(drain_delay={drain_delay!r}): 0 to {_LONGEST_DRAIN} seconds are accepted."
        )


_LONGEST_DRAIN = 600


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
    app: FastAPI,
    databases: dict[str, Database],
    limits: RequestLimits,
    codes: frozenset[str],
    positions: Positions,
) -> None:
    build = app.build_middleware_stack
    app.state.penstock_positions = positions
    observers: list[Observer] = []
    app.state.penstock_observers = observers
    contexts: dict[Database, ContextOf] = {}
    app.state.penstock_contexts = contexts
    app.state.penstock_answers = codes

    def build_within_scope() -> ASGIApp:
        _look_at_routes(app, codes)
        return within_instrumentation(
            build(),
            lambda inner: SessionScope(
                inner,
                databases,
                _error_answer(app),
                observers,
                contexts=contexts,
                limits_of=limits.of if limits.are_any else None,
                positions=positions,
            ),
        )

    # The scope must stand outside all middleware, also what is added later or stands outside
    # user middleware; there is no other place for that.
    app.build_middleware_stack = build_within_scope  # type: ignore[method-assign]  # see above
    handle_database_errors(app, codes)
    document_problems(app, codes)


def _look_at_routes(app: FastAPI, codes: frozenset[str]) -> None:
    let_others_first(app)
    inject_directly(app)
    for mounted in _mounted_applications(app.routes):
        handle_database_errors(mounted, codes)
        inject_directly(mounted)
        if (positions := getattr(mounted.state, "penstock_positions", None)) is not None:
            app.state.penstock_positions.include(positions)


def _open_with_lifespan(app: FastAPI, database: Database) -> None:
    inner = app.router.lifespan_context

    @asynccontextmanager
    async def lifespan(application: Any) -> AsyncIterator[Any]:
        _look_at_routes(app, app.state.penstock_answers)
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


def _drain_at_the_end(app: FastAPI, delay: float) -> Drain:
    inner = app.router.lifespan_context
    drain = Drain(delay, lambda: app.state.penstock_observers.append(close_connection))

    @asynccontextmanager
    async def lifespan(application: Any) -> AsyncIterator[Any]:
        async with inner(application) as state:
            with drain.handling_sigterm():
                yield state

    app.router.lifespan_context = lifespan
    return drain


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

"""The ASGI middleware that commits before the response leaves, and what looks at that response.

It stands outside everything else of the application. The status that passes here is the one that
the client will see, from wherever it comes: the route, an exception handler, or a middleware that
gave up on the route. It passes only once the transaction is committed, or rolled back if it is an
error.
"""

import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from math import inf
from time import perf_counter
from types import MappingProxyType
from urllib.parse import quote

from starlette.middleware.errors import ServerErrorMiddleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from penstock.database import Database
from penstock.deadlines import Limits, current_limits
from penstock.engine import pool_snapshot
from penstock.fastapi.positions import Positions
from penstock.fastapi.request_sessions import (
    SCOPE_KEY,
    WEBSOCKET_REJECTION,
    ContextOf,
    RequestSessions,
    in_request_context,
)
from penstock.pool import Holder, PenstockPool, PoolSnapshot, current_holder
from penstock.pool.leak import end_abandoned
from penstock.telemetry.statement_watch import (
    RequestStatements,
    report_repeated,
    request_statements,
)

_logger = logging.getLogger(__name__)

_OF_THE_WITHDRAWN_RESPONSE = (
    b"accept-ranges",
    b"cache-control",
    b"content-",
    b"etag",
    b"expires",
    b"last-modified",
    b"location",
    b"refresh",
    b"retry-after",
    b"set-cookie",
    b"transfer-encoding",
)
"""Headers that describe the response which is not sent; all others (CORS, request ids) stay."""

_METHODS = frozenset(
    ("CONNECT", "DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT", "QUERY", "TRACE")
)
"""Those of HTTP; clients may make up more, each of which would be a route of its own. All of them
together are ``_OTHER``, as OpenTelemetry has it."""

_LEFT = "its response left"
_OVER = "the request was over"

AnswerError = Callable[[Request, Exception], Awaitable[Response]]
LimitsOf = Callable[[Scope], Limits | None]
Observer = Callable[[Scope, Message, float], None]
"""Looks at a response's start: the request's scope, the message, and when the request arrived, by
``time.perf_counter``."""


class ResponseReplaced(Exception):  # noqa: N818 - it says what happened
    """Raised into the application when its response gave way to that of a failed COMMIT.

    It keeps the background tasks of the withdrawn response from running.
    """


def is_accepted(scope: Scope) -> bool:
    """Return whether a WebSocket has been accepted, to which no HTTP response can be sent."""
    sessions: RequestSessions | None = scope.get(SCOPE_KEY)
    return sessions is not None and sessions.is_accepted


class SessionScope:
    """Keeps the sessions of a request in its scope and settles them before the response leaves.

    Args:
        app: The application, with all of its middleware.
        databases: The installed databases by name; read anew for every request.
        answer_error: Makes the response for a COMMIT that failed.
        observers: Look at each response as it starts, while the request still holds its
            connection; also read anew. A middleware of their own would cost each request more.
        contexts: What says the role and the settings of a request's transactions, by database;
            also read anew.
        limits_of: Returns what bounds a request that has arrived; None where nothing bounds any.
        positions: Read and write the tokens of read-your-writes, where a database has replicas.
    """

    def __init__(
        self,
        app: ASGIApp,
        databases: Mapping[str, Database],
        answer_error: AnswerError,
        observers: Sequence[Observer] = (),
        *,
        contexts: Mapping[Database, ContextOf] = MappingProxyType({}),
        limits_of: LimitsOf | None = None,
        positions: Positions | None = None,
    ) -> None:
        self.app = app
        self._positions = positions
        self._contexts = contexts
        self._limits_of = limits_of
        self._databases = databases
        self._answer_error = answer_error
        self._observers = observers

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        """Serve one ASGI connection."""
        if scope["type"] == "lifespan":
            return self.app(scope, receive, send)
        if self._positions and SCOPE_KEY not in scope:
            serving: Awaitable[None] = self._positions.serve(scope, receive, send, self._serve)
        else:
            serving = self._serve(scope, receive, send)
        return in_request_context(scope, self._contexts, serving) if self._contexts else serving

    def _serve(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        if SCOPE_KEY in scope:
            scope[SCOPE_KEY].add(self._databases)
            return self._mounted(scope, receive, send)
        if scope["type"] == "http":
            limits = None if self._limits_of is None else self._limits_of(scope)
            scope[SCOPE_KEY] = RequestSessions(self._databases, limits=limits)
            exchange = _Exchange(scope, receive, send, self._answer_error, self._observers)
            return exchange.run(self.app, limits)
        scope[SCOPE_KEY] = RequestSessions(self._databases, WEBSOCKET_REJECTION)
        return self._conversation(scope, receive, send)

    async def _conversation(self, scope: Scope, receive: Receive, send: Send) -> None:
        holder = Holder()
        holding = current_holder.set(holder)
        # By reference: a middleware may pass a copy of the scope on.
        sessions: RequestSessions = scope[SCOPE_KEY]

        def noting_send(message: Message) -> Awaitable[None]:
            if message["type"] == "websocket.accept":
                sessions.is_accepted = True
            return send(message)

        try:
            await self.app(scope, receive, noting_send)
        finally:
            current_holder.reset(holding)
            if holder.leases:
                await end_abandoned(holder.leases)

    async def _mounted(self, scope: Scope, receive: Receive, send: Send) -> None:
        arrived = perf_counter()

        def observed_send(message: Message) -> Awaitable[None]:
            if message["type"] == "http.response.start":
                for observe in self._observers:
                    observe(scope, message, arrived)
            return send(message)

        await self.app(scope, receive, observed_send)


class _Outermost(ServerErrorMiddleware):
    """Stands for the error middleware that Starlette has outermost, around the scope.

    Instrumentation (OpenTelemetry's, and Logfire's by that) takes the outermost middleware apart,
    if it is of that kind, and puts itself around what is in it.
    """

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:  # type: ignore[override]  # no coroutine more
        return self.app(scope, receive, send)


def within_instrumentation(stack: ASGIApp, scope_around: Callable[[ASGIApp], ASGIApp]) -> ASGIApp:
    """Put a scope around what an application has built, and inside what instruments it.

    What instruments an application has an error middleware of its own around the application's.

    Args:
        stack: What was built.
        scope_around: Makes the scope.
    """
    outer, inner, layer = None, stack, stack
    while (below := getattr(layer, "app", None)) is not None:
        if isinstance(below, ServerErrorMiddleware):
            outer, inner = layer, below
        layer = below
    if outer is None:
        handler, debug = getattr(stack, "handler", None), getattr(stack, "debug", False)
        return _Outermost(scope_around(inner), handler=handler, debug=debug)
    outer.app = scope_around(inner)  # type: ignore[attr-defined]  # as has been looked
    return stack


class _Exchange:
    """One request, and what is sent in answer.

    Args:
        scope: Of the request, with the units that it may work in.
        receive: As ASGI says.
        send: As ASGI says.
        answer_error: As :class:`SessionScope` has it, as the next.
        observers: Look at the response.
    """

    __slots__ = (
        "_answer_error",
        "_arrived",
        "_holder",
        "_is_replaced",
        "_observers",
        "_receive",
        "_request_sessions",
        "_scope",
        "_send",
        "_statements",
    )

    def __init__(
        self,
        scope: Scope,
        receive: Receive,
        send: Send,
        answer_error: AnswerError,
        observers: Sequence[Observer],
    ) -> None:
        self._scope, self._receive, self._send = scope, receive, send
        self._request_sessions: RequestSessions = scope[SCOPE_KEY]
        self._answer_error = answer_error
        self._observers = observers
        self._is_replaced = False
        self._arrived = perf_counter()
        self._holder = Holder(partial(route_of, scope), self._request_sessions.holding_tasks)
        self._statements: RequestStatements = {}

    async def run(self, app: ASGIApp, limits: Limits | None) -> None:
        """Have the application answer, within its limits."""
        outside = current_limits.get()
        if limits is not outside:
            current_limits.set(limits)
        holding = current_holder.set(self._holder)
        counting = request_statements.set(self._statements)
        try:
            await app(self._scope, self._receive, self._settled_send)
        except Exception:
            if not self._is_replaced:
                raise
        finally:
            if current_limits.get() is not outside:  # the route may have set some, too
                current_limits.set(outside)
            current_holder.reset(holding)
            request_statements.reset(counting)
            self._request_sessions.refuse(_OVER)
            if self._request_sessions.are_used or self._holder.leases or self._statements:
                await self._end()

    async def _end(self) -> None:
        try:
            if self._request_sessions.are_used:
                await self._request_sessions.end()
        finally:
            if self._holder.leases:
                await end_abandoned(self._holder.leases)
            self._report_repeated()

    # No coroutine where nothing is to be settled: each costs every request.
    def _settled_send(self, message: Message) -> Awaitable[None]:
        if message["type"] == "http.response.start" and not self._is_replaced:
            for observe in self._observers:
                observe(self._scope, message, self._arrived)
            if self._request_sessions.are_used:
                return self._settle_and_send(message)
            self._request_sessions.refuse(_LEFT)
            self._report_repeated()
        return _dropped() if self._is_replaced else self._send(message)

    async def _settle_and_send(self, message: Message) -> None:
        try:
            await _settle(self._request_sessions, message["status"])
        except Exception as error:
            self._is_replaced = True
            await self._replace(message, error)
            raise ResponseReplaced from error
        self._report_repeated()
        await self._send(message)

    def _report_repeated(self) -> None:
        # A stream may repeat a statement for hours, and no client waits for a background task.
        statements, self._statements = self._statements, {}
        route = self._holder.route
        if statements and route is not None:
            report_repeated(statements, route)

    async def _replace(self, withdrawn: Message, error: Exception) -> None:
        request = Request(self._scope, self._receive)
        response = await self._answer_error(request, error)
        response.raw_headers += [
            (name, value)
            for name, value in withdrawn.get("headers", ())
            if not name.lower().startswith(_OF_THE_WITHDRAWN_RESPONSE)
        ]
        await response(self._scope, self._receive, self._send)


async def _dropped() -> None:
    """Send nothing of a response that has given way to another."""


def route_of(scope: Scope) -> str:
    """Return the method and the route's pattern of a request."""
    # The route's pattern: the path itself may hold private values.
    pattern = getattr(scope.get("route"), "path", "(no route)")
    method = scope.get("method", "WEBSOCKET")
    return f"{method if method in _METHODS else '_OTHER'} {pattern}"


async def _settle(request_sessions: RequestSessions, status: int) -> None:
    try:
        if status < 400:
            await request_sessions.commit()
    finally:
        request_sessions.refuse(f"its response ({status}) left")
        await request_sessions.end()


class ProcessTime:
    """Adds ``X-Process-Time``: seconds from the request's arrival to the response's start."""

    def __call__(self, scope: Scope, message: Message, arrived: float) -> None:  # noqa: ARG002 - as every observer
        """Look at the start of a response.

        Args:
            scope: Of the request.
            message: The response's start.
            arrived: When the request did, by ``time.perf_counter``.
        """
        seconds = b"%.6f" % (perf_counter() - arrived)
        # ASGI has them as any iterable.
        message["headers"] = [*message.get("headers", ()), (b"x-process-time", seconds)]


WARNING_PAUSE = 60.0
"""Seconds from one warning to the next. A pool at its limit falls below and rises again with every
few requests; each time would be dozens of lines a second."""


class PoolLog:
    """Logs the pool as each response starts, while the request still holds its connection.

    The line has level INFO. The warning comes when utilisation rises above the database's
    ``utilisation_warning``. It is not repeated before utilisation fell below, so that a busy hour
    is one line, nor before ``WARNING_PAUSE`` has passed, so that one at the limit is one a minute.
    A shortage that begins within that time is told at its end, if it still lasts.

    Args:
        database: Whose pool to look at.
        name: The database's name in ``install``, as the lines call it.
        lines: Whether there is a line per request, beside the warning.
    """

    def __init__(self, database: Database, name: str, *, lines: bool = True) -> None:
        self._lines = lines
        self._engine = database.engine
        self._name = name
        self._threshold = database.settings.utilisation_warning
        self._warned = False
        """Whether the shortage that lasts now has been told."""
        self._not_before = -inf
        """When a request must have arrived to be worth the next warning."""

    def __call__(self, scope: Scope, message: Message, arrived: float) -> None:
        """Look at the start of a response.

        Args:
            scope: Of the request.
            message: The response's start.
            arrived: When the request did, by ``time.perf_counter``.
        """
        if not self._is_busy():
            self._warned = False
        elif not self._warned and arrived >= self._not_before:
            self._warned, self._not_before = True, arrived + WARNING_PAUSE
            self._warn(pool_snapshot(self._engine))
        if self._lines and _logger.isEnabledFor(logging.INFO):
            self._describe(scope, message["status"], pool_snapshot(self._engine))

    def _is_busy(self) -> bool:
        pool = self._engine.sync_engine.pool
        if isinstance(pool, PenstockPool):
            ledger = pool.ledger
            if len(ledger.slots) - len(ledger.idle_slots) <= self._threshold * ledger.limit:
                return False  # without counting, as for nearly every request
        return pool_snapshot(self._engine).utilisation > self._threshold

    def _warn(self, pool: PoolSnapshot) -> None:
        _logger.warning(
            "pool %s: %d of %d connections are checked out (%.0f %%). Requests will soon wait: "
            "raise pool_size or max_overflow, or hold connections for a shorter time.",
            self._name,
            pool.checked_out,
            pool.limit,
            100 * pool.utilisation,
        )

    def _describe(self, scope: Scope, status: int, pool: PoolSnapshot) -> None:
        _logger.info(
            "%s %s %d pool=%s size=%d checked_in=%d checked_out=%d overflow=%d utilisation=%.0f%%",
            scope["method"],
            quote(scope["path"]),
            status,
            self._name,
            pool.size,
            pool.checked_in,
            pool.checked_out,
            pool.overflow,
            100 * pool.utilisation,
        )

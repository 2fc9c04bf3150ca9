"""The units of work of one request, kept in its ASGI scope, and the contexts that they run in."""

import asyncio
import contextlib
import inspect
import sys
from collections.abc import Awaitable, Callable, Iterator, Mapping, MutableMapping
from contextlib import AsyncExitStack
from itertools import chain
from types import FrameType
from typing import Any

from fastapi.dependencies import utils
from starlette.requests import HTTPConnection, Request
from starlette.types import Scope

from penstock.base_error import PenstockError
from penstock.context import (
    NO_CONTEXT,
    ContextError,
    RequestContext,
    SessionContext,
    request_context,
)
from penstock.database import Database, SessionClosed, UnitLane, UnitOfWork
from penstock.database.unit_lane import Held
from penstock.deadlines import Limits, current_limits
from penstock.express import Reader, Writer
from penstock.pool import task_of

SCOPE_KEY = "penstock"

_EXIT_STACK = "fastapi_inner_astack"
"""Where FastAPI keeps the exit stack of a route's dependencies: it sees the exception that ends the
route, before any handler does."""

HAS_EXIT_STACK = _EXIT_STACK in utils.solve_dependencies.__code__.co_consts
"""Whether this FastAPI looks for that stack in the scope itself: from 0.121 on. On others a
dependency has to be a generator to see the exception."""

_GENERATOR = inspect.CO_GENERATOR | inspect.CO_ASYNC_GENERATOR

WEBSOCKET_REJECTION = (
    "A WebSocket outlives any transaction, so no session is injected into it. Take "
    "database: CurrentDatabase and open one for each message: "
    "async with database.write() as session."
)


class RequestSessions:
    """The units of work of one request, one for each database, made when first asked for.

    Args:
        databases: The installed databases by name.
        refusal: Why no session is to be had here; None where a response will end them.
        limits: What bounds the request; None for nothing.
    """

    __slots__ = (
        "_databases",
        "_ended",
        "_held",
        "_limits",
        "_refusal",
        "_request_sessions",
        "_stack",
        "is_accepted",
    )

    def __init__(
        self,
        databases: Mapping[str, Database],
        refusal: str | None = None,
        limits: Limits | None = None,
    ) -> None:
        self._databases = databases
        self._limits = limits
        self._refusal = refusal
        self._ended = ""
        """What has ended, once something has."""
        self.is_accepted = False
        """Whether it is a WebSocket that was accepted, to which no response can be sent."""
        self._stack: AsyncExitStack | None = None
        """The exit stack that ends the units when an exception ends the route."""
        self._request_sessions: dict[Database, UnitOfWork] = {}
        self._held: Held = {}
        """The streams and snapshots of the express lane that are open."""

    def database(self, name: str) -> Database:
        """Return the database that was installed as ``name``."""
        try:
            return self._databases[name]
        except KeyError:
            known = ", ".join(sorted(self._databases))
            raise PenstockError(
                f"No database named {name!r} is installed; installed: {known}. "
                f"Call install(app, database, name={name!r})."
            ) from None

    def unit(self, name: str) -> UnitOfWork:
        """Return this request's unit of work on the database that was installed as ``name``.

        Raises:
            SessionClosed: The response has left, or this is a WebSocket.
        """
        database = self.database(name)  # inside a mounted application perhaps another one
        if database not in self._request_sessions:
            if self._refusal is not None:
                raise SessionClosed(self._refusal)
            if self._ended:
                raise SessionClosed(f"No session is to be had any more: {self._ended}.")
            self._request_sessions[database] = database.unit()
        return self._request_sessions[database]

    def reader(self, name: str) -> Reader:
        """Return the express lane for what reads, beside this request's sessions."""
        database = self.database(name)
        shared = database.reader
        return shared.over(UnitLane(shared, database, self._request_sessions, self._held))

    def writer(self, name: str) -> Writer:
        """Return the express lane for what writes, beside this request's sessions."""
        database = self.database(name)
        shared = database.writer
        return shared.over(UnitLane(shared, database, self._request_sessions, self._held))

    def holding_tasks(self) -> Iterator[Any]:
        """Return the tasks that have acquired the connections which the sessions hold."""
        for _, record in chain.from_iterable(
            unit.leases() for unit in self._request_sessions.values()
        ):
            yield task_of(record.slot.lease)

    def limit_statements(self, seconds: float | None) -> None:
        """Limit each of the request's statements from now on.

        Args:
            seconds: None for no limit.
        """
        if self._limits is None:
            self._limits = Limits()
        self._limits.statement_timeout = seconds
        current_limits.set(self._limits)

    def watch_route(self, scope: MutableMapping[str, Any]) -> None:
        """End the units as soon as an exception ends the route behind ``scope``.

        Outside a route, as in a middleware, no exception of the route is to be seen.
        """
        stack = scope.get(_EXIT_STACK)
        if stack is not self._stack and stack is not None:
            self._stack = stack
            stack.push_async_exit(self._route_ended)

    async def _route_ended(self, _kind: object, error: BaseException | None, _: object) -> None:
        if error is not None:
            await self.fail(error)

    async def fail(self, error: BaseException) -> None:
        """Roll back, whatever status a handler will answer: an exception has ended the route.

        A middleware may run the route again, which then begins anew.

        Args:
            error: The exception.
        """
        await self._end(f"an exception ({type(error).__name__}) ended the route")

    def add(self, databases: Mapping[str, Database]) -> None:
        """Add the databases of a mounted application, which take precedence inside it."""
        self._databases = {**self._databases, **databases}

    async def commit(self) -> None:
        """Commit every unit.

        With several databases everything is flushed before the first COMMIT, which leaves the
        shortest time in which one could be saved without the other.
        """
        request_sessions = list(self._request_sessions.values())
        for unit in request_sessions:
            unit.check()
        if len(request_sessions) > 1:
            for unit in request_sessions:
                await unit.flush()
        for unit in request_sessions:
            await unit.commit()

    @property
    def are_used(self) -> bool:
        """Whether there is any."""
        return bool(self._request_sessions)

    def refuse(self, why: str) -> None:
        """Make no unit from now on, and bound nothing: what goes on is no part of the request.

        Args:
            why: What has ended, to follow "No session is to be had any more: ...".
        """
        self._ended = self._ended or why
        if self._limits is not None:
            self._limits.end()

    async def end(self) -> None:
        """Roll back what is open and close every session, each whatever becomes of the others."""
        await self._end(self._ended, _advice)

    async def _end(self, why: str, advice: Callable[[], str | None] | None = None) -> None:
        cancelled: BaseException | None = None
        while self._request_sessions:
            _, unit = self._request_sessions.popitem()
            try:
                await unit.end(why, advice)
            except BaseException as error:  # noqa: BLE001 - raised once the others have ended too
                cancelled = error
        if cancelled is not None:
            raise cancelled


def request_sessions_of(scope: MutableMapping[str, Any]) -> RequestSessions:
    """Return the units of the request behind ``scope``.

    Raises:
        PenstockError: ``install`` was not called for this application.
    """
    try:
        request_sessions: RequestSessions = scope[SCOPE_KEY]
    except KeyError:
        raise PenstockError(
            "No database is installed in this application. Call "
            "penstock.fastapi.install(app, database) before it serves."
        ) from None
    return request_sessions


def _advice() -> str | None:
    """Return what to do where a dependency goes on with a session after its response has left."""
    dependency = _dependency_after_yield(sys._getframe(1))  # noqa: SLF001 - documented
    if dependency is None:
        return None
    code = dependency.f_code
    return (
        f"The generator dependency {code.co_qualname}() ({code.co_filename}:{dependency.f_lineno}) "
        "used it after its yield, which FastAPI runs once the response has left: nothing of that "
        "is saved. Let it end with the route function, before the response leaves: "
        f'Depends({code.co_name}, scope="function"). Or let it open its own session there: '
        "async with database.write()."
    )


def _dependency_after_yield(frame: FrameType | None) -> FrameType | None:
    """Return the frame of the generator dependency that FastAPI is ending, if there is one.

    Such a generator is run by contextlib on behalf of FastAPI or, if it is a plain one, of AnyIO's
    thread; any other context manager is run by contextlib on behalf of the caller's own code.
    """
    while frame is not None:
        caller = frame.f_back
        if frame.f_code.co_flags & _GENERATOR and _is_contextlibs(caller):
            while _is_contextlibs(caller):
                assert caller is not None  # noqa: S101 - as has been asked
                caller = caller.f_back
            if caller is not None and _package_of(caller) in ("fastapi", "anyio"):
                return frame
        frame = frame.f_back
    return None


def _is_contextlibs(frame: FrameType | None) -> bool:
    return frame is not None and frame.f_code.co_filename == contextlib.__file__


def _package_of(frame: FrameType) -> str:
    name: str = frame.f_globals.get("__name__", "")
    return name.partition(".")[0]


ContextOf = Callable[..., SessionContext | Awaitable[SessionContext | None] | None]
"""Says under which role and settings a request's transactions run."""


class RequestContexts:
    """The contexts of one request, one for each database, found out when first needed.

    Args:
        scope: Of the request.
        functions: What says them, by database; the others have no context.
        outer: What an application around this one says.
    """

    __slots__ = ("_executor", "_functions", "_known", "_outer", "_scope", "_turn")

    def __init__(
        self,
        scope: Scope,
        functions: Mapping[Database, ContextOf],
        outer: RequestContext | None,
    ) -> None:
        self._scope = scope
        self._functions = functions
        self._outer = outer
        self._known: dict[object, SessionContext] = {}
        self._turn = asyncio.Lock()
        self._executor: asyncio.Task[Any] | None = None
        """The task in which a function is at work."""

    def known(self, database: object) -> SessionContext | None:
        """Return the context for a database; None while it has to be found out."""
        if database in self._functions:
            return self._known.get(database)
        return NO_CONTEXT if self._outer is None else self._outer.known(database)

    async def of(self, database: object) -> SessionContext:
        """Return the context for a database; its function is asked once, unless it raises.

        Raises:
            ContextError: It returned something else, or waits for itself.
            Exception: What it raised.
        """
        known = self.known(database)
        if known is not None:
            return known
        if database not in self._functions:
            assert self._outer is not None  # noqa: S101 - or it would be known
            return await self._outer.of(database)
        if self._executor is asyncio.current_task():
            raise ContextError(
                "session_context uses a session of its own request, which waits for what it "
                "returns: let it open one, async with database.read()."
            )
        async with self._turn:
            if database not in self._known:
                self._known[database] = await self._ask(self._functions[database])  # type: ignore[index]  # it is there
            return self._known[database]

    async def _ask(self, function: ContextOf) -> SessionContext:
        scope, self._executor = self._scope, asyncio.current_task()
        outside = request_context.set(None)
        try:
            said: Any = function(
                Request(scope) if scope["type"] == "http" else HTTPConnection(scope)
            )
            context = await said if inspect.isawaitable(said) else said
        finally:
            self._executor = None
            request_context.reset(outside)
        if context is None:
            return NO_CONTEXT
        if not isinstance(context, SessionContext):
            raise ContextError(
                f"session_context returned a {type(context).__name__}: a SessionContext is "
                "accepted, or None."
            )
        return context if context.pairs else NO_CONTEXT


async def in_request_context(
    scope: Scope, functions: Mapping[Database, ContextOf], serving: Awaitable[None]
) -> None:
    """Serve a request; what is done within it has its contexts.

    Args:
        scope: Of the request.
        functions: As :class:`RequestContexts` has them.
        serving: What serves it.
    """
    contexts = RequestContexts(scope, functions, request_context.get())
    outside = request_context.set(contexts)
    try:
        await serving
    finally:
        request_context.reset(outside)

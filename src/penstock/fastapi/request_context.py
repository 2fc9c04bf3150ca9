"""What an application's ``session_context`` says of one request, asked once."""

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from starlette.requests import HTTPConnection, Request
from starlette.types import Scope

from penstock.context import (
    NO_CONTEXT,
    ContextError,
    RequestContext,
    SessionContext,
    request_context,
)
from penstock.database import Database

__all__ = ["ContextOf", "RequestContexts", "in_request_context"]

ContextOf = Callable[..., SessionContext | Awaitable[SessionContext | None] | None]
"""Says under which role and settings a request's transactions run."""


class RequestContexts:
    """The contexts of one request, one for each database, found out when first needed.

    Args:
        scope: Of the request.
        functions: What says them, by database; the others have no context.
        outer: What an application around this one says.
    """

    __slots__ = ("_asking", "_functions", "_known", "_outer", "_scope", "_turn")

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
        self._asking: asyncio.Task[Any] | None = None
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
        if self._asking is asyncio.current_task():
            raise ContextError(
                "session_context uses a session of its own request, which waits for what it "
                "returns: let it open one, async with database.read()."
            )
        async with self._turn:
            if database not in self._known:
                self._known[database] = await self._ask(self._functions[database])  # type: ignore[index]  # it is there
            return self._known[database]

    async def _ask(self, function: ContextOf) -> SessionContext:
        scope, self._asking = self._scope, asyncio.current_task()
        outside = request_context.set(None)
        try:
            said: Any = function(
                Request(scope) if scope["type"] == "http" else HTTPConnection(scope)
            )
            context = await said if inspect.isawaitable(said) else said
        finally:
            self._asking = None
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

"""What a route asks for: the request's sessions and its database.

All of them are plain coroutine functions. A generator dependency costs about 80 microseconds a
request and, depending on its scope, commits after the response or forbids others to depend on it.
Only before FastAPI 0.121 a session's has to be one, to see the exception that ends the route.
For one name each is one object, the key for ``app.dependency_overrides``.
"""

import re
from collections.abc import AsyncGenerator, Awaitable, Callable
from functools import cache
from inspect import signature
from operator import attrgetter
from time import monotonic
from typing import Annotated, Any, Literal, TypeVar

from fastapi import Depends
from sqlalchemy.ext.asyncio import AsyncSession
from starlette.requests import HTTPConnection
from starlette.types import Scope

from penstock import express
from penstock.base_error import PenstockError
from penstock.database import Database, ReadOnlyAsyncSession, UnitOfWork
from penstock.deadlines import Deadline, Limits
from penstock.fastapi.request_sessions import HAS_EXIT_STACK, RequestSessions, request_sessions_of

_SECONDS = re.compile(rb"-?[0-9]{1,400}(?:\.[0-9]{1,400})?(?:e[-+]?[0-9]{1,3})?")
"""What a caller may write: seconds, such as ``1.5``, or what a program prints of a float."""
_TOKEN = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
"""A field name: RFC 9110, 5.1."""
LONGEST = 86_400
"""Seconds."""


class RequestLimits:
    """What bounds the requests of an application.

    Args:
        statement_timeout: Seconds for each of their statements; None for no such limit.
        header: The name of the header in which callers send their deadline; None for none.
        longest: Seconds; what callers send is cut to it.

    Raises:
        PenstockError: A value is out of its range.
    """

    def __init__(
        self,
        statement_timeout: float | None = None,
        header: str | None = None,
        longest: float = 60.0,
    ) -> None:
        _check("install(statement_timeout=...)", statement_timeout)
        _check("install(deadline_limit=...)", longest)
        if header is not None and not (isinstance(header, str) and _TOKEN.fullmatch(header)):
            raise PenstockError(
                f"install(deadline_header={header!r}): the name of a header is accepted, such as "
                "X-Request-Timeout."
            )
        self._statement_timeout = statement_timeout
        self._header = "" if header is None else header
        self._name = self._header.lower().encode()
        self._longest = longest

    @property
    def are_any(self) -> bool:
        """Whether any request may be bounded."""
        return bool(self._name) or self._statement_timeout is not None

    def of(self, scope: Scope) -> Limits | None:
        """Return what bounds a request that has just arrived; None where nothing does."""
        deadline = self._deadline(scope) if self._name else None
        if deadline is None and self._statement_timeout is None:
            return None
        return Limits(self._statement_timeout, deadline)

    def _deadline(self, scope: Scope) -> Deadline | None:
        headers = scope["headers"] = list(scope["headers"])  # which may be read only once
        sent = next((value for name, value in headers if name == self._name), b"")
        if not _SECONDS.fullmatch(sent):
            return None
        seconds = min(float(sent), self._longest)
        limit = f"the caller's {self._header}: {seconds:g}"
        return Deadline(monotonic() + seconds, limit, is_callers=True)


def statement_timeout(seconds: float | None) -> Callable[[HTTPConnection], Awaitable[None]]:
    """Return the dependency that limits each statement of a route, or of a router.

    It stands in the place of ``install(statement_timeout=...)``; a route's counts more than its
    router's. The wait for the connection of a statement counts.

    Args:
        seconds: For each statement, in the request's sessions, its reader and its writer; None for
            no limit but ``command_timeout``.

    Raises:
        PenstockError: ``seconds`` is out of its range.
    """
    _check("statement_timeout(...)", seconds)

    async def dependency(connection: HTTPConnection) -> None:
        request_sessions_of(connection.scope).limit_statements(seconds)

    return dependency


def _check(what: str, seconds: object) -> None:
    if seconds is None:
        return
    is_number = isinstance(seconds, int | float) and not isinstance(seconds, bool)
    if not (is_number and 0 < seconds <= LONGEST):  # type: ignore[operator]  # as has been asked
        raise PenstockError(
            f"{what}: seconds above 0 and up to {LONGEST} are accepted, not {seconds!r}."
        )


Give = Callable[[HTTPConnection], Any]
"""Returns what a dependency gives, which needs nothing but the connection, and no awaiting."""
Access = Literal["read", "write"]
_Dependency = TypeVar("_Dependency", bound=Callable[..., Any])
_ACCESS = "penstock_access"
"""The attribute of a dependency that says what a route may do by it."""
_GIVER = "penstock_giver"
"""The attribute of a dependency that holds what gives its value."""


def access_of(dependency: object) -> Access | None:
    """Return what a route may do with a database by a dependency; None if it is not one of these.

    Args:
        dependency: What stands in ``Depends``.
    """
    return getattr(dependency, _ACCESS, None)


def giver_of(dependency: object) -> Give | None:
    """Return what gives the value of a dependency at once; None if it is not one of these.

    Args:
        dependency: What stands in ``Depends``.
    """
    return getattr(dependency, _GIVER, None)


def _with_access(access: Access, dependency: _Dependency) -> _Dependency:
    setattr(dependency, _ACCESS, access)
    return dependency


def _given(access: Access, give: Give) -> Callable[..., Any]:
    async def dependency(connection: HTTPConnection) -> Any:
        return give(connection)

    setattr(dependency, _GIVER, give)
    return _with_access(access, dependency)


def _lane_of(access: Access, name: str, pick: Callable[..., Any]) -> Callable[..., Any]:
    return _given(access, lambda connection: pick(request_sessions_of(connection.scope), name))


def _session_of(access: Access, name: str, pick: Callable[[UnitOfWork], Any]) -> Callable[..., Any]:
    def give(connection: HTTPConnection) -> Any:
        request_sessions = request_sessions_of(connection.scope)
        unit = request_sessions.unit(name)
        request_sessions.watch_route(connection.scope)
        return pick(unit)

    async def generator(connection: HTTPConnection) -> AsyncGenerator[Any, None]:
        request_sessions = request_sessions_of(connection.scope)
        try:
            yield pick(request_sessions.unit(name))
        except BaseException as error:
            await request_sessions.fail(error)
            raise

    return _given(access, give) if HAS_EXIT_STACK else _with_access(access, generator)


@cache
def write_session(name: str = "default") -> Callable[[HTTPConnection], Awaitable[AsyncSession]]:
    """Return the dependency that gives the request's writing session.

    It is committed when a response below 400 that the route returned is about to leave, and rolled
    back otherwise. Every dependency of one request is given the same session.

    Args:
        name: The database's name in ``install(app, database, name=...)``.
    """
    return _session_of("write", name, attrgetter("writer"))


@cache
def read_session(
    name: str = "default",
) -> Callable[[HTTPConnection], Awaitable[ReadOnlyAsyncSession]]:
    """Return the dependency that gives the request's read-only session.

    Args:
        name: The database's name in ``install(app, database, name=...)``.
    """
    return _session_of("read", name, attrgetter("reader"))


@cache
def current_database(name: str = "default") -> Callable[[HTTPConnection], Awaitable[Database]]:
    """Return the dependency that gives the database itself, for streams, tasks and WebSockets.

    Args:
        name: The database's name in ``install(app, database, name=...)``.
    """
    return _lane_of("write", name, RequestSessions.database)


@cache
def reader(name: str = "default") -> Callable[[HTTPConnection], Awaitable[express.Reader]]:
    """Return the dependency that gives the express lane for what only reads.

    Where a session of the request holds a connection, a statement runs there and sees what was
    flushed; else it takes one for itself. A stream or a snapshot has one of its own.

    Args:
        name: The database's name in ``install(app, database, name=...)``.
    """
    return _lane_of("read", name, RequestSessions.reader)


@cache
def writer(name: str = "default") -> Callable[[HTTPConnection], Awaitable[express.Writer]]:
    """Return the dependency that gives the express lane for what writes.

    Each of its statements is a transaction of its own, apart from the request's sessions.

    Args:
        name: The database's name in ``install(app, database, name=...)``.
    """
    return _lane_of("write", name, RequestSessions.writer)


# A scope means nothing to a dependency that has no end; told, FastAPI need not find that out for
# each request. Before 0.121 it knows none.
_SCOPE: Any = {"scope": "request"} if "scope" in signature(Depends).parameters else {}

WriteSession = Annotated[AsyncSession, Depends(write_session(), **_SCOPE)]
"""The request's writing session, of the database ``default``; see :func:`write_session`."""
ReadSession = Annotated[ReadOnlyAsyncSession, Depends(read_session(), **_SCOPE)]
"""The request's read-only session, of the database ``default``."""
CurrentDatabase = Annotated[Database, Depends(current_database(), **_SCOPE)]
"""The database ``default`` itself, for streams, tasks and WebSockets."""
Reader = Annotated[express.Reader, Depends(reader(), **_SCOPE)]
"""The express lane for what only reads, of the database ``default``; see :func:`reader`."""
Writer = Annotated[express.Writer, Depends(writer(), **_SCOPE)]
"""The express lane for what writes, of the database ``default``; see :func:`writer`."""

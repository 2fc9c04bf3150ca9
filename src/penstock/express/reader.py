"""Reading in the express lane: which results of which statement, and within which limits."""

import asyncio
import inspect
import sys
from collections.abc import (
    AsyncGenerator,
    AsyncIterator,
    Awaitable,
    Callable,
    Coroutine,
    Mapping,
    Sequence,
)
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from types import TracebackType
from typing import Any, Generic, Self, TypeVar, overload

from pydantic import BaseModel
from sqlalchemy import Row, Select

from penstock.context import ContextError, ContextSource, Settings, SettingValue, context_of
from penstock.deadlines import Deadline, DeadlineExceeded, current_limits, within_limits
from penstock.express.errors import ExpressError, ParameterError, raise_if_unknown
from penstock.express.json import JsonQuery, json_of
from penstock.express.lane import Batches, Extract, ReadingLane
from penstock.express.query import AdHocQueries, Call, Mapped, Query, Statement, existence_of
from penstock.express.rows import all_, first, one, one_or_none, scalar


def mark_as_awaited(function: Callable[..., Any]) -> None:
    """Have a function taken for a coroutine function, as by Starlette's background tasks.

    What is not taken for one is run in a thread, and its coroutine is never awaited.
    """
    if sys.version_info >= (3, 12):
        inspect.markcoroutinefunction(function)
    else:
        function._is_coroutine = asyncio.coroutines._is_coroutine  # type: ignore[attr-defined]  # noqa: SLF001 - what later versions made public


_T = TypeVar("_T")
_M = TypeVar("_M", bound=Mapped)
_L = TypeVar("_L", bound=ReadingLane)
Values = Mapping[str, Any] | Sequence[Mapping[str, Any]] | None
"""Values by name; for a writer's INSERT that returns something, also those of several rows."""


class _Place(Generic[_L]):
    """Where a lane is, for all who use the same, as it may be replaced."""

    __slots__ = ("lane",)

    def __init__(self, lane: _L) -> None:
        self.lane = lane


class Executor(Generic[_L]):
    """What a reader and a writer have in common.

    Every method takes a statement, or what ``query()`` made of one, and the values of its
    parameters, by name, as keywords or as one mapping.

    Args:
        lane: How statements are run.
        context: Where the role and the settings of each come from; None where its transaction
            has them already.
    """

    def __init__(self, lane: _L, context: ContextSource | None = None) -> None:
        self._place = _Place(lane)
        self._adhoc = AdHocQueries()
        self._context = context
        self._timeout: float | None = None

    @property
    def lane(self) -> _L:
        """How statements are run."""
        return self._place.lane

    @lane.setter
    def lane(self, lane: _L) -> None:
        self._place.lane = lane

    def with_context(
        self, *, role: str | None = None, settings: Mapping[str, SettingValue] | None = None
    ) -> Self:
        """Return the same whose statements run as a role, or with server settings of their own.

        Both hold for exactly the transaction of each statement and travel with it. What is not
        given stays as it is, such as what the request says.

        Args:
            role: The role; None to leave it.
            settings: Values by name, such as ``{"app.tenant": "7"}``; see
                :class:`penstock.SessionContext`.

        Raises:
            ContextError: A name or a value is refused, the database is no PostgreSQL, or this is
                the reader of a snapshot, whose transaction has begun.
        """
        if self._context is None:
            raise ContextError("A snapshot has the context of its begin: give it before snapshot()")
        return self._changed(_context=self._context.overridden_by(context_of(role, settings)))

    def with_timeout(self, seconds: float | None) -> Self:
        """Return the same, whose calls each end after a time, the wait for a connection included.

        No argument of the calls themselves, whose names are those of parameters and columns.

        Args:
            seconds: For the whole of each; None for no limit but the driver's.
        """
        return self._changed(_timeout=seconds)

    async def _settings(self) -> Settings:
        context = self._context
        if context is None:
            return ()
        settings = context.at_once()
        return await context.settings() if settings is None else settings

    def over(self, lane: Any) -> Self:
        """Return the same over another lane; statements that were compiled are shared.

        Args:
            lane: How statements are run.
        """
        return self._over(lane, self._context)

    def _over(self, lane: Any, context: ContextSource | None) -> Self:
        return self._changed(_place=_Place(lane), _context=context)

    def _changed(self, **changed: Any) -> Self:
        # Not copy(), whose protocol costs four microseconds, as each request has its own.
        other = object.__new__(type(self))
        vars(other).update(vars(self), **changed)
        return other

    def _run(self, call: Call, extract: Extract) -> Coroutine[Any, Any, Any]:
        raise NotImplementedError

    # No coroutine, as what follows: each one more between a route and the driver costs as much as
    # the ledger.
    def _ask(
        self,
        statement: Any,
        values: Values,
        named: dict[str, Any],
        extract: Extract,
    ) -> Coroutine[Any, Any, Any]:
        if statement.__class__ is Query and values is None:
            call = Call(statement, statement.statement, named)
        else:
            call = self._call(statement, values, named)
        context = self._context
        settings: Settings | None = ()
        if context is not None:
            request = context.request()
            settings = context.alone if request is None else context.at_once(request)
        if settings is None:
            answer = self._run_in_context(call, extract)
        else:
            call.settings = settings
            answer = self._run(call, extract)
        return self._within(answer)

    def _within(self, answer: Coroutine[Any, Any, _T]) -> Coroutine[Any, Any, _T]:
        if self._timeout is None and current_limits.get() is None:
            return answer
        return within(self._timeout, answer)

    async def _run_in_context(self, call: Call, extract: Extract) -> Any:
        call.settings = await self._settings()
        return await self._run(call, extract)

    def _call(self, statement: Any, values: Values, named: dict[str, Any]) -> Call:
        if values is not None:
            if not isinstance(values, Mapping):
                return self._call_of_rows(statement, list(values), named)
            named = {**values, **named}
        if isinstance(statement, Query):
            return Call(statement, statement.statement, named)
        return self._adhoc.call(statement, named)

    def _call_of_rows(self, statement: Any, rows: list[Any], named: dict[str, Any]) -> Call:  # noqa: ARG002 - a writer takes them
        raise ParameterError("The values of a call are one mapping, or keywords, and no list.")

    @overload
    def one(
        self, statement: Query[_T], values: Values = None, /, **named: Any
    ) -> Coroutine[Any, Any, _T]: ...
    @overload
    def one(
        self, statement: Statement, values: Values = None, /, **named: Any
    ) -> Coroutine[Any, Any, Any]: ...

    def one(
        self, statement: Any, values: Values = None, /, **named: Any
    ) -> Coroutine[Any, Any, Any]:
        """Return the only result.

        Args:
            statement: A prepared query, or a statement of SQLAlchemy's.
            values: Of its named parameters, as a mapping.
            **named: The same as keywords; they take precedence.

        Raises:
            NoResultFound: There is none.
            MultipleResultsFound: There is more than one.
        """
        return self._ask(statement, values, named, one)

    @overload
    def one_or_none(
        self, statement: Query[_T], values: Values = None, /, **named: Any
    ) -> Coroutine[Any, Any, _T | None]: ...
    @overload
    def one_or_none(
        self, statement: Statement, values: Values = None, /, **named: Any
    ) -> Coroutine[Any, Any, Any]: ...

    def one_or_none(
        self, statement: Any, values: Values = None, /, **named: Any
    ) -> Coroutine[Any, Any, Any]:
        """Return the only result, or None.

        Args:
            statement: A prepared query, or a statement of SQLAlchemy's.
            values: Of its named parameters, as a mapping.
            **named: The same as keywords; they take precedence.

        Raises:
            MultipleResultsFound: There is more than one.
        """
        return self._ask(statement, values, named, one_or_none)

    @overload
    def first(
        self, statement: Query[_T], values: Values = None, /, **named: Any
    ) -> Coroutine[Any, Any, _T | None]: ...
    @overload
    def first(
        self, statement: Statement, values: Values = None, /, **named: Any
    ) -> Coroutine[Any, Any, Any]: ...

    def first(
        self, statement: Any, values: Values = None, /, **named: Any
    ) -> Coroutine[Any, Any, Any]:
        """Return the first result, or None. The server sends them all: use ``limit(1)``.

        Args:
            statement: A prepared query, or a statement of SQLAlchemy's.
            values: Of its named parameters, as a mapping.
            **named: The same as keywords; they take precedence.
        """
        return self._ask(statement, values, named, first)

    @overload
    def scalar(
        self, statement: Query[Row[_T, *tuple[Any, ...]]], values: Values = None, /, **named: Any
    ) -> Coroutine[Any, Any, _T | None]: ...
    @overload
    def scalar(
        self, statement: Query[_M], values: Values = None, /, **named: Any
    ) -> Coroutine[Any, Any, _M | None]: ...
    @overload
    def scalar(
        self, statement: Select[_T], values: Values = None, /, **named: Any
    ) -> Coroutine[Any, Any, _T | None]: ...
    @overload
    def scalar(
        self, statement: Query[Any] | Statement, values: Values = None, /, **named: Any
    ) -> Coroutine[Any, Any, Any]: ...

    def scalar(
        self, statement: Any, values: Values = None, /, **named: Any
    ) -> Coroutine[Any, Any, Any]:
        """Return the first column of the first result, or None.

        Args:
            statement: A prepared query, or a statement of SQLAlchemy's.
            values: Of its named parameters, as a mapping.
            **named: The same as keywords; they take precedence.
        """
        return self._ask(statement, values, named, scalar)

    @overload
    def all(
        self, statement: Query[_T], values: Values = None, /, **named: Any
    ) -> Coroutine[Any, Any, list[_T]]: ...
    @overload
    def all(
        self, statement: Statement, values: Values = None, /, **named: Any
    ) -> Coroutine[Any, Any, list[Any]]: ...

    def all(
        self, statement: Any, values: Values = None, /, **named: Any
    ) -> Coroutine[Any, Any, Any]:
        """Return all results.

        Args:
            statement: A prepared query, or a statement of SQLAlchemy's.
            values: Of its named parameters, as a mapping; for a writer's INSERT also those of
                several rows.
            **named: The same as keywords; they take precedence.
        """
        return self._ask(statement, values, named, all_)


for _method in (Executor.one, Executor.one_or_none, Executor.first, Executor.scalar, Executor.all):
    mark_as_awaited(_method)


async def within(seconds: float | None, results: Coroutine[Any, Any, _T]) -> _T:
    """Wait for some results, no longer than for so many seconds, nor than the request may take.

    Raises:
        CommitOutcomeUnknown: The time was up when a write had been sent, and no answer had come.
        DeadlineExceeded: The time was up before, or for a read, or the server has said so.
    """
    try:
        return await within_limits(results, Deadline.after(seconds))
    except DeadlineExceeded as error:
        raise_if_unknown(error)
        raise


BATCH = 500
"""Rows that a stream asks the server for at a time."""


class Stream(Generic[_T]):
    """A statement's results, while they come; an ``async with``, or an ``async for``.

    Args:
        lane: How the statement is run.
        call: The statement and its values.
        settings: Gives those of the statement's transaction.
    """

    def __init__(
        self,
        lane: ReadingLane,
        call: Call,
        settings: Callable[[], Awaitable[Settings]],
    ) -> None:
        self._lane = lane
        self._call = call
        self._batch = BATCH
        self._settings = settings
        self._opened: AbstractAsyncContextManager[Batches] | None = None

    def yield_per(self, count: int) -> Self:
        """Return the same stream, which asks the server for so many rows at a time.

        Args:
            count: Above 0; no more rows are kept in memory.

        Raises:
            ExpressError: It is below 1.
        """
        if count < 1:
            raise ExpressError(f"yield_per({count!r}): rows above 0 are accepted.")
        self._batch = count
        return self

    async def __aenter__(self) -> AsyncIterator[_T]:
        self._call.settings = await self._settings()
        self._opened = self._lane.stream(self._call, self._batch)
        return _flat(await self._opened.__aenter__())

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        opened, self._opened = self._opened, None
        if opened is not None:
            await opened.__aexit__(kind, error, traceback)

    async def __aiter__(self) -> AsyncGenerator[_T, None]:
        async with self as results:
            async for result in results:
                yield result


async def _flat(batches: Batches) -> AsyncGenerator[Any, None]:
    async for batch in batches:
        for result in batch:
            yield result


class Reader(Executor[ReadingLane]):
    """Runs statements that only read, each in one transaction and one round trip.

    A read whose connection ends before any answer is repeated once. The server refuses what
    writes. Results are SQLAlchemy's rows; for ``select(User)``, detached instances.
    """

    def _run(self, call: Call, extract: Extract) -> Coroutine[Any, Any, Any]:
        if call.query.writes:
            raise _refusal(call)
        return self.lane.read(call, extract)

    async def exists(
        self,
        statement: Query[Any] | Select[*tuple[Any, ...]],
        values: Values = None,
        /,
        **named: Any,
    ) -> bool:
        """Return whether a ``select()`` has a result; the server stops at the first.

        Args:
            statement: A prepared query, or a statement of SQLAlchemy's.
            values: Of its named parameters, as a mapping.
            **named: The same as keywords; they take precedence.
        """
        found: Any
        found = statement.existence() if isinstance(statement, Query) else existence_of(statement)
        return bool(await self.scalar(found, values, **named))

    def json(
        self,
        statement: Query[Any] | JsonQuery,
        model: type[BaseModel] | None = None,
        values: Values = None,
        /,
        **named: Any,
    ) -> Coroutine[Any, Any, bytes]:
        """Return all results as the JSON of a response model's list, which PostgreSQL writes.

        Args:
            statement: What ``query()`` made of a ``select()``, or a :class:`JsonQuery`.
            model: The response model of one row; None for a :class:`JsonQuery`, which has it.
            values: Of the statement's named parameters, as a mapping.
            **named: The same as keywords; they take precedence.

        Returns:
            UTF-8, the bytes that ``TypeAdapter(list[model])`` makes of the rows, by alias.

        Raises:
            QueryRefused: It is not known that PostgreSQL writes the same; nothing was sent.
            pydantic.ValidationError: A row is none of the model's.
        """
        return self._within(json_of(statement, model).read(self._ask, values, named))

    @overload
    def stream(
        self, statement: Query[_T], values: Values = None, /, **named: Any
    ) -> Stream[_T]: ...
    @overload
    def stream(
        self, statement: Statement, values: Values = None, /, **named: Any
    ) -> Stream[Any]: ...

    def stream(self, statement: Any, values: Values = None, /, **named: Any) -> Stream[Any]:
        """Return results as the server makes them, so that a million rows fit into memory.

        It holds a connection and a transaction until it is left: ``async with reader.stream(...)
        as rows: async for row in rows``. An ``async for`` over the stream itself does the same, and
        lets go at the loop's end; left by ``break``, when Python finds it unused, and in a request
        at the latest when that is over.

        Args:
            statement: A prepared query, or a statement of SQLAlchemy's.
            values: Of its named parameters, as a mapping.
            **named: The same as keywords; they take precedence.

        Returns:
            The results, 500 rows at a time, or as many as ``stream(...).yield_per(50)`` says.

        Raises:
            ExpressError: ``with_timeout()`` was given, which is for calls that return.
        """
        if self._timeout is not None:
            raise ExpressError("A stream takes no timeout: use asyncio.timeout() around it.")
        call = self._call(statement, values, named)
        if call.query.writes:
            raise _refusal(call)
        return Stream(self.lane, call, self._settings)

    @asynccontextmanager
    async def snapshot(self) -> AsyncIterator["Reader"]:
        """A reader whose statements all see the database as it was at the first of them.

        They run one after another on one connection, in a transaction at REPEATABLE READ.
        """
        async with self.lane.snapshot(await self._settings()) as lane:
            yield self._over(lane, None)  # whose transaction has the context already


def _refusal(call: Call) -> ExpressError:
    return ExpressError(f"A reader runs nothing that writes: give it to the writer. {call.query!r}")

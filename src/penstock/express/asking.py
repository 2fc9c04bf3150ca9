"""How a reader and a writer are asked: which results of which statement, and how soon."""

import asyncio
from collections.abc import Awaitable, Mapping
from typing import Any, TypeVar, overload

from sqlalchemy import Row, Select

from penstock.express.adhoc import AdHocQueries
from penstock.express.errors import UNKNOWN, CommitOutcomeUnknown
from penstock.express.lanes import Call
from penstock.express.query import Mapped, Query, Statement
from penstock.express.results import first, one, one_or_none, scalar

__all__ = ["Asking", "Values", "within"]

_T = TypeVar("_T")
_M = TypeVar("_M", bound=Mapped)
Values = Mapping[str, Any] | None


class Asking:
    """What a reader and a writer have in common.

    Every method takes a statement, or what ``query()`` made of one; the values of its parameters,
    by name, as keywords or as one mapping; and ``timeout``, in seconds, for the whole of it, the
    wait for a connection included.
    """

    def __init__(self) -> None:
        self._adhoc = AdHocQueries()

    def _run(self, call: Call) -> Awaitable[list[Any]]:
        raise NotImplementedError

    # No coroutine: each one more between a route and the driver costs as much as the ledger.
    def _results(
        self, statement: Any, values: Values, named: dict[str, Any], seconds: float | None
    ) -> Awaitable[list[Any]]:
        results = self._run(self._call(statement, values, named))
        return results if seconds is None else within(seconds, results)

    def _call(self, statement: Any, values: Values, named: dict[str, Any]) -> Call:
        if values is not None:
            named = {**values, **named}
        if statement.__class__ is Query:
            return Call(statement, named)
        return self._adhoc.call(statement, named)

    @overload
    async def one(
        self,
        statement: Query[_T],
        values: Values = None,
        /,
        *,
        timeout: float | None = None,
        **named: Any,
    ) -> _T: ...
    @overload
    async def one(
        self,
        statement: Statement,
        values: Values = None,
        /,
        *,
        timeout: float | None = None,
        **named: Any,
    ) -> Any: ...

    async def one(
        self,
        statement: Any,
        values: Values = None,
        /,
        *,
        timeout: float | None = None,
        **named: Any,
    ) -> Any:
        """Return the only result.

        Raises:
            NoResultFound: There is none.
            MultipleResultsFound: There is more than one.
        """
        return one(await self._results(statement, values, named, timeout))

    @overload
    async def one_or_none(
        self,
        statement: Query[_T],
        values: Values = None,
        /,
        *,
        timeout: float | None = None,
        **named: Any,
    ) -> _T | None: ...
    @overload
    async def one_or_none(
        self,
        statement: Statement,
        values: Values = None,
        /,
        *,
        timeout: float | None = None,
        **named: Any,
    ) -> Any: ...

    async def one_or_none(
        self,
        statement: Any,
        values: Values = None,
        /,
        *,
        timeout: float | None = None,
        **named: Any,
    ) -> Any:
        """Return the only result, or None.

        Raises:
            MultipleResultsFound: There is more than one.
        """
        return one_or_none(await self._results(statement, values, named, timeout))

    @overload
    async def first(
        self,
        statement: Query[_T],
        values: Values = None,
        /,
        *,
        timeout: float | None = None,
        **named: Any,
    ) -> _T | None: ...
    @overload
    async def first(
        self,
        statement: Statement,
        values: Values = None,
        /,
        *,
        timeout: float | None = None,
        **named: Any,
    ) -> Any: ...

    async def first(
        self,
        statement: Any,
        values: Values = None,
        /,
        *,
        timeout: float | None = None,
        **named: Any,
    ) -> Any:
        """Return the first result, or None. The server sends them all: use ``limit(1)``."""
        return first(await self._results(statement, values, named, timeout))

    @overload
    async def scalar(
        self,
        statement: Query[Row[_T, *tuple[Any, ...]]],
        values: Values = None,
        /,
        *,
        timeout: float | None = None,
        **named: Any,
    ) -> _T | None: ...
    @overload
    async def scalar(
        self,
        statement: Query[_M],
        values: Values = None,
        /,
        *,
        timeout: float | None = None,
        **named: Any,
    ) -> _M | None: ...
    @overload
    async def scalar(
        self,
        statement: Select[_T],
        values: Values = None,
        /,
        *,
        timeout: float | None = None,
        **named: Any,
    ) -> _T | None: ...
    @overload
    async def scalar(
        self,
        statement: Query[Any] | Statement,
        values: Values = None,
        /,
        *,
        timeout: float | None = None,
        **named: Any,
    ) -> Any: ...

    async def scalar(
        self,
        statement: Any,
        values: Values = None,
        /,
        *,
        timeout: float | None = None,
        **named: Any,
    ) -> Any:
        """Return the first column of the first result, or None."""
        return scalar(await self._results(statement, values, named, timeout))

    @overload
    async def all(
        self,
        statement: Query[_T],
        values: Values = None,
        /,
        *,
        timeout: float | None = None,
        **named: Any,
    ) -> list[_T]: ...
    @overload
    async def all(
        self,
        statement: Statement,
        values: Values = None,
        /,
        *,
        timeout: float | None = None,
        **named: Any,
    ) -> list[Any]: ...

    async def all(
        self,
        statement: Any,
        values: Values = None,
        /,
        *,
        timeout: float | None = None,
        **named: Any,
    ) -> Any:
        """Return all results."""
        return await self._results(statement, values, named, timeout)


async def within(seconds: float | None, results: Awaitable[_T]) -> _T:
    """Wait for some results, no longer than for so many seconds.

    Raises:
        CommitOutcomeUnknown: The time was up when a write had been sent.
        TimeoutError: The time was up before, or for a read.
    """
    try:
        async with asyncio.timeout(seconds):
            return await results
    except TimeoutError as error:
        if getattr(error.__cause__, "was_sent", False):
            raise CommitOutcomeUnknown(UNKNOWN.format(f"within {seconds} s")) from error
        raise

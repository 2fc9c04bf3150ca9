"""How a reader and a writer are asked: which results of which statement, and how soon."""

import asyncio
from collections.abc import Awaitable, Coroutine, Mapping
from typing import Any, TypeVar, overload

from sqlalchemy import Row, Select

from penstock.express.adhoc import AdHocQueries
from penstock.express.awaited import mark_as_awaited
from penstock.express.errors import UNKNOWN, CommitOutcomeUnknown
from penstock.express.lanes import Call, Pick
from penstock.express.query import Mapped, Query, Statement
from penstock.express.results import every, first, one, one_or_none, scalar

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

    def _run(self, call: Call, pick: Pick) -> Coroutine[Any, Any, Any]:
        raise NotImplementedError

    # No coroutine, as what follows: each one more between a route and the driver costs as much as
    # the ledger.
    def _ask(
        self,
        statement: Any,
        values: Values,
        named: dict[str, Any],
        seconds: float | None,
        pick: Pick,
    ) -> Coroutine[Any, Any, Any]:
        if statement.__class__ is Query and values is None:
            call = Call(statement, named)
        else:
            call = self._call(statement, values, named)
        answer = self._run(call, pick)
        return answer if seconds is None else within(seconds, answer)

    def _call(self, statement: Any, values: Values, named: dict[str, Any]) -> Call:
        if values is not None:
            named = {**values, **named}
        if statement.__class__ is Query:
            return Call(statement, named)
        return self._adhoc.call(statement, named)

    @overload
    def one(
        self,
        statement: Query[_T],
        values: Values = None,
        /,
        *,
        timeout: float | None = None,
        **named: Any,
    ) -> Coroutine[Any, Any, _T]: ...
    @overload
    def one(
        self,
        statement: Statement,
        values: Values = None,
        /,
        *,
        timeout: float | None = None,
        **named: Any,
    ) -> Coroutine[Any, Any, Any]: ...

    def one(
        self,
        statement: Any,
        values: Values = None,
        /,
        *,
        timeout: float | None = None,
        **named: Any,
    ) -> Coroutine[Any, Any, Any]:
        """Return the only result.

        Raises:
            NoResultFound: There is none.
            MultipleResultsFound: There is more than one.
        """
        return self._ask(statement, values, named, timeout, one)

    @overload
    def one_or_none(
        self,
        statement: Query[_T],
        values: Values = None,
        /,
        *,
        timeout: float | None = None,
        **named: Any,
    ) -> Coroutine[Any, Any, _T | None]: ...
    @overload
    def one_or_none(
        self,
        statement: Statement,
        values: Values = None,
        /,
        *,
        timeout: float | None = None,
        **named: Any,
    ) -> Coroutine[Any, Any, Any]: ...

    def one_or_none(
        self,
        statement: Any,
        values: Values = None,
        /,
        *,
        timeout: float | None = None,
        **named: Any,
    ) -> Coroutine[Any, Any, Any]:
        """Return the only result, or None.

        Raises:
            MultipleResultsFound: There is more than one.
        """
        return self._ask(statement, values, named, timeout, one_or_none)

    @overload
    def first(
        self,
        statement: Query[_T],
        values: Values = None,
        /,
        *,
        timeout: float | None = None,
        **named: Any,
    ) -> Coroutine[Any, Any, _T | None]: ...
    @overload
    def first(
        self,
        statement: Statement,
        values: Values = None,
        /,
        *,
        timeout: float | None = None,
        **named: Any,
    ) -> Coroutine[Any, Any, Any]: ...

    def first(
        self,
        statement: Any,
        values: Values = None,
        /,
        *,
        timeout: float | None = None,
        **named: Any,
    ) -> Coroutine[Any, Any, Any]:
        """Return the first result, or None. The server sends them all: use ``limit(1)``."""
        return self._ask(statement, values, named, timeout, first)

    @overload
    def scalar(
        self,
        statement: Query[Row[_T, *tuple[Any, ...]]],
        values: Values = None,
        /,
        *,
        timeout: float | None = None,
        **named: Any,
    ) -> Coroutine[Any, Any, _T | None]: ...
    @overload
    def scalar(
        self,
        statement: Query[_M],
        values: Values = None,
        /,
        *,
        timeout: float | None = None,
        **named: Any,
    ) -> Coroutine[Any, Any, _M | None]: ...
    @overload
    def scalar(
        self,
        statement: Select[_T],
        values: Values = None,
        /,
        *,
        timeout: float | None = None,
        **named: Any,
    ) -> Coroutine[Any, Any, _T | None]: ...
    @overload
    def scalar(
        self,
        statement: Query[Any] | Statement,
        values: Values = None,
        /,
        *,
        timeout: float | None = None,
        **named: Any,
    ) -> Coroutine[Any, Any, Any]: ...

    def scalar(
        self,
        statement: Any,
        values: Values = None,
        /,
        *,
        timeout: float | None = None,
        **named: Any,
    ) -> Coroutine[Any, Any, Any]:
        """Return the first column of the first result, or None."""
        return self._ask(statement, values, named, timeout, scalar)

    @overload
    def all(
        self,
        statement: Query[_T],
        values: Values = None,
        /,
        *,
        timeout: float | None = None,
        **named: Any,
    ) -> Coroutine[Any, Any, list[_T]]: ...
    @overload
    def all(
        self,
        statement: Statement,
        values: Values = None,
        /,
        *,
        timeout: float | None = None,
        **named: Any,
    ) -> Coroutine[Any, Any, list[Any]]: ...

    def all(
        self,
        statement: Any,
        values: Values = None,
        /,
        *,
        timeout: float | None = None,
        **named: Any,
    ) -> Coroutine[Any, Any, Any]:
        """Return all results."""
        return self._ask(statement, values, named, timeout, every)


for _method in (Asking.one, Asking.one_or_none, Asking.first, Asking.scalar, Asking.all):
    mark_as_awaited(_method)


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

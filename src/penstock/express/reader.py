"""Reading in the express lane."""

from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from typing import Any, TypeVar, overload

from sqlalchemy import Select

from penstock.express.asking import Asking, Values
from penstock.express.errors import ExpressError
from penstock.express.lanes import Call, Pick, ReadingLane
from penstock.express.query import Query, Statement, existence_of
from penstock.express.stream import Stream

__all__ = ["Reader"]

_T = TypeVar("_T")


class Reader(Asking[ReadingLane]):
    """Runs statements that only read, each as a transaction of its own in one round trip.

    A read whose connection ends before any answer is repeated once. The server refuses what
    writes. Results are SQLAlchemy's rows; for ``select(User)``, detached instances.
    """

    def _run(self, call: Call, pick: Pick) -> Coroutine[Any, Any, Any]:
        if call.query.writes:
            raise _refusal(call)
        return self.lane.read(call, pick)

    async def exists(
        self,
        statement: Query[Any] | Select[*tuple[Any, ...]],
        values: Values = None,
        /,
        **named: Any,
    ) -> bool:
        """Return whether a ``select()`` has a result; the server stops at the first."""
        found: Any
        found = statement.existence() if isinstance(statement, Query) else existence_of(statement)
        return bool(await self.scalar(found, values, **named))

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
            statement: As everywhere.
            values: As everywhere.
            **named: As ``values``.

        Returns:
            The results, 500 rows at a time, or as many as ``stream(...).yield_per(50)`` says.

        Raises:
            ExpressError: ``with_timeout()`` was given, which is for calls that return.
        """
        if self._timeout is not None:
            raise ExpressError(
                "A stream has no timeout of its own: use asyncio.timeout() around it."
            )
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

"""The express lane of a request: beside the sessions of its unit of work, on their connection."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext, suppress
from functools import partial
from typing import Any, TypeVar

from penstock.context import Settings
from penstock.database.self_deadlock import refuse_self_deadlock
from penstock.database.unit import UnitOfWork
from penstock.express.errors import LaneEnded
from penstock.express.lanes import Batches, Call, Copy, OpenLane, Pick
from penstock.express.query import Query
from penstock.pool import enclosing_tasks

__all__ = ["UnitLane"]

_T = TypeVar("_T")
Held = dict[Any, list[OpenLane]]
"""The lanes of the streams and snapshots that a request has open, by database."""


class UnitLane:
    """A lane that takes no second connection where the request holds one, or says so.

    What only reads runs on the connection of its sessions, else of an open stream or snapshot. What
    writes, a stream and a snapshot are transactions of their own; for them, a session that only
    reads returns its connection first.

    Args:
        shared: The database's own reader or writer, whose lane runs the statements.
        database: What the next two know the database by.
        units: The request's units of work; without one where no session was asked for.
        held: What else it holds, kept up to date here.
    """

    __slots__ = ("_database", "_held", "_shared", "_units")

    def __init__(
        self, shared: Any, database: Any, units: Mapping[Any, UnitOfWork], held: Held
    ) -> None:
        self._shared = shared
        self._database = database
        self._units = units
        self._held = held

    # No coroutine where nothing is held: a request that has no session pays for none.
    def read(self, call: Call, pick: Pick) -> Coroutine[Any, Any, Any]:
        """As the protocol says."""
        if self._units or self._held:
            return self._read_beside(call, pick)
        return self._shared.lane.read(call, pick)  # type: ignore[no-any-return]  # a lane's

    def _read_beside(self, call: Call, pick: Pick) -> Coroutine[Any, Any, Any]:
        unit = self._units.get(self._database)
        if unit is None:
            return self._read_where_held(call, pick)
        return unit.read_within(
            lambda connection: self._shared.lane.read_within(connection, call, pick),
            partial(self._read_where_held, call, pick),
        )

    async def _read_where_held(self, call: Call, pick: Pick) -> Any:
        if held := self._held.get(self._database):
            with suppress(LaneEnded):  # while this waited for its turn
                return await held[-1].read_apart(call, pick)
        return await self._shared.lane.read(call, pick)

    def write(self, call: Call, pick: Pick) -> Coroutine[Any, Any, Any]:
        """As the protocol says."""
        return self._write(self._shared.lane.write, call, pick)

    def execute(self, call: Call) -> Coroutine[Any, Any, int]:
        """As the protocol says."""
        return self._write(self._shared.lane.execute, call)

    def execute_many(
        self, query: Query[Any], rows: Sequence[Mapping[str, Any]], settings: Settings = ()
    ) -> Coroutine[Any, Any, None]:
        """As the protocol says."""
        return self._write(self._shared.lane.execute_many, query, rows, settings)

    def copy(self, copy: Copy, settings: Settings = ()) -> Coroutine[Any, Any, int]:
        """As the protocol says."""
        return self._write(self._shared.lane.copy, copy, settings)

    def _write(
        self, method: Callable[..., Coroutine[Any, Any, _T]], *arguments: Any
    ) -> Coroutine[Any, Any, _T]:
        unit = self._units.get(self._database)
        return method(*arguments) if unit is None else self._write_beside(unit, method, *arguments)

    async def _write_beside(
        self, unit: UnitOfWork, method: Callable[..., Awaitable[_T]], *arguments: Any
    ) -> _T:
        if await unit.make_way() is None:
            return await method(*arguments)
        async with refuse_self_deadlock(unit):
            return await method(*arguments)

    @asynccontextmanager
    async def stream(self, call: Call, batch: int) -> AsyncIterator[Batches]:
        """As the protocol says."""
        async with self.reading(call) as lane, lane.stream(call, batch) as batches:
            yield batches

    def reading(self, call: Call) -> AbstractAsyncContextManager[OpenLane]:
        """As the protocol says."""
        return self._apart(self._shared.lane.reading(call))

    def snapshot(self, settings: Settings = ()) -> AbstractAsyncContextManager[OpenLane]:
        """As the protocol says."""
        return self._apart(self._shared.lane.snapshot(settings))

    @asynccontextmanager
    async def _apart(
        self, opened: AbstractAsyncContextManager[OpenLane]
    ) -> AsyncIterator[OpenLane]:
        unit = self._units.get(self._database)
        is_beside = unit is not None and await unit.make_way() is not None
        watched = refuse_self_deadlock(unit) if unit is not None and is_beside else nullcontext()
        async with watched, opened as lane:
            enclosing = enclosing_tasks.get()
            enclosing_tasks.set((*enclosing, asyncio.current_task()))
            self._held.setdefault(self._database, []).append(lane)
            try:
                yield lane
            finally:
                self._held[self._database].remove(lane)
                enclosing_tasks.set(enclosing)

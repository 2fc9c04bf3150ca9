"""The express lane beside a unit's sessions, on their connection or apart from it."""

import asyncio
from collections.abc import (
    AsyncIterator,
    Awaitable,
    Callable,
    Coroutine,
    Iterator,
    Mapping,
    Sequence,
)
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext, suppress
from functools import partial
from importlib.resources import files
from itertools import chain, repeat
from typing import Any, TypeVar

from sqlalchemy import text
from sqlalchemy.exc import DBAPIError, InvalidRequestError, SQLAlchemyError

from penstock.base_error import PenstockError
from penstock.context import Settings
from penstock.database.session import UnitSession
from penstock.database.unit import UnitOfWork
from penstock.express.errors import LaneEnded
from penstock.express.lane import Batches, Copy, Extract, OpenLane
from penstock.express.query import Call, Query
from penstock.pool import enclosing_tasks
from penstock.pool.record import Record, task_of
from penstock.pool.slot import CHECKED_OUT

_T = TypeVar("_T")


class SelfDeadlock(PenstockError, InvalidRequestError):  # noqa: N818 - it reads as what happened, like SQLAlchemy's
    """A statement of the express lane waited for a lock of a session of the same request.

    The server sees no deadlock: the session's transaction only ends after the statement. The
    statement was cancelled and has written nothing.
    """


_SQL = text(files("penstock.database").joinpath("self_deadlock.sql").read_text())
_FIRST_CHECKS = (0.1, 0.2, 0.4, 0.8)
"""Seconds until each of the first checks; most statements are done before."""
_CHECK_INTERVAL = 1.0
"""Seconds between two later checks."""

_CANCELED = "57014"
"""The SQLSTATE of a statement that was cancelled on request."""

_MESSAGE = (
    "A statement of the express lane waited for a lock that a session of the same request holds. "
    "The session's transaction ends only after it, so it would have waited for ever. The server "
    "has cancelled it, and it has written nothing. Use the session, or commit that first (await "
    "session.commit())."
)


@asynccontextmanager
async def refuse_self_deadlock(unit: UnitOfWork) -> AsyncIterator[None]:
    """Have the server cancel what the block waits for if that is a lock of the unit's own sessions.

    On PostgreSQL, where no pooler is in between, which makes up the numbers of processes.

    Args:
        unit: Whose sessions hold a connection; the block runs statements on another one.

    Raises:
        SelfDeadlock: It was such a lock.
    """
    over = asyncio.Event()
    watch = asyncio.create_task(_watch(unit, asyncio.current_task(), over))
    try:
        yield
    except DBAPIError as error:
        over.set()
        is_cancelled = getattr(error.orig, "sqlstate", None) == _CANCELED
        if is_cancelled and await asyncio.shield(watch):
            raise SelfDeadlock(_MESSAGE) from error
        raise
    finally:
        over.set()  # the question on the session's connection is not cancelled


async def _watch(unit: UnitOfWork, task: "asyncio.Task[Any] | None", over: asyncio.Event) -> bool:
    """Return whether the task waited for the unit and was cancelled on the server for that."""
    for pause in chain(_FIRST_CHECKS, repeat(_CHECK_INTERVAL)):
        with suppress(TimeoutError):
            await asyncio.wait_for(over.wait(), pause)
        leases = [] if over.is_set() else list(unit.leases())
        pids = list(_processes(leases, task))
        for session, record in leases if pids else ():
            if not over.is_set() and await _cancel_waiting(session, record, pids):
                return True
        if over.is_set():
            return False
    return False  # never: the last pause is repeated


def _processes(
    leases: list[tuple[UnitSession, Record]], task: "asyncio.Task[Any] | None"
) -> Iterator[int]:
    """Return the server's processes of the connections that the task has besides."""
    held = {record.slot for _, record in leases}
    for runtime in {record.runtime for _, record in leases}:
        for slot in runtime.ledger:
            if slot.state is CHECKED_OUT and slot not in held and task_of(slot.lease) is task:
                connection = slot.content.dbapi_connection
                pid = runtime.driver_of(connection).server_pid(connection)
                if pid is not None:
                    yield pid


async def _cancel_waiting(session: UnitSession, record: Record, pids: list[int]) -> bool:
    """Cancel what waits for a session; return whether anything did."""
    connection = session.open_connection()
    own = record.runtime.driver_of(record.dbapi_connection).server_pid(record.dbapi_connection)
    if connection is None or session.connection_lock.is_held:
        return False
    async with session.held_by(object()):
        try:
            return bool(await connection.scalar(_SQL, {"pids": pids, "own": own}))
        except SQLAlchemyError:
            return False  # its transaction has failed and holds nothing any more


Held = dict[Any, list[OpenLane]]
"""The lanes of the streams and snapshots that a request has open, by database."""


class UnitLane:
    """A lane that takes no second connection where the request holds one, or refuses.

    What only reads runs on the connection of its sessions, else of an open stream or snapshot. What
    writes, a stream and a snapshot are transactions of their own; for them, a session that only
    reads returns its connection first.

    Args:
        shared: The database's own reader or writer, whose lane runs the statements.
        database: What the next two know the database by.
        units: The request's units of work; none where the request has no session.
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
    def read(self, call: Call, extract: Extract) -> Coroutine[Any, Any, Any]:
        """Read where the request holds a connection, else on one of the pool's."""
        if self._units or self._held:
            return self._read_beside(call, extract)
        return self._shared.lane.read(call, extract)  # type: ignore[no-any-return]  # a lane's

    def _read_beside(self, call: Call, extract: Extract) -> Coroutine[Any, Any, Any]:
        unit = self._units.get(self._database)
        if unit is None:
            return self._read_where_held(call, extract)
        return unit.read_within(
            lambda connection: self._shared.lane.read_within(connection, call, extract),
            partial(self._read_where_held, call, extract),
        )

    async def _read_where_held(self, call: Call, extract: Extract) -> Any:
        if held := self._held.get(self._database):
            with suppress(LaneEnded):  # while this waited for the lock
                return await held[-1].read_apart(call, extract)
        return await self._shared.lane.read(call, extract)

    def write(self, call: Call, extract: Extract) -> Coroutine[Any, Any, Any]:
        """Write in a separate transaction."""
        return self._write(self._shared.lane.write, call, extract)

    def execute(self, call: Call) -> Coroutine[Any, Any, int]:
        """Write in a separate transaction, and return how many rows."""
        return self._write(self._shared.lane.execute, call)

    def execute_many(
        self, query: Query[Any], rows: Sequence[Mapping[str, Any]], settings: Settings = ()
    ) -> Coroutine[Any, Any, None]:
        """Write several rows in a separate transaction."""
        return self._write(self._shared.lane.execute_many, query, rows, settings)

    def copy(self, copy: Copy, settings: Settings = ()) -> Coroutine[Any, Any, int]:
        """Write rows in bulk in a separate transaction, and return how many."""
        return self._write(self._shared.lane.copy, copy, settings)

    def _write(
        self, method: Callable[..., Coroutine[Any, Any, _T]], *arguments: Any
    ) -> Coroutine[Any, Any, _T]:
        unit = self._units.get(self._database)
        return method(*arguments) if unit is None else self._write_beside(unit, method, *arguments)

    async def _write_beside(
        self, unit: UnitOfWork, method: Callable[..., Awaitable[_T]], *arguments: Any
    ) -> _T:
        if await unit.release_reader() is None:
            return await method(*arguments)
        async with refuse_self_deadlock(unit):
            return await method(*arguments)

    @asynccontextmanager
    async def stream(self, call: Call, batch: int) -> AsyncIterator[Batches]:
        """Give results ``batch`` rows at a time, in a separate transaction."""
        async with self.reading(call) as lane, lane.stream(call, batch) as batches:
            yield batches

    def reading(self, call: Call) -> AbstractAsyncContextManager[OpenLane]:
        """Give a lane in a separate transaction that only reads."""
        return self._apart(self._shared.lane.reading(call))

    def snapshot(self, settings: Settings = ()) -> AbstractAsyncContextManager[OpenLane]:
        """Give a lane whose statements all see the database at one moment."""
        return self._apart(self._shared.lane.snapshot(settings))

    @asynccontextmanager
    async def _apart(
        self, opened: AbstractAsyncContextManager[OpenLane]
    ) -> AsyncIterator[OpenLane]:
        unit = self._units.get(self._database)
        is_beside = unit is not None and await unit.release_reader() is not None
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

"""What can be seen of an open database, and a cancellation at each await."""

import asyncio
from collections.abc import Coroutine, Generator
from typing import Any

from sqlalchemy import event, text
from tests.servers.postgres import PostgresServer

from penstock import Database, PenstockPool


def pool_of(database: Database) -> PenstockPool:
    """Return the pool of the moment."""
    pool = database.engine.pool
    assert isinstance(pool, PenstockPool)
    return pool


def is_open(database: Database) -> bool:
    """Return whether it has connections and counts; both or neither."""
    has_connections = pool_of(database).ledger.open > 0
    assert (database.telemetry.recorder is not None) is has_connections
    return has_connections


def backends(postgres: PostgresServer, url: str) -> int:
    """Return the number of the server's processes for a test's database."""
    name = url.rpartition("/")[2]
    [(count,)] = postgres.execute(f"SELECT count(*) FROM pg_stat_activity WHERE datname = '{name}'")
    assert isinstance(count, int)
    return count


def connects(database: Database) -> list[object]:
    """Return a list that grows with each connection that is opened from now on."""
    opened: list[object] = []
    event.listen(database.engine.sync_engine, "connect", lambda *each: opened.append(each[0]))
    return opened


class Service:
    """Work on an open database, which nothing may disturb."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._pool = pool_of(database)
        self._recorder = database.telemetry.recorder
        self._may_end = asyncio.Event()
        self._write: asyncio.Task[tuple[object, object]] | None = None

    async def begin(self) -> None:
        """Begin a transaction, which stays in progress."""
        is_begun = asyncio.Event()
        self._write = asyncio.create_task(self._work(is_begun))
        await is_begun.wait()

    async def _work(self, is_begun: asyncio.Event) -> tuple[object, object]:
        async with self._database.write() as session:
            before = await session.scalar(text("SELECT txid_current()"))
            is_begun.set()
            await self._may_end.wait()
            return before, await session.scalar(text("SELECT txid_current()"))

    async def assert_undisturbed(self) -> None:
        """Go on with the transaction and use the database: all must be what it was before."""
        self._may_end.set()
        if self._write is not None:
            before, after = await self._write
            assert before == after
        assert await self._database.reader.scalar(text("SELECT 1")) == 1
        assert pool_of(self._database) is self._pool
        assert self._database.telemetry.recorder is self._recorder


class CancelledAt:
    """Awaits something, and cancels the task as it is suspended for the n-th time.

    Args:
        work: Any coroutine.
        number: From 1.
        every: Whether it is cancelled at each later one, too, as within anyio's scopes.
    """

    def __init__(self, work: Coroutine[Any, Any, object], number: int, *, every: bool) -> None:
        self._work = work
        self._number = number
        self._every = every
        self.was_reached = False

    def __await__(self) -> Generator[Any, Any, object]:
        steps: Generator[Any, Any, object] = self._work.__await__()
        count, raised = 0, None
        while True:
            try:
                suspended = steps.throw(raised) if raised else steps.send(None)
            except StopIteration as end:
                return end.value
            count += 1
            if count == self._number or (self._every and count > self._number):
                self.was_reached = True
                task = asyncio.current_task()
                assert task is not None
                task.cancel()
            try:
                yield suspended
            except BaseException as error:  # noqa: BLE001 - it is the work's
                raised = error
            else:
                raised = None

"""What the contract is held against: one implementation of the pool on one driver."""

import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from sqlalchemy import make_url
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.pool import AsyncAdaptedQueuePool, PoolProxiedConnection
from sqlalchemy.util import greenlet_spawn
from tests.eventually import eventually
from tests.servers.mariadb import MariadbServer
from tests.servers.postgres import PostgresServer

# Long enough to be met while it runs, and nobody has to wait for its end.
NAPS = {
    "postgresql": "SELECT pg_sleep(2)",
    "mysql": "SELECT SLEEP(2)",
    "sqlite": "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 2000000) "
    "SELECT count(*) FROM n",
}


class Subject:
    """Makes engines on one pool class and one driver, and can take their connections from below.

    Args:
        poolclass: The implementation.
        url: Of a database that the tests of one run share.
        server: Whose superuser ends connections; None for a file.
    """

    def __init__(
        self,
        poolclass: type[AsyncAdaptedQueuePool],
        url: str,
        server: PostgresServer | MariadbServer | None,
    ) -> None:
        self.poolclass = poolclass
        self.url = url
        self._server = server
        self._engines: list[AsyncEngine] = []
        self._threads = _threads_of_sqlite()

    def engine(self, **options: Any) -> AsyncEngine:
        """Make an engine that is disposed of after the test.

        Args:
            options: Of ``create_async_engine``.
        """
        engine = create_async_engine(self.url, poolclass=self.poolclass, **options)
        self._engines.append(engine)
        return engine

    async def close(self) -> None:
        """Dispose of every engine, and see to it that no connection to a file is left open."""
        for engine in self._engines:
            await engine.dispose()
        await eventually(lambda: _threads_of_sqlite() <= self._threads, seconds=3)

    @property
    def nap(self) -> str:
        """A statement that takes a while."""
        return NAPS[make_url(self.url).get_backend_name()]

    async def kill(self, driver: Any) -> None:
        """End a driver's connection behind the pool's back, and return when it is gone."""
        match self._server:
            case PostgresServer() as server:
                server.execute(f"SELECT pg_terminate_backend({backend_of(driver)}, 10000)")
            case MariadbServer() as server:
                process = driver.thread_id()
                server.execute(f"KILL {process}")
                alive = f"SELECT 1 FROM information_schema.processlist WHERE id = {process}"
                await eventually(lambda: not server.execute(alive))
            case None:
                await driver.close()

    def is_closed(self, driver: Any) -> bool:
        """Return whether a driver's connection was closed on this side."""
        match make_url(self.url).get_driver_name():
            case "asyncpg":
                closed = driver.is_closed()
            case "asyncmy":
                closed = not driver.connected
            case "aiosqlite":
                closed = driver._connection is None
            case _:
                closed = driver.closed
        return bool(closed)


def _threads_of_sqlite() -> set[threading.Thread]:
    return {one for one in threading.enumerate() if "_connection_worker_thread" in one.name}


def backend_of(driver: Any) -> int:
    """Return the process of PostgreSQL that serves a driver's connection."""
    asyncpg = hasattr(driver, "get_server_pid")
    pid: int = driver.get_server_pid() if asyncpg else driver.info.backend_pid
    return pid


def pool_of(engine: AsyncEngine) -> AsyncAdaptedQueuePool:
    """Return the pool of an engine, whose numbers every queue pool has."""
    pool = engine.pool
    assert isinstance(pool, AsyncAdaptedQueuePool)
    return pool


def numbers(engine: AsyncEngine) -> tuple[int, int, int, int]:
    """Return the size, and how many are checked in, overflowing and checked out."""
    pool = pool_of(engine)
    return pool.size(), pool.checkedin(), pool.overflow(), pool.checkedout()


async def acquire(engine: AsyncEngine) -> PoolProxiedConnection:
    """Take a connection from the pool itself, with no ``Connection`` around it."""
    return await greenlet_spawn(engine.pool.connect)


async def release(*leases: PoolProxiedConnection) -> None:
    """Return connections to their pool, in this order."""
    for lease in leases:
        await greenlet_spawn(lease.close)


async def invalidate(lease: PoolProxiedConnection) -> None:
    """Let the holder of a connection condemn it."""
    await greenlet_spawn(lease.invalidate)


async def ask(lease: PoolProxiedConnection, statement: str) -> Any:
    """Run one statement on a connection and return the first value of its first row, if any."""

    def execute() -> Any:
        cursor = lease.cursor()
        try:
            cursor.execute(statement)
            row = cursor.fetchone() if cursor.description else None
        finally:
            cursor.close()
        return row[0] if row else None

    return await greenlet_spawn(execute)


@asynccontextmanager
async def checked_out(engine: AsyncEngine) -> AsyncIterator[PoolProxiedConnection]:
    """Hold a connection of the pool for a block."""
    lease = await acquire(engine)
    try:
        yield lease
    finally:
        await release(lease)

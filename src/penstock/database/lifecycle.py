"""Opening and closing a database, and what its server says of itself."""

import asyncio
import logging
import os
import threading
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from contextlib import contextmanager
from importlib.resources import files
from math import nan
from typing import Any

import asyncpg
from sqlalchemy import bindparam, text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from penstock.base_error import PenstockError, SettingsError
from penstock.budget import ConnectionBudget, ServerLimits
from penstock.drivers.sqlalchemy_internals import record_of
from penstock.engine import ReadOnlyConnections, pool_snapshot
from penstock.pool import PenstockPool, PoolInAnotherLoop, PoolTimeout
from penstock.settings import BudgetPolicy, DatabaseSettings

_logger = logging.getLogger(__name__)

_POSTGRESQL = text("SELECT name, setting FROM pg_settings WHERE name IN :names").bindparams(
    bindparam("names", expanding=True)
)
_RESERVED = ("superuser_reserved_connections", "reserved_connections")
"""The second exists since PostgreSQL 16."""
_MYSQL = text("SELECT @@GLOBAL.max_connections")


class BudgetExceeded(PenstockError):  # noqa: N818 - it reads as what happened, like SQLAlchemy's
    """The fleet may open more connections than the server can serve; nothing was started.

    Raised by :meth:`Database.open` only under ``budget="refuse"``.
    """


def settings_only(settings: object) -> DatabaseSettings:
    """Return settings as they are.

    Raises:
        SettingsError: They are something else, such as a URL.
    """
    if not isinstance(settings, DatabaseSettings):
        raise SettingsError(
            f"Database(settings) takes DatabaseSettings, not {type(settings).__name__}: "
            "a URL is for Database.from_url(url)"
        )
    return settings


def pool_of(engine: AsyncEngine, settings: DatabaseSettings) -> PenstockPool:
    """Return the pool of an engine.

    Args:
        engine: Of the database.
        settings: Its settings.

    Raises:
        PenstockError: There is none, in ``serverless``.
    """
    pool = engine.pool
    if not isinstance(pool, PenstockPool):
        raise PenstockError(
            f"environment={settings.environment.value!r} keeps no pool: each use connects"
        )
    return pool


async def keep_state_of(connection: AsyncConnection) -> None:
    """Have the pool leave a connection as its holder sets it up, and close it at the end."""
    if isinstance(connection.engine.pool, PenstockPool):
        raw: Any = await connection.get_raw_connection()
        record_of(raw).keep_state()


async def server_limits(connection: AsyncConnection) -> ServerLimits | None:
    """Return the limits of the server behind ``connection``; None where there is no such limit."""
    match connection.dialect.name:
        case "postgresql":
            rows = await connection.execute(_POSTGRESQL, {"names": ["max_connections", *_RESERVED]})
            limits = {name: int(setting) for name, setting in rows}
            return ServerLimits(
                max_connections=limits["max_connections"],
                reserved=sum(limits.get(name, 0) for name in _RESERVED),
            )
        case "mysql" | "mariadb":
            accepted = await connection.scalar(_MYSQL)
            return ServerLimits(max_connections=int(accepted))
        case _:
            return None


async def check_budget(connection: AsyncConnection, settings: DatabaseSettings) -> None:
    """Compare the connections that the fleet may open with what the server accepts.

    Args:
        connection: To the server.
        settings: The database's; its ``budget`` says what becomes of too large a fleet.

    Raises:
        BudgetExceeded: The fleet may open too many connections, under ``budget="refuse"``.
    """
    if settings.budget is BudgetPolicy.OFF or not settings.keeps_connections:
        return
    limits = await server_limits(connection)
    if limits is None:
        return
    finding = ConnectionBudget(
        workers=settings.workers,
        instances=settings.instances,
        pool_size=settings.pool_size,
        max_overflow=settings.max_overflow,
        reserve=settings.connection_reserve,
    ).check(limits)
    if finding is None:
        return
    if settings.budget is BudgetPolicy.REFUSE:
        raise BudgetExceeded(str(finding))
    _logger.warning("%s", finding)


def warn_of_unnamed_environment(settings: DatabaseSettings) -> None:
    """Say what holds where the environment was not chosen."""
    if not settings.names_environment:
        _logger.warning(
            "No environment is set: the profile of development applies, without values in the log, "
            "and the operations routes answer this machine only. Set ENVIRONMENT, or environment=, "
            "to development, testing, production or serverless."
        )


_SQL = files("penstock.database").joinpath("server_numbers.sql").read_text()
ANSWER_WITHIN = 2.0
"""Seconds; a server that takes longer is queried again later."""

ServerNumbers = tuple[float, float, float, float]


async def server_numbers(
    engine: AsyncEngine, read_only: ReadOnlyConnections
) -> ServerNumbers | None:
    """Read the server's numbers on an idle connection, if there is one; it counts as no lease.

    Args:
        engine: On asyncpg, with a :class:`PenstockPool`.
        read_only: Which knows whether a pooler stands in between.

    Returns:
        Connections of all clients, how many the server accepts, and the lag of the replica furthest
        behind in bytes and in seconds, NaN for what is not known; None where no connection was
        idle, or the server did not answer.
    """
    if not read_only.are_possible:  # a pooler's clients are not the server's
        return None
    pool = engine.pool
    assert isinstance(pool, PenstockPool)  # noqa: S101 - as Database has looked
    try:
        return await pool.run_probe(_numbers, ANSWER_WITHIN)
    except (OSError, asyncpg.InterfaceError, TimeoutError) as error:
        _logger.debug("The server's numbers could not be read: %s", error)
        return None


async def _numbers(adapter: Any) -> ServerNumbers | None:
    try:
        row = await adapter.driver_connection.fetchrow(_SQL)
    except asyncpg.PostgresError as error:
        _logger.debug("The server refuses to give its numbers: %s", error)
        return None
    connections, accepted, lag_bytes, lag_seconds = (nan if v is None else float(v) for v in row)
    return connections, accepted, lag_bytes, lag_seconds


async def ping(engine: AsyncEngine, seconds: float) -> None:
    """Check out a connection and make one round trip; :meth:`Database.ping` says what it raises.

    Args:
        engine: Whose connection.
        seconds: For the whole of it, the wait for a connection included.
    """
    limit, has_connection = asyncio.timeout(seconds), False
    try:
        async with limit, engine.connect() as connection:
            has_connection = True
            if engine.dialect.name == "postgresql":  # without a BEGIN
                await connection.execution_options(isolation_level="AUTOCOMMIT")
            await connection.exec_driver_sql("SELECT 1")
    except TimeoutError as error:
        if not limit.expired():
            raise
        pool = pool_snapshot(engine)
        message = f"no answer within {seconds:g} s; {pool}"
        if not has_connection and pool.checked_out >= pool.limit:
            raise PoolTimeout(message, snapshot=pool) from error
        raise TimeoutError(message) from error


_IN_ANOTHER_LOOP = (
    "the database is open in another event loop: run the job there, as by "
    "asyncio.run_coroutine_threadsafe(job(), loop), or make another Database for this loop"
)


class _Opens:
    """The opens on one event loop of one process."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.process = os.getpid()
        self.count = 0
        self.calls = 0
        """Opens and closes in progress."""
        self.transition = asyncio.Lock()
        """Held by the first open and by the last close, for as long as they take."""

    def is_open(self) -> bool:
        """Return whether an open has succeeded that was not closed."""
        return self.count > 0

    def is_alive(self) -> bool:
        """Return whether another event loop has to stay away."""
        is_used = self.is_open() or self.calls > 0
        return is_used and not self.loop.is_closed() and self.process == os.getpid()


class Lifecycle:
    """Counts the opens of one database, which is open on one event loop at a time.

    Args:
        start: Opens it. Where it fails, it has undone what it began.
        stop: Closes it. Given the seconds that the last ``close`` was given.
    """

    def __init__(
        self, start: Callable[[], Awaitable[None]], stop: Callable[[float], Awaitable[None]]
    ) -> None:
        self._start = start
        self._stop = stop
        self._opens: _Opens | None = None
        self._binding = threading.Lock()
        """Held while an event loop is bound: two threads may try at the same time."""

    async def open(self) -> None:
        """Start, unless it is started; where that is in progress, wait for its outcome first.

        Raises:
            PoolInAnotherLoop: It is open in another event loop that has not ended.
            Exception: What ``start`` raised; it does not count as an open then.
        """
        with self._opens_here() as opens:
            if opens.is_open():
                opens.count += 1
                return
            async with opens.transition:
                if not opens.is_open():
                    await self._start()
                opens.count += 1

    async def close(self, timeout: float) -> None:  # noqa: ASYNC109 - passed on, not applied
        """Take one open back, and stop where it was the last or there was none.

        Args:
            timeout: For ``stop``.

        Raises:
            PoolInAnotherLoop: It is open in another event loop that has not ended.
        """
        with self._opens_here() as opens:
            # Counted before the first await, so that a cancelled close does not leave it open.
            if is_counted := opens.is_open():
                opens.count -= 1
            if opens.is_open():
                return
            async with opens.transition:
                if opens.is_open() and not is_counted:
                    opens.count -= 1  # of the open that was in progress
                if not opens.is_open():
                    await self._stop(timeout)

    @contextmanager
    def _opens_here(self) -> Iterator[_Opens]:
        loop = asyncio.get_running_loop()
        with self._binding:
            opens = self._opens
            if opens is None or opens.loop is not loop or opens.process != os.getpid():
                if opens is not None and opens.is_alive():
                    raise PoolInAnotherLoop(_IN_ANOTHER_LOOP)
                opens = self._opens = _Opens(loop)
            opens.calls += 1
        try:
            yield opens
        finally:
            opens.calls -= 1


async def finish(work: Coroutine[Any, Any, None]) -> None:
    """Await work to its end; a cancellation meanwhile is raised after that."""
    task = asyncio.get_running_loop().create_task(work)
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.wait({task})
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is not None:
        raise cancelled from (None if task.cancelled() else task.exception())
    task.result()

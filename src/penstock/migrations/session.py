"""The one connection on which migrations run, and the locks that it waits for."""

import asyncio
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from importlib.resources import files

from alembic.util import CommandError
from sqlalchemy import make_url, text
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from penstock.base_error import PenstockError
from penstock.database import of_primary
from penstock.engine import LockTimeout, ReadOnlyConnections, build_engine
from penstock.pool import ConnectFailed
from penstock.settings import DatabaseSettings, Environment


class MigrationFailed(PenstockError, CommandError):  # noqa: N818 - as Alembic's, whose program prints it
    """Migrations could not run; what could not finish is rolled back, and the message says why."""


_NO_LIMIT = 2_000_000.0
"""Seconds for one statement, in place of ``command_timeout``; PostgreSQL counts up to 24 days."""
_SQL = files("penstock.migrations")
_LIMITS = text(_SQL.joinpath("limits.sql").read_text())
_BLOCKERS = text(_SQL.joinpath("blockers.sql").read_text())
_KEY = text("SELECT hashtextextended(:name, 0)")
_TRY_LOCK = text("SELECT pg_try_advisory_lock(:key)")
_OWN_PID = text("SELECT pg_backend_pid()")
_POLL = 0.2
_FIRST_DELAY, _LONGEST_DELAY = 0.25, 8.0
_DEADLOCK = "40P01"

_THROUGH_POOLER = (
    "The migrations would run through {pooler}, which gives the server connection to other clients "
    "between transactions: set DATABASE_MIGRATIONS_URL to a URL that leads past it, to PostgreSQL."
)


def migration_settings(settings: DatabaseSettings) -> DatabaseSettings:
    """Return the settings of the one connection.

    Args:
        settings: Of the service.
    """
    direct = settings.migrations_url
    own = {
        "environment": Environment.SERVERLESS,
        "command_timeout": _NO_LIMIT,
        "statement_cache_size": 0,
        "echo": False,
    }
    if direct is not None:
        own |= {"url": direct, "proxy": ()}
        if make_url(direct.get_secret_value()).password is not None:
            own["credentials_file"] = None
    return of_primary(settings.model_copy(update=own))


class MigrationSession:
    """The connection of one run, and what else it has to look at.

    Args:
        connection: Open.
        engine: Its engine, which opens another to see what blocks this one.
        lock_timeout: Seconds that a statement waits for a lock.

    Attributes:
        connection: As the argument.
    """

    def __init__(
        self, connection: AsyncConnection, engine: AsyncEngine, lock_timeout: float
    ) -> None:
        self.connection = connection
        self._engine = engine
        self._lock_timeout = lock_timeout
        self._pid, self._key = 0, 0
        self._blockers = ""

    async def prepare(self, name: str) -> None:
        """Lift the limits on statements, and set the one on locks.

        Args:
            name: Of the lock that keeps other runs out.
        """
        limit = f"{self._lock_timeout * 1000:.0f}ms"
        await self.connection.execute(_LIMITS, {"lock_timeout": limit})
        self._pid = await self.connection.scalar(_OWN_PID) or 0
        self._key = await self.connection.scalar(_KEY, {"name": name}) or 0
        await self.connection.commit()

    async def wait_for_others(self, seconds: float) -> None:
        """Wait until no other run is in progress, and keep others out until the connection closes.

        Args:
            seconds: How long at the most.

        Raises:
            MigrationFailed: The other run has not ended.
        """
        until = time.monotonic() + seconds
        # Asked again and again: a wait within a statement would hold a snapshot, and what builds
        # an index concurrently in the other run would wait for that.
        while not await self._got_lock():
            if time.monotonic() > until:
                self._blockers = await self._look(self.connection)
                raise MigrationFailed(
                    f"Another run has been migrating this database for {seconds:g} s "
                    f"(wait_for_others): {self._blockers}"
                )
            await asyncio.sleep(_POLL)

    async def _got_lock(self) -> bool:
        is_held = bool(await self.connection.scalar(_TRY_LOCK, {"key": self._key}))
        await self.connection.commit()
        return is_held

    async def retry(
        self, attempt: Callable[[], Awaitable[None]], may_repeat: Callable[[], bool], seconds: float
    ) -> None:
        """Attempt until no lock is in the way.

        Args:
            attempt: Rolls back where it fails.
            may_repeat: Whether what has failed has left nothing behind.
            seconds: After which none begins anew.

        Raises:
            MigrationFailed: A lock was not to be had.
        """
        began, delay, attempts = time.monotonic(), _FIRST_DELAY, 0
        while True:
            attempts += 1
            try:
                async with self._watched():
                    return await attempt()
            except DBAPIError as error:
                if not _is_of_locks(error):
                    raise
                waited = time.monotonic() - began
                if not may_repeat():
                    raise MigrationFailed(self._told(attempts, waited, _IN_PART)) from error
                if waited + delay > seconds:
                    raise MigrationFailed(self._told(attempts, waited, _ROLLED_BACK)) from error
                await self.connection.rollback()
            await asyncio.sleep(delay * random.uniform(0.5, 1))  # noqa: S311 - no secret
            delay = min(2 * delay, _LONGEST_DELAY)

    def _told(self, attempts: int, waited: float, outcome: str) -> str:
        blockers = self._blockers or "a session that is not known"
        return (
            f"A migration got no lock within lock_timeout={self._lock_timeout:g} s, at {attempts} "
            f"attempts in {waited:.1f} s. It waited for {blockers}. {outcome}"
        )

    @asynccontextmanager
    async def _watched(self) -> AsyncIterator[None]:
        watch = asyncio.create_task(self._watch())
        try:
            yield
        finally:
            watch.cancel()
            await asyncio.wait({watch})

    async def _watch(self) -> None:
        await asyncio.sleep(self._lock_timeout / 2)
        # Whoever cannot be asked: the migration's own error is the one to be seen.
        with suppress(SQLAlchemyError, OSError):
            async with self._engine.connect() as other:
                while True:
                    self._blockers = await self._look(other) or self._blockers
                    await asyncio.sleep(self._lock_timeout / 8)

    async def _look(self, connection: AsyncConnection) -> str:
        rows = await connection.execute(_BLOCKERS, {"pid": self._pid, "key": self._key})
        await connection.rollback()
        return "; ".join(_described(*row) for row in rows)


_IN_PART = (
    "It had left its transaction (autocommit_block) and is not attempted again: some of it may be "
    "in the database."
)
_ROLLED_BACK = "It is rolled back; end that session, or run the migrations again later."


def _described(
    pid: int, user: str, application: str, state: str | None, seconds: float | None
) -> str:
    since = "" if seconds is None else f", in a transaction for {seconds:.0f} s"
    return f"process {pid} of {user} ({application or 'no application_name'}, {state}{since})"


def _is_of_locks(error: DBAPIError) -> bool:
    return isinstance(error, LockTimeout) or getattr(error.orig, "sqlstate", None) == _DEADLOCK


@asynccontextmanager
async def migration_session(
    settings: DatabaseSettings, lock_timeout: float
) -> AsyncIterator[MigrationSession]:
    """Open the connection for a block.

    Args:
        settings: Of the service.
        lock_timeout: Seconds that a statement waits for a lock.

    Raises:
        ConnectFailed: The server cannot be reached.
        MigrationFailed: A pooler shares the server connection.
    """
    settings = migration_settings(settings)
    engine = build_engine(settings)
    way = ReadOnlyConnections(engine, settings)
    try:
        async with engine.connect() as connection:
            if way.shares_server:
                raise MigrationFailed(_THROUGH_POOLER.format(pooler=way.pooler))
            yield MigrationSession(connection, engine, lock_timeout)
    except ConnectFailed as error:
        if "startup parameter" not in str(error):
            raise
        raise MigrationFailed(_THROUGH_POOLER.format(pooler="a pooler")) from error

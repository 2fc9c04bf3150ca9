"""Looking at the servers of a cluster, each by a connection of its own."""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from importlib.resources import files
from typing import Any

from asyncpg import PostgresError
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from penstock.base_error import PenstockError
from penstock.cluster.member import Look

_LOOK = files("penstock.cluster").joinpath("look.sql").read_text()
_REPLAYED = "SELECT CASE WHEN pg_is_in_recovery() THEN (pg_last_wal_replay_lsn() - '0/0')::int8 END"
_ROLE = "SELECT pg_is_in_recovery()"
_NOT_FOR_US = ("0A", "42", "55")
"""SQLSTATEs of a function that is not supported, not permitted, or not to be used here: clouds keep
some to themselves."""
_FLUSHED = "SELECT (pg_current_wal_flush_lsn() - '0/0')::int8"
FAILURES = (OSError, TimeoutError, SQLAlchemyError, PenstockError)
ANSWER_WITHIN = 2.0
"""Seconds; a server that takes longer counts as gone. A ping over a continent takes 0.3."""
PAUSE = 0.002
"""Seconds between two looks while somebody waits: a replica nearby has a write after 1.6 ms (the
median; the slowest of a hundred after 10 ms)."""


async def look_at(connection: Any) -> Look:
    """Return what a server says of itself.

    Args:
        connection: asyncpg's, which is no pool's yet.
    """
    try:
        return Look(*await connection.fetchrow(_LOOK))
    except PostgresError as error:
        if not (error.sqlstate or "").startswith(_NOT_FOR_US):
            raise
    return Look(await connection.fetchval(_ROLE), None, None, None)


class Probe:
    """A connection to one server, for questions about its position.

    Args:
        engine: Makes connections that no pool keeps.
    """

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine
        self._connection: AsyncConnection | None = None
        self._turn = asyncio.Lock()
        """A connection answers one question at a time."""

    async def look(self) -> Look:
        """Ask for everything; where the server keeps that to itself, for its role alone.

        Raises:
            OSError, TimeoutError, SQLAlchemyError, PenstockError: There was no answer.
        """
        try:
            return Look(*await self._row(_LOOK))
        except DBAPIError as error:
            sqlstate = getattr(error.orig, "sqlstate", None) or ""
            if not sqlstate.startswith(_NOT_FOR_US):
                raise
        return Look((await self._row(_ROLE))[0], None, None, None)

    async def replayed(self) -> int | None:
        """Ask a replica how far it is; None where it is none any more, or does not say."""
        return (await self._row(_REPLAYED))[0]  # type: ignore[no-any-return]  # as the statement has it

    async def flushed(self) -> int:
        """Ask a primary how far it is.

        Raises:
            OSError, TimeoutError, SQLAlchemyError, PenstockError: It did not answer, or is none.
        """
        return (await self._row(_FLUSHED))[0]  # type: ignore[no-any-return]  # as above

    async def _row(self, sql: str) -> Any:
        async with self._turn:
            try:
                async with asyncio.timeout(ANSWER_WITHIN):
                    if self._connection is None:
                        connection = await self._engine.connect()
                        self._connection = await connection.execution_options(
                            isolation_level="AUTOCOMMIT"
                        )
                    result = await self._connection.exec_driver_sql(sql)
                    return result.one()
            except BaseException:
                await self._close()
                raise

    async def close(self) -> None:
        """Close the connection; the next question opens another."""
        async with self._turn:
            await self._close()

    async def _close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is None:
            return
        with suppress(*FAILURES):
            driver: Any = (await connection.get_raw_connection()).driver_connection
            if hasattr(driver, "terminate"):  # at once, where nothing answers any more
                driver.terminate()
            await connection.invalidate()
            await connection.close()

    async def dispose(self) -> None:
        """Close the connection for good."""
        await self.close()
        await self._engine.dispose()


class Monitor:
    """Looks at one server in intervals, and again and again while somebody waits.

    Args:
        probe: The connection to it.
        interval: Seconds between two looks that nobody waits for.
        seen: Told what it said.
        failed: Told why it did not answer.
        is_awaited: Returns whether somebody waits for its position.
        replayed: Told its position, while somebody waits for it.
    """

    def __init__(
        self,
        probe: Probe,
        interval: float,
        *,
        seen: Callable[[Look], None],
        failed: Callable[[str], None],
        is_awaited: Callable[[], bool] = lambda: False,
        replayed: Callable[[int | None], None] = lambda _: None,
    ) -> None:
        self._probe = probe
        self._interval = interval
        self._seen = seen
        self._failed = failed
        self._is_awaited = is_awaited
        self._replayed = replayed
        self._wake = asyncio.Event()
        self.first_look: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def wanted(self) -> None:
        """Look at once."""
        self._wake.set()

    async def run(self) -> None:
        """Look until cancelled, and close the connection."""
        try:
            await self._run()
        finally:
            await self._probe.dispose()

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            due = loop.time() + self._interval
            await self._look()
            if not self.first_look.done():
                self.first_look.set_result(None)
            while loop.time() < due:
                with suppress(TimeoutError):
                    async with asyncio.timeout_at(due):
                        await self._wake.wait()
                if not self._wake.is_set():
                    break
                self._wake.clear()
                if not self._is_awaited():
                    await asyncio.sleep(PAUSE)
                    break
                while self._is_awaited() and loop.time() < due and await self._ask():  # noqa: ASYNC110 - a server announces nothing
                    await asyncio.sleep(PAUSE)

    async def _look(self) -> None:
        try:
            self._seen(await self._probe.look())
        except Exception as error:  # noqa: BLE001 - whatever it is, the next look is tried
            self._failed(why(error))

    async def _ask(self) -> bool:
        try:
            self._replayed(await self._probe.replayed())
        except Exception as error:  # noqa: BLE001 - as above
            self._failed(why(error))
            return False
        return True


def why(error: BaseException) -> str:
    """Return an error in one line."""
    cause = error.__cause__ if isinstance(error, PenstockError) and error.__cause__ else error
    return " ".join(f"{type(cause).__name__}: {cause}".split())[:300]

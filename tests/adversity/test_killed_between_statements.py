"""The server ends a connection between two statements, and its last words are on the way."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from tests.servers.postgres import PostgresServer

from penstock import Database
from penstock.errors import CommitOutcomeUnknown

PID = text("SELECT pg_backend_pid()")
TURNS = range(5)
"""Of the event loop after the end: nothing is read yet, then the error, then the end itself."""
Kill = Callable[[int], Awaitable[None]]


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    async with Database.from_url(
        database_url, environment="testing", pool_size=1, max_overflow=0, pool_timeout=2
    ) as database:
        yield database


@pytest.fixture(params=TURNS)
def kill(request: pytest.FixtureRequest, postgres: PostgresServer) -> Kill:
    async def kill(pid: int) -> None:
        # While it waits, the event loop stands still, and reads nothing.
        postgres.execute(f"SELECT pg_terminate_backend({pid})")
        postgres.wait_for_end(pid)
        for _ in range(request.param):
            await asyncio.sleep(0)

    return kill


class CallersOwnError(Exception):
    """What the caller's code raises."""


async def read(database: Database, kill: Kill) -> None:
    async with database.read() as session:
        await kill(await session.scalar(PID))
        await session.execute(PID)


async def write(database: Database, kill: Kill) -> None:
    async with database.write() as session:
        pid = await session.scalar(PID)
        await kill(pid)
        await session.execute(PID)


async def stream(database: Database, kill: Kill) -> None:
    async with database.write() as session:
        await kill(await session.scalar(PID))
        await session.stream(text("SELECT generate_series(1, 9)"))


async def commit(database: Database, kill: Kill) -> None:
    async with database.write() as session:
        await kill(await session.scalar(PID))


async def roll_back(database: Database, kill: Kill) -> None:
    async with database.write() as session:
        await kill(await session.scalar(PID))
        await session.rollback()


async def leave(database: Database, kill: Kill) -> None:
    async with database.read() as session:
        await kill(await session.scalar(PID))


async def fail(database: Database, kill: Kill) -> None:
    async with database.write() as session:
        await kill(await session.scalar(PID))
        raise CallersOwnError


async def snapshot(database: Database, kill: Kill) -> None:
    async with database.reader.snapshot() as moment:
        await kill(await moment.scalar(PID))
        await moment.scalar(PID)


@pytest.mark.parametrize("work", [read, write, stream, commit, roll_back, leave, fail, snapshot])
async def test_the_connection_goes_back_and_the_next_one_is_another(
    database: Database, kill: Kill, work: Callable[[Database, Kill], Awaitable[None]]
) -> None:
    try:
        await work(database, kill)
    except CommitOutcomeUnknown:
        assert work is commit
    except CallersOwnError:
        assert work is fail
    except DBAPIError as error:
        assert error.connection_invalidated  # noqa: PT017 - what only leaves does not fail

    assert database.pool.snapshot().checked_out == 0
    async with database.read() as session:
        assert await session.scalar(PID)


async def test_a_read_of_the_lane_is_repeated(database: Database, kill: Kill) -> None:
    pid = await database.reader.scalar(PID)
    await kill(pid)

    assert await database.reader.scalar(PID) != pid
    assert database.pool.snapshot().checked_out == 0

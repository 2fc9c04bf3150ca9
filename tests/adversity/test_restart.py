"""The server is restarted under load: who had sent nothing waits for it, within its deadline."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from tests.servers.parts import require_part
from tests.servers.postgres import RestartablePostgres, postgres_programs, restartable_postgres

from penstock import Database
from penstock.errors import ConnectFailed

DOWN_FOR = 2.0
"""Seconds."""
STATEMENT = text("SELECT 1")


@pytest.fixture(scope="module")
def restartable() -> Iterator[RestartablePostgres]:
    """A server of its own, for it is stopped."""
    programs = postgres_programs()
    require_part("PostgreSQL", present=programs, remedy="set TEST_POSTGRES_BIN")
    assert programs is not None
    with restartable_postgres(programs) as restartable:
        yield restartable


def database_on(restartable: RestartablePostgres, pool_timeout: float) -> Database:
    return Database.from_url(
        restartable.server.url(),
        pool_size=5,
        max_overflow=5,
        pool_timeout=pool_timeout,
        budget="off",
        telemetry=False,
        echo=False,
    )


async def restart(restartable: RestartablePostgres) -> None:
    await asyncio.sleep(0.3)
    await asyncio.to_thread(restartable.stop)
    await asyncio.sleep(DOWN_FOR)
    restartable.start()
    await asyncio.to_thread(restartable.process.wait_until, restartable.server.answers)
    await asyncio.sleep(0.5)


async def under_load(
    work: Callable[[], Awaitable[object]], trouble: Awaitable[None], workers: int = 20
) -> Counter[str]:
    """Let workers work again and again while there is trouble; tells what became of it."""
    outcomes: Counter[str] = Counter()
    over = asyncio.ensure_future(trouble)

    async def worker() -> None:
        while not over.done():
            try:
                await work()
            except Exception as error:  # noqa: BLE001 - it is what the test asks about
                outcomes[f"{type(error).__name__}: {error}"] += 1
            else:
                outcomes["served"] += 1

    await asyncio.gather(over, *(worker() for _ in range(workers)))
    return outcomes


async def test_no_read_of_the_lane_fails(restartable: RestartablePostgres) -> None:
    async with database_on(restartable, 10) as database:

        async def read() -> None:
            assert await database.reader.scalar(STATEMENT) == 1

        outcomes = await under_load(read, restart(restartable))

    assert outcomes.keys() == {"served"}
    assert outcomes["served"] > 100


async def test_nobody_who_asks_for_a_connection_is_refused(
    restartable: RestartablePostgres,
) -> None:
    async with database_on(restartable, 10) as database:

        async def connect() -> None:
            connection = await database.engine.connect()
            with suppress(DBAPIError):  # who is cut off during a statement learns it
                await connection.execute(STATEMENT)
            with suppress(DBAPIError):
                await connection.close()

        outcomes = await under_load(connect, restart(restartable))

    assert outcomes.keys() == {"served"}


async def test_where_it_stays_away_the_deadline_ends_with_the_reason(
    restartable: RestartablePostgres,
) -> None:
    async with database_on(restartable, 0.5) as database:
        await database.reader.scalar(STATEMENT)
        restartable.stop()
        try:
            with pytest.raises(ConnectFailed, match=r"refused|Connect call failed"):
                await database.reader.scalar(STATEMENT)
            assert database.pool.snapshot().waiting == 0
        finally:
            restartable.start()
            await asyncio.to_thread(restartable.process.wait_until, restartable.server.answers)
        assert await database.reader.scalar(STATEMENT) == 1


async def test_a_service_that_starts_before_its_server_fails_at_once(
    restartable: RestartablePostgres,
) -> None:
    await asyncio.to_thread(restartable.stop)
    try:
        database = database_on(restartable, 60)
        async with asyncio.timeout(30):
            with pytest.raises(ConnectFailed):
                await database.open()
        await database.close()
    finally:
        restartable.start()
        await asyncio.to_thread(restartable.process.wait_until, restartable.server.answers)

"""Whatever a statement leaves on the server ends with its lease: commands x ways to run x ends."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest
from sqlalchemy import make_url, text
from tests.integration.drivers.session import STATE
from tests.integration.drivers.statements import COMMANDS, PREPARATIONS, ROWS
from tests.integration.engine.engines import with_driver
from tests.servers.postgres import PostgresServer

from penstock import Database

NAP = "SELECT pg_sleep(30)"
ENOUGH = 0.05
"""Seconds after which a nap is cancelled."""

Run = Callable[[str], Awaitable[Any]]


@pytest.fixture(scope="module")
def prepared_url(postgres: PostgresServer) -> Iterator[str]:
    """A superuser's database with what the commands need."""
    with postgres.database() as url:
        database = make_url(url).database or ""
        postgres.execute("CREATE ROLE someone")
        postgres.execute(PREPARATIONS, database)
        yield postgres.url(database)
        postgres.execute("DROP OWNED BY someone; DROP ROLE someone", database)


@pytest.fixture
async def database(
    prepared_url: str, postgres: PostgresServer, driver: str
) -> AsyncIterator[Database]:
    """A pool of one connection."""
    postgres.execute(ROWS, make_url(prepared_url).database or "")
    url = with_driver(prepared_url, driver)
    async with Database.from_url(
        url, environment="testing", pool_size=1, max_overflow=0
    ) as database:
        yield database


# Ways to run: each is a lease, for as long as its block lasts.


@asynccontextmanager
async def by_a_connection(database: Database) -> AsyncIterator[Run]:
    async with database.connection() as connection:
        yield lambda sql: connection.execute(text(sql.replace(":", "\\:")))
        await connection.commit()


@asynccontextmanager
async def by_a_connection_without_transactions(database: Database) -> AsyncIterator[Run]:
    async with database.engine.connect() as connection:
        await connection.execution_options(isolation_level="AUTOCOMMIT")
        yield connection.exec_driver_sql


@asynccontextmanager
async def by_a_cursor_of_the_server(database: Database) -> AsyncIterator[Run]:
    async with database.engine.connect() as connection:

        async def run(sql: str) -> None:
            async with connection.stream(text(sql.replace(":", "\\:"))) as rows:
                await rows.fetchmany(1)

        yield run
        await connection.commit()


@asynccontextmanager
async def by_a_session(database: Database) -> AsyncIterator[Run]:
    async with database.write() as session:
        yield lambda sql: session.execute(text(sql.replace(":", "\\:")))


@asynccontextmanager
async def by_a_reading_session(database: Database) -> AsyncIterator[Run]:
    async with database.read() as session:
        yield lambda sql: session.execute(text(sql.replace(":", "\\:")))


@asynccontextmanager
async def by_the_driver(database: Database) -> AsyncIterator[Run]:
    async with database.engine.connect() as connection:
        driver = (await connection.get_raw_connection()).driver_connection
        assert driver is not None
        yield driver.execute


@asynccontextmanager
async def by_a_writer(database: Database) -> AsyncIterator[Run]:
    yield lambda sql: database.writer.execute(text(sql.replace(":", "\\:")))


@asynccontextmanager
async def by_a_reader(database: Database) -> AsyncIterator[Run]:
    yield lambda sql: database.reader.all(text(sql.replace(":", "\\:")))


@asynccontextmanager
async def by_a_snapshot(database: Database) -> AsyncIterator[Run]:
    async with database.reader.snapshot() as snapshot:
        yield lambda sql: snapshot.all(text(sql.replace(":", "\\:")))


WAYS = [
    by_a_connection,
    by_a_connection_without_transactions,
    by_a_cursor_of_the_server,
    by_a_session,
    by_a_reading_session,
    by_the_driver,
    by_a_writer,
    by_a_reader,
    by_a_snapshot,
]


# Ends: what happens in the block after the command.


async def at_once(run: Run) -> None:
    """The block just ends."""


async def by_an_error(run: Run) -> None:
    raise ZeroDivisionError


async def by_an_error_of_the_server(run: Run) -> None:
    await run("SELECT 1/0")


async def by_an_error_that_is_passed_over(run: Run) -> None:
    with suppress(Exception):
        await run("SELECT 1/0")


async def by_a_cancellation(run: Run) -> None:
    await asyncio.wait_for(run(NAP), ENOUGH)


async def by_a_cancellation_that_is_passed_over(run: Run) -> None:
    with suppress(TimeoutError):
        await asyncio.wait_for(run(NAP), ENOUGH)


ENDS = [
    at_once,
    by_an_error,
    by_an_error_of_the_server,
    by_an_error_that_is_passed_over,
    by_a_cancellation,
    by_a_cancellation_that_is_passed_over,
]


async def state(database: Database) -> set[tuple[str, str]]:
    """Return what the server remembers on the next lease; it reads, and leaves nothing.

    That PL/pgSQL was loaded is no state: it comes with the first function that is run.
    """
    async with database.connection() as connection:
        rows: Any = await connection.exec_driver_sql(STATE)
        return {(name, value) for name, value in rows if not name.startswith("setting plpgsql.")}


# SQLAlchemy drops a cursor of psycopg's unclosed where it was cancelled or refused.
@pytest.mark.filterwarnings("ignore:.*ServerCursor:pytest.PytestUnraisableExceptionWarning")
@pytest.mark.timeout(300)
@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("driver", ["asyncpg", "psycopg"])
async def test_the_next_lease_finds_nothing(
    database: Database, driver: str, way: Any, end: Any
) -> None:
    as_new = await state(database)
    done, found = 0, {}
    for command in COMMANDS:
        if driver == "asyncpg" and way is by_the_driver and command.startswith("LOAD"):
            continue  # what asyncpg itself runs cannot be seen, nor the library once it is there
        # A command may be refused, alone or in a transaction.
        with suppress(Exception):
            async with way(database) as run:
                await run(command)
                done += 1
                await end(run)
        if changed := await state(database) ^ as_new:
            found[command] = changed
            await database.engine.dispose()
    assert not found
    # A reader refuses nearly all of them.
    assert done or way in (by_a_reader, by_a_snapshot, by_a_reading_session)
    assert database.pool.snapshot().checked_out == 0

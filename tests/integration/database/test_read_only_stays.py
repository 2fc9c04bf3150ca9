"""Read-only is not lifted: not by any statement of a reader, for itself or for whoever is next."""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext, suppress
from dataclasses import dataclass
from typing import Any

import asyncpg
import psycopg
import pytest
from sqlalchemy import make_url, text
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncEngine
from tests.integration.engine.engines import with_driver
from tests.servers.postgres import PostgresServer

from penstock import Database, PenstockError
from penstock.testing import rollback_after

SCHEMA = """
CREATE TABLE notes (line text DEFAULT 'sneaked in');
CREATE SEQUENCE numbers;
CREATE FUNCTION sneak() RETURNS integer LANGUAGE plpgsql VOLATILE AS
    $$ BEGIN INSERT INTO notes DEFAULT VALUES; RETURN 1; END $$;
CREATE FUNCTION lift_from_within() RETURNS void LANGUAGE plpgsql AS
    $$ BEGIN
    PERFORM set_config('transaction_read_only', 'off', false);
    EXECUTE 'INSERT INTO notes DEFAULT VALUES';
    END $$;
CREATE PROCEDURE lifts() LANGUAGE sql AS
    'SET TRANSACTION READ WRITE; INSERT INTO notes DEFAULT VALUES';
CREATE PROCEDURE commits() LANGUAGE plpgsql AS
    $$ BEGIN COMMIT; INSERT INTO notes DEFAULT VALUES; COMMIT; END $$
"""
INSERT = "INSERT INTO notes DEFAULT VALUES"
ERRORS = (
    SQLAlchemyError,
    PenstockError,
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
    psycopg.Error,
)

Run = Callable[[Any], Awaitable[Any]]
Way = Callable[[Any], Awaitable[Run]]
Attempts = Sequence[Sequence[str]]

WRITES = {
    "insert": [INSERT],
    "a CTE that inserts": ["WITH a AS (INSERT INTO notes DEFAULT VALUES RETURNING 1) TABLE a"],
    "explain analyze": ["EXPLAIN ANALYZE INSERT INTO notes DEFAULT VALUES"],
    "a function": ["SELECT sneak()"],
    "a function that sets": ["SELECT lift_from_within()"],
    "a procedure": ["CALL commits()"],
    "a procedure that sets": ["CALL lifts()"],
    "a procedure after a commit": ["COMMIT", "CALL lifts()"],
    "a block that sets": [f"DO 'BEGIN SET TRANSACTION READ WRITE; {INSERT}; END'"],
    "a block": ["DO 'BEGIN COMMIT; INSERT INTO notes DEFAULT VALUES; END'"],
    "a block in a committed one": ["COMMIT", "DO 'BEGIN INSERT INTO notes DEFAULT VALUES; END'"],
    "nextval": ["SELECT nextval('numbers')"],
    "setval": ["SELECT setval('numbers', 100)"],
    "locks": ["SELECT * FROM notes FOR UPDATE"],
    "prepare": [f"PREPARE sneak AS {INSERT}", "EXECUTE sneak"],
    "prepare and commit": [f"PREPARE sneak AS {INSERT}", "COMMIT", "EXECUTE sneak"],
    "copy": ["COPY notes FROM PROGRAM 'echo sneaked in'"],
    "select into": ["SELECT 1 INTO made"],
    "a table": ["CREATE TABLE made AS SELECT 1"],
    "truncate": ["TRUNCATE notes"],
    "merge": [
        "MERGE INTO notes USING (SELECT 1) a ON 1 = 0 WHEN NOT MATCHED THEN INSERT VALUES (1)"
    ],
    "a large object": ["SELECT lo_from_bytea(0, 'sneaked in')"],
    "dropped": ["DROP FUNCTION sneak"],
    "comment": ["COMMENT ON TABLE notes IS 'sneaked in'"],
    "several": [f"SELECT 1; {INSERT}"],
    "several and a commit": [f"COMMIT; {INSERT}"],
    "several and a commit at each end": [f"SELECT 1; COMMIT; BEGIN; {INSERT}; COMMIT"],
    "several that set": [f"SET TRANSACTION READ WRITE; {INSERT}"],
    "several for the session": [f"SET default_transaction_read_only = off; COMMIT; {INSERT}"],
    "several and a rollback": [f"ROLLBACK; {INSERT}"],
}
LIFTS = [
    "SET TRANSACTION READ WRITE",
    "SET LOCAL transaction_read_only = off",
    "SET transaction_read_only = off",
    "RESET transaction_read_only",
    "SET SESSION CHARACTERISTICS AS TRANSACTION READ WRITE",
    "SET default_transaction_read_only = off",
    "RESET ALL",
    "DISCARD ALL",
    "SELECT set_config('transaction_read_only', 'off', true)",
    "SELECT set_config('transaction_read_only', 'off', false)",
    "SELECT set_config('default_transaction_read_only', 'off', false)",
    "SELECT pg_catalog . set_config('transaction' || '_read_only', 'off', true)",
    "SELECT U&\"\\0073et_config\"('transaction_read_only', 'off', true)",
    "UPDATE pg_settings SET setting = 'off' WHERE name = 'transaction_read_only'",
    "UPDATE pg_settings SET setting = 'off' WHERE name = 'default_transaction_read_only'",
    "DO 'BEGIN SET TRANSACTION READ WRITE; END'",
    "DO 'BEGIN COMMIT; END'",
    "COMMIT",
    "END",
    "COMMIT AND CHAIN",
    "ROLLBACK",
    "ABORT",
    "ROLLBACK AND CHAIN",
    "/* */ commit",
    "BEGIN READ WRITE",
    "START TRANSACTION READ WRITE",
    "SAVEPOINT a",
    "PREPARE TRANSACTION 'a'",
    "SELECT 1/0",
    "COMMIT; BEGIN READ WRITE",
    "COMMIT; SET default_transaction_read_only = off",
    "SELECT 1; COMMIT",
]
PATHS = [
    ["COMMIT", "BEGIN READ WRITE"],
    ["COMMIT", "SET default_transaction_read_only = off"],
    ["COMMIT", "SET SESSION CHARACTERISTICS AS TRANSACTION READ WRITE", "BEGIN"],
    ["ROLLBACK", "BEGIN", "SET TRANSACTION READ WRITE"],
    ["SELECT 1/0", "ROLLBACK", "BEGIN READ WRITE"],
    ["SELECT 1", "COMMIT", "SET TRANSACTION READ WRITE"],
    ["SAVEPOINT a", "SET TRANSACTION READ WRITE", "RELEASE a"],
    ["SAVEPOINT a", "SELECT 1/0", "ROLLBACK TO a", "SET TRANSACTION READ WRITE"],
    ["SET TRANSACTION READ WRITE", "SAVEPOINT a"],
    ["SET TRANSACTION READ WRITE", "SAVEPOINT a", "ROLLBACK TO a"],
    ["ROLLBACK TO SAVEPOINT sa_savepoint_1"],
    ["RELEASE SAVEPOINT sa_savepoint_1"],
    ["SELECT 1", "ROLLBACK TO SAVEPOINT sa_savepoint_1"],
    ["SELECT 1", "RELEASE SAVEPOINT sa_savepoint_1"],
    ["SELECT 1/0", "ROLLBACK TO SAVEPOINT sa_savepoint_1"],
    ["ROLLBACK TO SAVEPOINT sa_savepoint_1", "SET TRANSACTION READ WRITE"],
    ["ROLLBACK TO SAVEPOINT __asyncpg_savepoint_1__"],
    ["SET statement_timeout = 1", "SELECT pg_sleep(1)", "COMMIT"],
]


@dataclass(frozen=True)
class Place:
    """Where sessions read.

    Args:
        database: Open, with a pool of one connection.
        server: Asked by its superuser, beside the pool.
    """

    database: Database
    server: PostgresServer

    def look(self, query: str) -> list[tuple[object, ...]]:
        """Run one statement beside the pool."""
        return self.server.execute(query, self.database.engine.url.database or "")

    def written(self) -> list[tuple[object, ...]]:
        """Return all that may have been written, as anybody else sees it."""
        return self.look(
            "SELECT (SELECT count(*) FROM notes), (SELECT is_called FROM numbers),"
            " (SELECT count(*) FROM pg_class WHERE relname = 'made'),"
            " (SELECT count(*) FROM pg_largeobject_metadata),"
            " obj_description('notes'::regclass), (SELECT count(*) FROM pg_prepared_xacts)"
        )

    def clear(self) -> None:
        """Undo what was written."""
        for statement in (
            "TRUNCATE notes",
            "DROP TABLE IF EXISTS made",
            "ALTER SEQUENCE numbers RESTART",
            "COMMENT ON TABLE notes IS NULL",
            "DROP FUNCTION IF EXISTS made()",
        ):
            self.look(statement)


NOTHING = [(0, False, 0, 0, None, 0)]


@pytest.fixture(scope="module")
def url(postgres: PostgresServer) -> Iterator[str]:
    """The URL of a database in which something might be written."""
    with postgres.database() as url:
        name = make_url(url).database
        postgres.execute(f"SET SESSION AUTHORIZATION {name}; {SCHEMA}", name or "")
        yield url


@pytest.fixture(params=["asyncpg", "asyncpg pooled", "psycopg"])
async def place(
    request: pytest.FixtureRequest, postgres: PostgresServer, url: str
) -> AsyncIterator[Place]:
    """A database with nothing written, on each driver, and as behind a pooler."""
    driver, _, pooled = request.param.partition(" ")
    settings: dict[str, Any] = {"proxy": "pgbouncer"} if pooled else {}
    async with Database.from_url(
        with_driver(url, driver),
        environment="testing",
        pool_size=1,
        max_overflow=0,
        pool_timeout=20,
        **settings,
    ) as database:
        place = Place(database, postgres)
        place.clear()
        yield place


STATEMENTS = [*WRITES.values(), *([lift] for lift in LIFTS), *PATHS]


async def attempt(run: Run, statement: str) -> None:
    with suppress(*ERRORS):
        await run(text(statement))


async def by_execute(session: Any) -> Run:
    return session.execute  # type: ignore[no-any-return]


async def by_connection(session: Any) -> Run:
    connection = await session.connection()
    return connection.execute  # type: ignore[no-any-return]


async def by_autocommit(session: Any) -> Run:
    options = {"isolation_level": "AUTOCOMMIT"}
    connection = await session.connection(execution_options=options)
    return connection.execute  # type: ignore[no-any-return]


async def by_writing_options(session: Any) -> Run:
    options = {"postgresql_readonly": False}
    connection = await session.connection(execution_options=options)
    return connection.execute  # type: ignore[no-any-return]


async def in_a_savepoint(session: Any) -> Run:
    await session.begin_nested()
    return session.execute  # type: ignore[no-any-return]


async def by_many(session: Any) -> Run:
    async def run(statement: Any) -> None:
        await session.execute(statement, [{}, {}])

    return run


async def by_the_driver(session: Any) -> Run:
    """End the transaction on the driver's own connection, and go on in the session."""
    connection = await session.connection()
    driver = (await connection.get_raw_connection()).driver_connection
    await session.execute(text("SELECT 1"))
    await driver.execute("COMMIT")
    return session.execute  # type: ignore[no-any-return]


async def by_stream(session: Any) -> Run:
    async def run(statement: Any) -> None:
        async for _ in await session.stream(statement):
            pass

    return run


async def after_a_stream(session: Any) -> Run:
    rows = await session.stream(text("SELECT generate_series(1, 100)"))
    assert await rows.fetchone()
    await rows.close()
    return session.execute  # type: ignore[no-any-return]


WAYS = [
    by_execute,
    by_connection,
    by_autocommit,
    by_writing_options,
    in_a_savepoint,
    by_many,
    by_the_driver,
    by_stream,
    after_a_stream,
]


async def a_writer_writes(place: Place) -> None:
    """Have the next lease write, which nothing of the reader's may prevent."""
    if not isinstance(place.database.unit().writer.bind, AsyncEngine):
        return  # within undone, whose transaction the statements may have ended
    async with place.database.engine.connect() as connection:
        await connection.execute(text(INSERT))
        await connection.rollback()


@pytest.mark.parametrize("way", WAYS)
async def test_no_statement_of_a_session_writes_or_lifts_it(place: Place, way: Way) -> None:
    attempts = STATEMENTS if way is by_execute else PATHS
    assert await those_that_write(place, way, attempts) == []


@pytest.mark.parametrize("way", WAYS)
async def test_nor_does_one_within_undone(place: Place, way: Way) -> None:
    wrote = []
    for statements in STATEMENTS if way is by_execute else PATHS:
        async with suppressed(rollback_after(place.database)):
            await try_to_write(place, way, statements)
        if place.written() != NOTHING:
            wrote.append(statements)
            place.clear()
    assert not wrote, wrote


async def those_that_write(place: Place, way: Way, attempts: Attempts) -> list[Sequence[str]]:
    """Try all of them, and then each by itself if anything was written."""
    for statements in attempts:
        await try_to_write(place, way, statements)
    if place.written() == NOTHING:
        return []
    wrote = []
    for statements in attempts:
        place.clear()
        await try_to_write(place, way, statements)
        if place.written() != NOTHING:
            wrote.append(statements)
    return wrote


async def try_to_write(place: Place, way: Way, statements: Sequence[str]) -> None:
    with suppress(*ERRORS):
        async with place.database.read() as session:
            with suppress(*ERRORS):
                run = await way(session)
                for statement in [*statements, INSERT, "SELECT sneak()", INSERT, "COMMIT"]:
                    await attempt(run, statement)
    with suppress(*ERRORS):
        async with place.database.read() as session:
            await attempt(session.execute, INSERT)
            await attempt(session.execute, "COMMIT")
    await a_writer_writes(place)


@asynccontextmanager
async def suppressed(block: AbstractAsyncContextManager[object]) -> AsyncIterator[None]:
    """Pass over what the end of the block raises, whose transaction the block has ended."""
    with suppress(*ERRORS):
        async with block:
            yield


Lane = Callable[[Database, Any], Awaitable[Any]]


async def by_reader(database: Database, statement: Any) -> None:
    await database.reader.all(statement)


async def in_a_snapshot(database: Database, statement: Any) -> None:
    async with database.reader.snapshot() as reader:
        await attempt(reader.all, "SELECT 1")
        await attempt(reader.all, str(statement))
        await attempt(reader.all, INSERT)


async def in_a_stream(database: Database, statement: Any) -> None:
    async with database.reader.stream(statement) as rows:
        async for _ in rows:
            pass


@pytest.mark.parametrize("rolls_back_after", [False, True], ids=["", "undone"])
@pytest.mark.parametrize("lane", [by_reader, in_a_snapshot, in_a_stream])
async def test_no_statement_of_a_reader_writes(
    place: Place, lane: Lane, rolls_back_after: bool
) -> None:
    async with suppressed(rollback_after(place.database)) if rolls_back_after else nullcontext():
        for statement in {each for statements in STATEMENTS for each in statements}:
            with suppress(*ERRORS):
                await lane(place.database, text(statement))
            with suppress(*ERRORS):
                await lane(place.database, text("SELECT sneak()"))
        await a_writer_writes(place)
    assert place.written() == NOTHING


@pytest.mark.parametrize("path", PATHS, ids=", ".join)
async def test_no_statement_writes_in_the_writers_open_transaction(
    place: Place, path: Sequence[str]
) -> None:
    unit = place.database.unit()
    await unit.writer.execute(text("SELECT 1"))
    with suppress(*ERRORS):
        for statement in [*path, INSERT, "SELECT sneak()", INSERT]:
            await attempt(unit.reader.execute, statement)
    with suppress(*ERRORS):
        await unit.commit()
    await unit.end("the test is over")
    await a_writer_writes(place)
    assert place.written() == NOTHING


async def test_a_writer_still_writes_after_a_reader_in_its_transaction(place: Place) -> None:
    unit = place.database.unit()
    await unit.writer.execute(text(INSERT))
    await unit.reader.execute(text("SELECT 1"))
    await attempt(unit.reader.execute, "SET LOCAL work_mem = '1MB'")
    await attempt(unit.reader.execute, INSERT)
    await unit.writer.execute(text(INSERT))
    await unit.commit()
    await unit.end("the test is over")
    assert place.look("SELECT count(*) FROM notes") == [(2,)]


async def test_a_session_that_says_nothing_makes_nobody_else_read_only(place: Place) -> None:
    async with place.database.read() as session:
        await session.connection()
    async with place.database.engine.begin() as connection:
        await connection.execute(text(INSERT))
    assert place.look("SELECT count(*) FROM notes") == [(1,)]

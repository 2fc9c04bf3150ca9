"""Reading sessions on connections that are kept read-only to reading, and whoever has them next."""

import asyncio
from collections.abc import AsyncIterator

import asyncpg
import pytest
from sqlalchemy import select, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from penstock import Database

INSERT = text("INSERT INTO notes (line) VALUES ('sneaked in')")
SERIES = text("SELECT generate_series(1, 1000)")


class Base(DeclarativeBase):
    """What the table belongs to."""


class Note(Base):
    """Something to be written and read."""

    __tablename__ = "notes"
    id: Mapped[int] = mapped_column(primary_key=True)
    line: Mapped[str]


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    """A pool of one connection, and one note."""
    async with Database.from_url(
        database_url, environment="testing", pool_size=1, max_overflow=0
    ) as database:
        async with database.engine.begin() as connection:
            await connection.run_sync(Base.metadata.create_all)
        async with database.write() as session:
            session.add(Note(line="first"))
        yield database


async def lines(database: Database) -> list[str]:
    return [row.line for row in await database.reader.all(select(Note.line).order_by(Note.id))]


def sqlstate(error: pytest.ExceptionInfo[DBAPIError]) -> str:
    return str(getattr(error.value.orig, "sqlstate", None))


async def the_engine_is_unaffected(database: Database) -> None:
    assert database.pool.snapshot().checked_out == 0
    async with database.engine.connect() as connection:
        assert await connection.scalar(text("SHOW default_transaction_read_only")) == "off"
        await connection.execute(INSERT)
        assert await connection.scalar(text("SELECT count(*) FROM notes")) == 2
        await connection.rollback()
    assert await lines(database) == ["first"]
    assert database.pool.snapshot().opened_total == 1


async def test_several_statements_of_one_session(database: Database) -> None:
    async with database.read() as session:
        assert await session.scalar(select(Note.line)) == "first"
        note = await session.get_one(Note, 1)
        await session.refresh(note)
        assert (await session.scalars(select(Note.line))).all() == ["first"]
    await the_engine_is_unaffected(database)


async def test_a_session_sees_what_was_committed_between_its_statements(
    database_url: str, database: Database
) -> None:
    async with (
        Database.from_url(database_url, environment="testing") as other,
        database.read() as session,
    ):
        assert await session.scalar(text("SELECT count(*) FROM notes")) == 1
        await other.writer.execute(INSERT)
        assert await session.scalar(text("SELECT count(*) FROM notes")) == 2


@pytest.mark.parametrize("statements_before", [0, 1])
async def test_the_server_refuses_an_insert(database: Database, statements_before: int) -> None:
    async with database.read() as session:
        for _ in range(statements_before):
            await session.scalar(select(Note.line))
        with pytest.raises(DBAPIError) as refused:
            await session.execute(INSERT)
        assert sqlstate(refused) == "25006"
    await the_engine_is_unaffected(database)


async def test_the_server_refuses_an_insert_in_a_stream(database: Database) -> None:
    async with database.read() as session:
        # SQLAlchemy passes on what the driver raises for a stream's first rows.
        with pytest.raises((DBAPIError, asyncpg.PostgresError), match="read-only transaction"):
            await session.stream(text("INSERT INTO notes (line) VALUES ('x') RETURNING line"))
    await the_engine_is_unaffected(database)


@pytest.mark.parametrize("statements_before", [0, 2])
async def test_a_stream_has_the_transaction_that_it_needs(
    database: Database, statements_before: int
) -> None:
    async with database.read() as session:
        for _ in range(statements_before):
            await session.scalar(select(Note.line))
        rows = await session.stream(SERIES)
        assert len([row async for row in rows]) == 1000
        assert await session.scalar(select(Note.line)) == "first"
    await the_engine_is_unaffected(database)


async def test_a_stream_that_is_left_midway_leaves_nothing(database: Database) -> None:
    async with database.read() as session:
        async for _ in await session.stream(SERIES):
            break
    await the_engine_is_unaffected(database)


@pytest.mark.parametrize("reads_first", [True, False])
async def test_writer_and_reader_of_one_unit_share_the_connection(
    database: Database, reads_first: bool
) -> None:
    unit = database.unit()
    if reads_first:
        assert await unit.reader.scalar(text("SELECT count(*) FROM notes")) == 1
    unit.writer.add(Note(line="second"))
    await unit.writer.flush()
    assert await unit.reader.scalar(text("SELECT count(*) FROM notes")) == 2
    with pytest.raises(DBAPIError) as refused:
        await unit.reader.execute(INSERT)
    assert sqlstate(refused) == "25006"
    await unit.commit()
    await unit.end("the test is over")
    assert await lines(database) == ["first", "second"]
    assert database.pool.snapshot().opened_total == 1


async def test_a_unit_that_is_rolled_back_leaves_nothing_of_either(database: Database) -> None:
    unit = database.unit()
    await unit.reader.scalar(select(Note.line))
    await unit.writer.execute(INSERT)
    await unit.end("the test is over")
    await the_engine_is_unaffected(database)


async def test_a_session_whose_statement_is_cancelled_confines_nobody(database: Database) -> None:
    for _ in range(2):
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05), database.read() as session:
                await session.execute(text("SELECT pg_sleep(30)"))
        await the_engine_is_unaffected(database)


async def test_a_session_whose_statement_fails_confines_nobody(database: Database) -> None:
    async with database.read() as session:
        for _ in range(2):
            with pytest.raises(DBAPIError, match="division by zero"):
                await session.execute(text("SELECT 1/0"))
            await session.rollback()
            assert await session.scalar(select(Note.line)) == "first"
    await the_engine_is_unaffected(database)


async def test_sessions_and_the_express_lane_in_turn(database: Database) -> None:
    for number in range(3):
        async with database.read() as session:
            await session.scalar(select(Note.line))
        assert await database.writer.execute(INSERT) == 1
        async with database.write() as writing:
            writing.add(Note(line="by a session"))
        assert len(await lines(database)) == 3 + 2 * number
        async with database.engine.connect() as connection:
            await connection.execution_options(isolation_level="AUTOCOMMIT")
            await connection.execute(text("SELECT 1"))
    assert database.pool.snapshot().opened_total == 1

"""Snapshots and streams that are used when their block was left: the connection is another's."""

from collections.abc import AsyncIterator

import pytest
from sqlalchemy import text

from penstock import Database, query
from penstock.errors import ExpressError

notes = query(text("SELECT line FROM notes ORDER BY line"))
add = query(
    text("WITH added AS (INSERT INTO notes VALUES (:line) RETURNING line) SELECT line FROM added")
)
series = query(text("SELECT generate_series(1, 9)"))


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    async with Database.from_url(
        database_url, environment="testing", pool_size=1, max_overflow=0
    ) as database:
        await database.writer.execute(text("CREATE TABLE notes (line text)"))
        yield database


async def test_a_snapshot_that_ended_neither_reads_nor_writes_in_anothers_transaction(
    database: Database,
) -> None:
    async with database.reader.snapshot() as snapshot:
        assert await snapshot.all(notes) == []
    async with database.write() as session:
        await session.execute(text("INSERT INTO notes VALUES ('the session''s')"))
        for late in (notes, add):
            with pytest.raises(ExpressError, match="ended"):
                await snapshot.all(late, {} if late is notes else {"line": "the snapshot's"})
        with pytest.raises(ExpressError, match="ended"):
            async with snapshot.stream(notes):
                pass
    assert await database.reader.all(notes) == [("the session's",)]


async def test_a_stream_that_ended_leaves_anothers_transaction_alone(database: Database) -> None:
    async with database.reader.stream(series).yield_per(2) as rows:
        assert await anext(rows) == (1,)
    async with database.write() as session:
        await session.execute(text("INSERT INTO notes VALUES ('kept')"))
        with pytest.raises(ExpressError, match="ended"):
            [row async for row in rows]
    assert await database.reader.all(notes) == [("kept",)]

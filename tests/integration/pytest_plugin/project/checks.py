"""What a project's tests do with the fixtures, whichever plugin runs the async ones."""

import asyncio

import httpx
import pytest
from sqlalchemy import select, text
from tests.integration.pytest_plugin.project.service import COUNT, Word

from penstock import Database


async def check_requests(client: httpx.AsyncClient, database: Database) -> None:
    """Write by each way, and see it; called again, it finds nothing of it."""
    posted = await asyncio.gather(client.post("/words/a"), client.post("/express/b"))
    assert [answer.status_code for answer in posted] == [201, 201]
    assert (await client.post("/words/a")).status_code == 409
    assert sorted((await client.get("/words")).json()) == ["a", "b", "start"]
    assert (await client.get("/count")).json() == 3
    async with database.write() as session:
        session.add(Word(text="c"))
    assert await database.reader.scalar(COUNT) == 4


async def check_database(database: Database) -> None:
    """Commit, and be refused a write; the application has not started."""
    async with database.write() as session:
        session.add(Word(text="kept within the test"))
    assert await database.reader.scalar(select(Word.text)) == "kept within the test"
    with pytest.raises(Exception, match="read-only transaction"):
        async with database.read() as session:
            await session.execute(text("INSERT INTO words (text) VALUES ('x')"))

"""Reads on a session's connection that are cancelled at any moment, or whose server dies."""

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator

import pytest
from sqlalchemy import insert, select, text
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.ext.asyncio import create_async_engine
from tests.eventually import eventually
from tests.integration.fastapi.notes import Model, Note, Onlooker, look_at

from penstock import Database
from penstock.fastapi.request_sessions import RequestSessions

TEXTS = select(Note.text)
SLEEP = text("SELECT 1 FROM pg_sleep(0.004)")


@pytest.fixture(params=["asyncpg", "psycopg"])
async def database(request: pytest.FixtureRequest, database_url: str) -> AsyncIterator[Database]:
    engine = create_async_engine(database_url)
    async with engine.begin() as connection:
        await connection.run_sync(Model.metadata.create_all)
    await engine.dispose()
    url = database_url.replace("asyncpg", request.param)
    async with Database.from_url(
        url, environment="testing", pool_size=2, max_overflow=0
    ) as database:
        yield database


async def write_and_read(database: Database, name: str, seconds: float) -> bool:
    """Write twice, with a read between that may be given up; return whether it was committed."""
    units = RequestSessions({"default": database})
    session, reader = units.unit("default").writer, units.reader("default")
    try:
        await session.execute(insert(Note).values(text=f"{name} before"))
        with contextlib.suppress(TimeoutError):
            await reader.with_timeout(seconds).scalar(SLEEP)
        await session.execute(insert(Note).values(text=f"{name} after"))
        await units.commit()
    except SQLAlchemyError:
        return False
    finally:
        units.refuse("the test was over")
        await units.end()
    return True


async def test_a_read_that_is_given_up_at_any_moment_loses_nothing_silently(
    database: Database,
) -> None:
    chance = random.Random(11)
    committed = set()
    for number in range(60):
        if await write_and_read(database, str(number), chance.uniform(0, 0.008)):
            committed |= {f"{number} before", f"{number} after"}
    await eventually(lambda: database.pool.snapshot().checked_out == 0)

    assert {row.text for row in await database.reader.all(TEXTS)} == committed
    if database.settings.driver == "asyncpg":  # psycopg's connection goes with the statement
        assert len(committed) > 100


async def test_a_server_that_dies_amid_a_read_takes_the_transaction_along(
    database: Database, database_url: str
) -> None:
    units = RequestSessions({"default": database})
    session, reader = units.unit("default").writer, units.reader("default")
    await session.execute(insert(Note).values(text="lost"))
    reading = asyncio.create_task(reader.scalar(text("SELECT pg_sleep(30)")))
    await asyncio.sleep(0.1)
    connection = await look_at(database_url)
    await Onlooker(connection).terminate_others()
    await connection.close()
    with pytest.raises(DBAPIError):
        await reading
    with pytest.raises(SQLAlchemyError):
        await units.commit()
    units.refuse("the test was over")
    await units.end()
    await eventually(lambda: database.pool.snapshot().checked_out == 0)

    assert await database.reader.all(TEXTS) == []

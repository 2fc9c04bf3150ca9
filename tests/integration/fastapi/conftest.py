"""A database with tables, an application over it, and somebody who looks from outside."""

from collections.abc import AsyncIterator

import pytest
from fastapi import FastAPI
from sqlalchemy.ext.asyncio import create_async_engine
from tests.integration.fastapi.notes import Model, Onlooker, look_at

from penstock import Database
from penstock.fastapi import install


@pytest.fixture
async def tables(database_url: str) -> str:
    """The URL of a database with the notes' tables."""
    engine = create_async_engine(database_url)
    async with engine.begin() as connection:
        await connection.run_sync(Model.metadata.create_all)
    await engine.dispose()
    return database_url


@pytest.fixture
async def database(tables: str) -> AsyncIterator[Database]:
    """A pool of two connections."""
    database = Database.from_url(tables, environment="testing", pool_size=2, max_overflow=0)
    yield database
    await database.close()


@pytest.fixture
async def lone(tables: str) -> AsyncIterator[Database]:
    """A pool of one connection, with little patience."""
    database = Database.from_url(
        tables, environment="testing", pool_size=1, max_overflow=0, pool_timeout=1
    )
    yield database
    await database.close()


@pytest.fixture
def app(database: Database) -> FastAPI:
    """An application with the pool of two installed, and no routes yet."""
    app = FastAPI()
    install(app, database)
    return app


@pytest.fixture
async def onlooker(tables: str) -> AsyncIterator[Onlooker]:
    """Somebody who sees what is committed."""
    connection = await look_at(tables)
    yield Onlooker(connection)
    await connection.close()

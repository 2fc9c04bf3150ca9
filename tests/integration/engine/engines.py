"""Engines for the tests in this folder, and short ways to ask them something."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from sqlalchemy import make_url, text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from penstock.engine import build_engine
from penstock.settings import DatabaseSettings


@asynccontextmanager
async def engine_on(url: str, **settings: Any) -> AsyncIterator[AsyncEngine]:
    """Give an engine in the testing environment, and dispose of it at the end."""
    engine = build_engine(DatabaseSettings.of(url, **{"environment": "testing", **settings}))
    try:
        yield engine
    finally:
        await engine.dispose()


async def scalar(engine: AsyncEngine, statement: str, **parameters: object) -> Any:
    """Run one statement on a connection of the pool and return its first value."""
    async with engine.connect() as connection:
        return (await connection.execute(text(statement), parameters)).scalar()


async def driver_connection(connection: AsyncConnection) -> Any:
    """Return what the driver's own connect returned."""
    return (await connection.get_raw_connection()).driver_connection


async def transport_of(connection: AsyncConnection) -> Any:
    """Return the asyncio transport of the driver's connection; psycopg has none."""
    driver = await driver_connection(connection)
    return driver._writer.transport if hasattr(driver, "_writer") else driver._transport


def with_driver(url: str, driver: str) -> str:
    """Return the URL for another driver of the same database."""
    parsed = make_url(url)
    return with_parts(url, drivername=f"{parsed.get_backend_name()}+{driver}")


def with_parts(url: str, **parts: Any) -> str:
    """Return the URL with other parts, by SQLAlchemy's names."""
    return make_url(url).set(**parts).render_as_string(hide_password=False)

"""A task cancelled at any of its awaits loses no connection and leaves no transaction open."""

import asyncio
from collections.abc import Awaitable, Callable

import asyncpg
import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlalchemy.testing.cancellation import sweep

from penstock import DatabaseSettings
from penstock.database import UnitOfWork
from penstock.database.read_session import reading_engine
from penstock.engine import build_engine

Scenario = Callable[[AsyncEngine], Awaitable[None]]


async def write(engine: AsyncEngine) -> None:
    unit = UnitOfWork(engine, reading_engine(engine))
    try:
        await unit.writer.execute(text("CREATE TEMP TABLE IF NOT EXISTS t (n int)"))
        await unit.commit()
    finally:
        await unit.end("the test is over")


async def roll_back(engine: AsyncEngine) -> None:
    unit = UnitOfWork(engine, reading_engine(engine))
    try:
        await unit.writer.execute(text("SELECT 1"))
    finally:
        await unit.end("the test is over")


async def read(engine: AsyncEngine) -> None:
    unit = UnitOfWork(engine, reading_engine(engine))
    try:
        await unit.reader.execute(text("SELECT 1"))
    finally:
        await unit.end("the test is over")


async def read_while_writing(engine: AsyncEngine) -> None:
    unit = UnitOfWork(engine, reading_engine(engine))
    try:
        await unit.reader.execute(text("SELECT 1"))
        await unit.writer.execute(text("SELECT 2"))
        await unit.reader.execute(text("SELECT 3"))
        await unit.commit()
    finally:
        await unit.end("the test is over")


@pytest.mark.parametrize("scenario", [write, roll_back, read, read_while_writing])
@pytest.mark.parametrize("cancels", [1, 2])
async def test_no_await_of_a_unit_of_work_is_unsafe_to_cancel(
    database_url: str, scenario: Scenario, cancels: int
) -> None:
    settings = DatabaseSettings.of(
        database_url, environment="testing", pool_size=1, max_overflow=0, pool_timeout=2
    )

    failures = await sweep(  # type: ignore[no-untyped-call]  # SQLAlchemy leaves it untyped
        lambda: build_engine(settings), scenario, warm=True, cancels=cancels
    )

    assert failures == []


async def test_random_cancellations_leave_nothing_open(database_url: str) -> None:
    settings = DatabaseSettings.of(
        database_url, environment="testing", pool_size=4, max_overflow=0, application_name="storm"
    )
    engine = build_engine(settings)
    scenarios = (write, roll_back, read, read_while_writing)
    for round_ in range(60):
        tasks = [asyncio.ensure_future(scenarios[n % 4](engine)) for n in range(8)]
        await asyncio.sleep(0.0005 * (round_ % 20))
        for task in tasks[round_ % 3 :: 2]:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    onlooker = await asyncpg.connect(database_url.replace("+asyncpg", ""))
    open_transactions = await onlooker.fetchval(
        "SELECT count(*) FROM pg_stat_activity"
        " WHERE application_name = 'storm' AND state LIKE 'idle in transaction%'"
    )
    await onlooker.close()
    assert engine.pool.checkedout() == 0  # type: ignore[attr-defined]  # every queue pool has it
    assert open_transactions == 0
    await read_while_writing(engine)
    await engine.dispose()

"""A lease that lasts too long is reported once, with all that is needed to find it."""

import asyncio
import logging
import re
from contextlib import suppress
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from tests.eventually import eventually
from tests.integration.pool.pools import pool_of

from penstock import Database, PenstockPool
from penstock.pool.events import LeakReport, LeaseLeaked, PoolEvent


class Reports:
    """The reports of one pool."""

    def __init__(self, engine: AsyncEngine) -> None:
        self.all: list[LeakReport] = []
        pool_of(engine).listeners.add(self)

    def __call__(self, event: PoolEvent) -> None:
        if isinstance(event, LeaseLeaked):
            self.all.append(event.report)


async def check_out_for_too_long(engine: AsyncEngine, done: asyncio.Event) -> None:
    async with engine.connect() as connection:
        await connection.execute(text("SELECT 'the last statement', :value"), {"value": "secret"})
        await done.wait()


async def test_a_leak_is_reported_once_with_both_places(
    database_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    engine = create_async_engine(database_url, poolclass=PenstockPool, leak_after=0.1)
    reports, done = Reports(engine), asyncio.Event()
    with caplog.at_level(logging.WARNING, "penstock.pool"):
        task = asyncio.create_task(check_out_for_too_long(engine, done))
        await eventually(lambda: bool(reports.all))
        await asyncio.sleep(1.2)  # another look at what is due
    done.set()
    await task
    await engine.dispose()

    (report,) = reports.all
    assert report.seconds >= 0.1
    assert "check_out_for_too_long" in report.acquired_at
    assert "async with engine.connect() as connection:" in report.acquired_at
    assert "await done.wait()" in report.holder_at
    assert "sqlalchemy" not in report.acquired_at
    assert not report.reclaimed
    assert len([r for r in caplog.records if "check_out_for_too_long" in r.getMessage()]) == 1


async def test_the_report_names_the_last_statement_without_its_values(database_url: str) -> None:
    database = Database.from_url(database_url, environment="testing", leak_after=0.1)
    reports, done = Reports(database.engine), asyncio.Event()
    task = asyncio.create_task(check_out_for_too_long(database.engine, done))
    await eventually(lambda: bool(reports.all))
    done.set()
    await task
    await database.close()

    statement = reports.all[0].statement
    assert statement is not None
    assert re.fullmatch(r"SELECT \?, \?(::\w+)?", statement)
    assert "secret" not in str(reports.all[0])
    assert "the last statement" not in str(reports.all[0])


async def test_a_lease_that_comes_back_in_time_is_not_reported(database_url: str) -> None:
    engine = create_async_engine(database_url, poolclass=PenstockPool, leak_after=2.5)
    reports = Reports(engine)
    async with engine.connect():
        await asyncio.sleep(1.2)
    await asyncio.sleep(1.2)
    await engine.dispose()

    assert reports.all == []


async def test_a_leaked_connection_can_be_taken_back_by_force(database_url: str) -> None:
    engine = create_async_engine(
        database_url,
        poolclass=PenstockPool,
        pool_size=1,
        max_overflow=0,
        leak_after=0.1,
        reclaim_leaks=True,
    )
    reports = Reports(engine)
    connection = await engine.connect()
    backend = await connection.scalar(text("SELECT pg_backend_pid()"))

    async with engine.connect() as other:  # waits until the first one is taken back
        assert await other.scalar(text("SELECT pg_backend_pid()")) != backend
    assert reports.all[0].reclaimed
    with pytest.raises(SQLAlchemyError):
        await connection.execute(text("SELECT 1"))
    await connection.close()
    assert pool_of(engine).snapshot().checked_out == 0
    await engine.dispose()


async def test_a_query_that_runs_while_its_connection_is_taken_back_fails(
    database_url: str,
) -> None:
    engine = create_async_engine(
        database_url, poolclass=PenstockPool, leak_after=0.1, reclaim_leaks=True
    )
    async with engine.connect() as connection:
        with pytest.raises(DBAPIError):
            await connection.execute(text("SELECT pg_sleep(30)"))
    with suppress(SQLAlchemyError):
        await connection.close()
    await eventually(lambda: pool_of(engine).snapshot().invalid == 0)
    assert pool_of(engine).snapshot().checked_out == 0
    await engine.dispose()


async def test_who_has_checked_out_a_connection_since_its_leak_was_found_keeps_it(
    database_url: str,
) -> None:
    engine = create_async_engine(
        database_url, poolclass=PenstockPool, pool_size=1, leak_after=0.1, reclaim_leaks=True
    )
    await (await engine.connect()).close()
    pool = pool_of(engine)
    leaking: Any = pool.checkout()
    later: list[Any] = []

    def return_and_check_out(event: PoolEvent) -> None:
        if isinstance(event, LeaseLeaked) and not later:
            pool.release(leaking)
            later.append(pool.checkout(records_checkout=False))

    pool.listeners.add(return_and_check_out)
    await eventually(lambda: bool(later))
    await asyncio.sleep(0.1)
    assert later[0].dbapi_connection is not None
    pool.release(later[0])
    assert pool.snapshot().closed_total == 0
    await engine.dispose()

"""A connection whose query was cancelled is saved, and its slot counts until then."""

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest
from sqlalchemy import event, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.util import await_
from tests.adversity.backends import counting_backends
from tests.eventually import eventually
from tests.integration.pool.pools import backend, pool_of
from tests.servers.postgres import PostgresServer

from penstock import PenstockPool

BACKEND = text("SELECT pg_backend_pid()")


@pytest.fixture(params=["asyncpg", "psycopg"])
async def engine(request: pytest.FixtureRequest, database_url: str) -> AsyncIterator[AsyncEngine]:
    url = database_url.replace("asyncpg", request.param)
    engine = create_async_engine(url, poolclass=PenstockPool, pool_size=1, max_overflow=0)
    yield engine
    await engine.dispose()


async def cancel_a_query(engine: AsyncEngine, **options: object) -> None:
    started = asyncio.Event()

    async def query() -> None:
        async with engine.connect() as connection:
            await connection.execution_options(**options)
            await connection.execute(text("SELECT 1"))
            started.set()
            await connection.execute(text("SELECT pg_sleep(30)"))

    task = asyncio.create_task(query())
    await started.wait()
    await asyncio.sleep(0.02)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_the_same_connection_is_checked_out_again(engine: AsyncEngine) -> None:
    process = await backend(engine)
    for _ in range(3):
        await cancel_a_query(engine)
        assert await backend(engine) == process
    assert pool_of(engine).snapshot().closed_total == 0


async def test_execution_options_of_the_cancelled_holder_are_undone(
    engine: AsyncEngine,
) -> None:
    await cancel_a_query(engine, postgresql_readonly=True)
    await cancel_a_query(engine, isolation_level="AUTOCOMMIT")
    async with engine.connect() as connection:
        await connection.execute(text("CREATE TABLE kept_nowhere (id int)"))
        await connection.rollback()
        assert await connection.scalar(text("SELECT to_regclass('kept_nowhere')")) is None


async def test_reset_listeners_see_a_recovered_connection(engine: AsyncEngine) -> None:
    resets: list[bool] = []

    @event.listens_for(engine.sync_engine, "reset")
    def note(dbapi_connection: object, record: object, state: object) -> None:
        cursor = dbapi_connection.cursor()  # type: ignore[attr-defined]  # a DBAPI connection
        cursor.execute("RESET ALL")
        cursor.close()
        resets.append(True)

    await backend(engine)
    before = len(resets)
    await cancel_a_query(engine)
    await backend(engine)
    assert len(resets) >= before + 2  # the recovered one and the one of backend_of


async def test_thirty_cancelled_queries_never_need_more_backends_than_the_pool_has(
    database_url: str,
) -> None:
    engine = create_async_engine(database_url, poolclass=PenstockPool, pool_size=3, max_overflow=0)
    with counting_backends(database_url) as count:
        for _ in range(10):
            await asyncio.gather(*(cancel_a_query(engine) for _ in range(3)))
        await eventually(lambda: pool_of(engine).snapshot().checked_in == 3)
    assert count.most <= 3
    assert pool_of(engine).snapshot().opened_total == 3
    await engine.dispose()


async def test_a_server_that_does_not_answer_the_cancellation_is_given_up(
    postgres: PostgresServer, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if postgres.directory is None:
        pytest.skip("freezes a process of the server, so it has to be one that the tests started")
    monkeypatch.setattr("penstock.pool.worker.RECOVER_TIMEOUT", 0.3)
    engine = create_async_engine(database_url, poolclass=PenstockPool, pool_size=1, max_overflow=0)
    frozen = await backend(engine)
    task = asyncio.create_task(sleep_on_server(engine))
    await asyncio.sleep(0.1)
    os.kill(frozen, signal.SIGSTOP)
    try:
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await backend(engine) != frozen
    finally:
        os.kill(frozen, signal.SIGCONT)
    await engine.dispose()


async def test_a_loop_that_stood_still_saves_the_connection_all_the_same(
    engine: AsyncEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("penstock.pool.worker.RECOVER_TIMEOUT", 2.0)
    process = await backend(engine)
    await cancel_a_query(engine)
    await asyncio.sleep(0)  # in which the recovery begins
    time.sleep(2.2)  # noqa: ASYNC251 - the mistake of a service that is meant here
    assert await backend(engine) == process


async def sleep_on_server(engine: AsyncEngine) -> None:
    async with engine.connect() as connection:
        await connection.execute(text("SELECT pg_sleep(30)"))


async def test_a_connection_killed_during_its_cancelled_query_is_replaced(
    engine: AsyncEngine, postgres: PostgresServer
) -> None:
    process = await backend(engine)
    task = asyncio.create_task(sleep_on_server(engine))
    await asyncio.sleep(0.1)
    task.cancel()
    postgres.execute(f"SELECT pg_terminate_backend({process})")
    with pytest.raises((asyncio.CancelledError, DBAPIError)):
        await task
    assert await backend(engine) != process


async def test_disposing_waits_for_what_is_being_recovered(engine: AsyncEngine) -> None:
    await cancel_a_query(engine)
    pool = pool_of(engine)
    await engine.dispose()
    assert pool.ledger.open == 0


async def test_a_connection_that_dies_as_the_last_step_of_recovery_leaves_its_slot(
    engine: AsyncEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    process = await backend(engine)
    died: list[bool] = []

    def die(dbapi_connection: Any) -> None:
        died.append(True)
        await_(asyncio.sleep(0.05))  # the record has been returned by then
        driver = dbapi_connection.driver_connection
        driver.terminate() if hasattr(driver, "terminate") else driver.pgconn.finish()

    # What undoes the holder's execution options comes last.
    monkeypatch.setattr(engine.dialect, "reset_isolation_level", die)
    await cancel_a_query(engine, isolation_level="AUTOCOMMIT")
    async with asyncio.timeout(10):
        assert await backend(engine) != process
    assert died == [True]

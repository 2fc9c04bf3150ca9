"""A read-only switch that does not come through: the server dies, refuses, or is told to cancel."""

import asyncio
from collections.abc import Callable

import asyncpg
import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine
from tests.eventually import eventually
from tests.integration.pool.pools import MakeEngine, kill, pool_of
from tests.integration.pool.read_only import (
    Use,
    acquire,
    acquire_to_read,
    fail_to_read,
    read,
    with_notes,
    write,
    write_in_autocommit,
)
from tests.servers.postgres import PostgresServer
from tests.servers.proxy import Proxy


@pytest.fixture
async def engine(make_engine: MakeEngine) -> AsyncEngine:
    """A pool of one connection, and an empty table."""
    return await with_notes(make_engine)


async def test_a_connection_that_dies_with_a_read_only_switch_in_flight_is_replaced(
    engine: AsyncEngine, proxy: Proxy
) -> None:
    await write(engine)
    proxy.silence()
    await acquire_to_read(engine)
    proxy.cut()
    await eventually(lambda: not proxy.links)
    for use in (read, write):
        await use(engine)
    assert proxy.connects == 2


async def test_a_backend_killed_with_a_read_only_switch_in_flight_is_replaced(
    engine: AsyncEngine, postgres: PostgresServer, proxy: Proxy
) -> None:
    async with engine.connect() as connection:
        process = int(await connection.scalar(text("SELECT pg_backend_pid()")))
    await acquire_to_read(engine)
    kill(postgres, process)
    await eventually(lambda: not proxy.links)
    for use in (write, read):
        await use(engine)
    assert proxy.connects == 2


async def test_a_read_only_switch_that_the_server_refuses_costs_the_connection(
    engine: AsyncEngine, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    await write(engine)
    with monkeypatch.context() as patch:
        patch.setattr("penstock.drivers.asyncpg.SET_READ_ONLY", "SET what_does_not_exist = on")
        with pytest.raises(asyncpg.ConnectionDoesNotExistError):
            await read(engine)
    for use in (read, write):
        await use(engine)
    assert proxy.connects == 2


SLOWLY = "DO 'BEGIN PERFORM pg_sleep(30); END'; SET default_transaction_read_only = {}"


@pytest.fixture
def server_is_at_it(engine: AsyncEngine, postgres: PostgresServer) -> Callable[[], bool]:
    """Returns whether the server has begun to sleep."""
    sleeping = (
        "SELECT 1 FROM pg_stat_activity "
        f"WHERE wait_event = 'PgSleep' AND datname = '{engine.url.database}'"
    )
    return lambda: bool(postgres.execute(sleeping))


@pytest.mark.parametrize(
    ("before", "cancelled"), [(write, read), (read, write), (acquire, fail_to_read)]
)
@pytest.mark.parametrize("use", [read, write, write_in_autocommit, fail_to_read])
async def test_a_read_only_switch_that_is_cancelled_with_its_statement_is_sent_again(
    engine: AsyncEngine,
    server_is_at_it: Callable[[], bool],
    before: Use,
    cancelled: Use,
    use: Use,
) -> None:
    await before(engine)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("penstock.drivers.asyncpg.SET_READ_ONLY", SLOWLY.format("on"))
        patch.setattr("penstock.drivers.asyncpg.FREE", SLOWLY.format("off"))
        task = asyncio.create_task(cancelled(engine))
        await eventually(server_is_at_it)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    for _ in range(2):
        await use(engine)
    assert pool_of(engine).snapshot().opened_total == 1

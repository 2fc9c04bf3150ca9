"""Whether a connection still lives: known without asking, or by asking once and not for long."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlalchemy.pool import AsyncAdaptedQueuePool
from tests.eventually import eventually
from tests.integration.pool.pools import (
    MakeEngine,
    age,
    backend,
    backends,
    kill,
    pool_of,
    use,
)
from tests.servers.postgres import PostgresServer
from tests.servers.proxy import Proxy

from penstock import PenstockPool
from penstock.errors import PoolTimeout

both_drivers = pytest.mark.parametrize("driver", ["asyncpg", "psycopg"], indirect=True)
in_both_ways = pytest.mark.parametrize("pool_pre_ping", [True, False], ids=["pre_ping", "usual"])
IMPATIENT = 1.5
"""Seconds: ample for a ping of a fifth of a second, and less than asyncpg needs to give up."""


@both_drivers
async def test_a_healthy_connection_is_checked_out_without_a_round_trip(
    make_engine: MakeEngine, proxy: Proxy
) -> None:
    engine = make_engine(pool_size=1)
    process = await use(engine)
    age(engine, 29)
    spent = proxy.round_trips
    assert [await backend(engine) for _ in range(10)] == [process] * 10
    assert (proxy.round_trips - spent, proxy.connects) == (0, 1)


@both_drivers
async def test_a_killed_idle_backend_is_not_checked_out(
    make_engine: MakeEngine, proxy: Proxy, postgres: PostgresServer
) -> None:
    engine = make_engine(pool_size=2)
    alive, killed = await backends(engine, 2)
    kill(postgres, killed)
    await eventually(lambda: len(proxy.links) == 1)
    spent = proxy.round_trips
    assert await backend(engine) == alive
    assert proxy.round_trips == spent
    assert killed not in await backends(engine, 2)


@both_drivers
async def test_a_reset_connection_is_not_checked_out(make_engine: MakeEngine, proxy: Proxy) -> None:
    engine = make_engine(pool_size=3)
    lost = await backends(engine, 3)
    proxy.cut()
    await eventually(lambda: not proxy.links)
    age(engine, 0.01)  # for the first millisecond nothing is asked but the event loop
    assert not set(lost) & set(await backends(engine, 3))
    assert proxy.connects == 6


@both_drivers
async def test_a_backend_killed_while_the_event_loop_stood_still_is_not_checked_out(
    make_engine: MakeEngine, database_url: str, postgres: PostgresServer
) -> None:
    engine = make_engine(database_url, pool_size=1)
    async with engine.connect() as connection:
        driver: Any = (await connection.get_raw_connection()).driver_connection
    killed = await backend(engine)
    kill(postgres, killed)
    age(engine, 0.01)  # for the first millisecond nothing is asked but the event loop
    assert not (driver.is_closed() if hasattr(driver, "is_closed") else driver.closed)
    assert await use(engine) != killed


async def nothing(connection: AsyncConnection) -> None:
    """Leave a connection as it was opened."""


async def read(connection: AsyncConnection) -> None:
    await connection.execute(text("SELECT 1"))


async def read_in_autocommit(connection: AsyncConnection) -> None:
    await connection.execution_options(isolation_level="AUTOCOMMIT")
    await connection.execute(text("SELECT 1"))


async def set_state(connection: AsyncConnection) -> None:
    await connection.execute(text("SET application_name = 'liveness'"))
    await connection.commit()


@pytest.mark.parametrize("lease", [nothing, read, read_in_autocommit, set_state])
async def test_a_connection_that_has_been_told_its_end_is_not_checked_out(
    make_engine: MakeEngine,
    proxy: Proxy,
    lease: Callable[[AsyncConnection], Coroutine[Any, Any, None]],
) -> None:
    engine = make_engine(pool_size=1, max_overflow=0, pool_timeout=5)
    async with engine.connect() as connection:
        await lease(connection)
    old = await backend(engine)

    proxy.tell(b"E\0\0\0\x2bSFATAL\0VFATAL\0C57P01\0Mgoodbye, client\0\0")  # and no closed socket
    await asyncio.sleep(0.05)

    assert await use(engine) != old


async def test_of_many_backends_killed_at_once_none_is_checked_out(
    make_engine: MakeEngine, database_url: str, postgres: PostgresServer
) -> None:
    engine = make_engine(database_url, pool_size=20)
    killed = await backends(engine, 20)
    kill(postgres, *killed)
    age(engine, 0.01)  # for the first millisecond nothing is asked but the event loop
    assert await use(engine) not in killed


@both_drivers
async def test_a_connection_idle_for_long_is_asked_once_before_it_is_checked_out(
    make_engine: MakeEngine, proxy: Proxy
) -> None:
    engine = make_engine(pool_size=1)
    process = await use(engine)
    age(engine, 30)
    spent = proxy.round_trips
    assert await backend(engine) == process
    assert proxy.round_trips - spent == 1
    assert await backend(engine) == process
    assert proxy.round_trips - spent == 1


async def test_a_connection_is_asked_after_the_idleness_that_was_set(
    make_engine: MakeEngine, proxy: Proxy
) -> None:
    engine = make_engine(pool_size=1, idle_before_ping=5)
    await use(engine)
    for seconds, pings in ((4, 0), (5, 1)):
        age(engine, seconds)
        spent = proxy.round_trips
        await backend(engine)
        assert proxy.round_trips - spent == pings


@pytest.mark.parametrize(
    ("poolclass", "driver", "round_trips"),
    [
        (PenstockPool, "asyncpg", 1),
        (AsyncAdaptedQueuePool, "asyncpg", 3),
        (PenstockPool, "psycopg", 1),
        (AsyncAdaptedQueuePool, "psycopg", 1),
    ],
    indirect=["driver"],
)
async def test_a_pre_ping_costs_one_round_trip(
    make_engine: MakeEngine, proxy: Proxy, poolclass: type[AsyncAdaptedQueuePool], round_trips: int
) -> None:
    engine = make_engine(poolclass=poolclass, pool_size=1, pool_pre_ping=True)
    for _ in range(2):  # the first ping of asyncpg's own prepares its statement
        await backend(engine)
    for _ in range(3):
        spent = proxy.round_trips
        await backend(engine)
        assert proxy.round_trips - spent == round_trips


@both_drivers
async def test_a_fresh_connection_is_not_asked_by_a_pre_ping(
    make_engine: MakeEngine, proxy: Proxy
) -> None:
    spent = []
    for pool_pre_ping in (False, True):
        before = proxy.round_trips
        await backend(make_engine(pool_pre_ping=pool_pre_ping))
        spent.append(proxy.round_trips - before)
    assert spent[0] == spent[1] > 0


@both_drivers
async def test_a_pre_ping_that_finds_a_dead_connection_evicts_all_older_ones(
    make_engine: MakeEngine, proxy: Proxy, postgres: PostgresServer
) -> None:
    engine = make_engine(pool_size=3, pool_pre_ping=True)
    old = await backends(engine, 3)
    kill(postgres, old[0])
    await eventually(lambda: len(proxy.links) == 2)
    assert not set(old) & set(await backends(engine, 3))
    await eventually(lambda: pool_of(engine).snapshot().closed_total == 3)
    assert proxy.connects == 6


@both_drivers
@in_both_ways
async def test_a_silent_connection_is_given_up_and_the_caller_gets_a_new_one(
    make_engine: MakeEngine, proxy: Proxy, pool_pre_ping: bool
) -> None:
    engine = make_engine(pool_size=1, ping_timeout=0.2, pool_pre_ping=pool_pre_ping)
    silent = await backend(engine)
    age(engine, 30)
    proxy.silence()
    async with asyncio.timeout(IMPATIENT):
        assert await use(engine) != silent
    proxy.heal()
    await eventually(lambda: pool_of(engine).snapshot().closed_total == 1)


async def test_a_silent_pre_ping_evicts_all_older_connections(
    make_engine: MakeEngine, proxy: Proxy
) -> None:
    engine = make_engine(pool_size=5, ping_timeout=0.2, pool_pre_ping=True)
    silent = await backends(engine, 5)
    proxy.silence()
    async with asyncio.timeout(IMPATIENT):
        assert not set(silent) & set(await backends(engine, 5))


async def test_one_unanswered_ping_is_all_that_a_caller_waits_for(
    make_engine: MakeEngine, proxy: Proxy
) -> None:
    engine = make_engine(pool_size=5, ping_timeout=0.4)
    silent = await backends(engine, 5)
    age(engine, 30)
    proxy.silence()
    async with asyncio.timeout(IMPATIENT):
        assert await use(engine) not in silent


@in_both_ways
async def test_a_silent_server_keeps_nobody_beyond_the_deadline(
    make_engine: MakeEngine, proxy: Proxy, pool_pre_ping: bool
) -> None:
    engine = make_engine(pool_size=1, pool_timeout=1, ping_timeout=0.2, pool_pre_ping=pool_pre_ping)
    await backend(engine)
    age(engine, 30)
    proxy.silence(newcomers=True)
    async with asyncio.timeout(IMPATIENT):
        with pytest.raises(PoolTimeout) as raised:
            await backend(engine)
    assert raised.value.phase == "connecting"


@in_both_ways
async def test_a_ping_does_not_outlast_the_callers_deadline(
    make_engine: MakeEngine, proxy: Proxy, pool_pre_ping: bool
) -> None:
    engine = make_engine(pool_size=1, pool_timeout=1, ping_timeout=10, pool_pre_ping=pool_pre_ping)
    await backend(engine)
    age(engine, 30)
    proxy.silence()
    async with asyncio.timeout(IMPATIENT):
        with pytest.raises(PoolTimeout):
            await backend(engine)


@both_drivers
async def test_a_patience_that_waiting_has_used_up_condemns_no_connection(
    make_engine: MakeEngine, proxy: Proxy
) -> None:
    engine = make_engine(pool_size=2, max_overflow=0, pool_timeout=1, pool_pre_ping=True)
    known = set(await backends(engine, 2))
    held = [await engine.connect() for _ in range(2)]
    caller = asyncio.create_task(use(engine))
    await eventually(lambda: pool_of(engine).snapshot().waiting == 1)
    proxy.silence()
    await held.pop().close()
    with pytest.raises(PoolTimeout) as raised:
        await caller
    proxy.heal()
    await held.pop().close()
    assert raised.value.phase == "waiting"
    await eventually(lambda: pool_of(engine).snapshot().checked_in == 2)
    assert set(await backends(engine, 2)) == known


async def test_pool_timeout_zero_leaves_time_for_a_ping(
    make_engine: MakeEngine, proxy: Proxy
) -> None:
    engine = make_engine(pool_size=1, max_overflow=0, pool_timeout=0)
    process = await use(engine)
    age(engine, 30)
    assert await backend(engine) == process
    assert proxy.connects == 1


async def test_a_ping_whose_caller_was_cancelled_keeps_its_slot_within_the_bounds_of_recovery(
    make_engine: MakeEngine, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("penstock.pool.worker.RECOVER_TIMEOUT", 0.2)
    monkeypatch.setattr("penstock.pool.record.CLOSE_TIMEOUT", 0.2)
    engine = make_engine(pool_size=1, max_overflow=0, ping_timeout=30)
    silent = await backend(engine)
    age(engine, 30)
    proxy.silence()
    caller = asyncio.create_task(backend(engine))
    await eventually(lambda: pool_of(engine).snapshot().checked_out == 1)
    caller.cancel()
    with pytest.raises(asyncio.CancelledError):
        await caller
    async with asyncio.timeout(IMPATIENT):
        assert await use(engine) != silent

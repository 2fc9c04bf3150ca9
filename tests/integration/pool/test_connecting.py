"""Connecting: nothing of it is wasted, and nobody waits for it too long."""

import asyncio

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from tests.eventually import eventually
from tests.integration.pool.pools import MakeEngine, ask, kill, outcome, outcomes, pool_of, use
from tests.servers.postgres import PostgresServer
from tests.servers.proxy import Proxy

from penstock.errors import PoolTimeout

both_drivers = pytest.mark.parametrize("driver", ["asyncpg", "psycopg"], indirect=True)


# A connect outlives its caller.


@both_drivers
async def test_a_connect_whose_caller_was_cancelled_serves_the_next(
    make_engine: MakeEngine, proxy: Proxy
) -> None:
    engine = make_engine()
    proxy.delay = 0.2
    caller = asyncio.create_task(use(engine))
    await eventually(lambda: proxy.connecting == 1)
    caller.cancel()
    with pytest.raises(asyncio.CancelledError):
        await caller
    assert proxy.connecting == 1
    await use(engine)
    assert proxy.connects == 1


async def test_a_connect_whose_caller_timed_out_serves_the_next(
    make_engine: MakeEngine, proxy: Proxy
) -> None:
    engine = make_engine(pool_timeout=0.1)
    proxy.delay = 0.3
    with pytest.raises(PoolTimeout) as raised:
        await use(engine)
    assert (raised.value.phase, proxy.connecting) == ("connecting", 1)
    await eventually(lambda: pool_of(engine).snapshot().checked_in == 1)
    await use(engine)
    assert proxy.connects == 1


async def test_a_connect_that_nobody_waits_for_any_more_is_kept(
    make_engine: MakeEngine, proxy: Proxy
) -> None:
    engine = make_engine(pool_size=3, max_overflow=0)
    proxy.delay = 0.1
    asking = ask(engine, 3)
    await eventually(lambda: proxy.connecting == 3)
    for caller in asking:
        caller.cancel()
    await asyncio.wait(asking)
    await eventually(lambda: pool_of(engine).snapshot().checked_in == 3)
    assert await outcomes(ask(engine, 9)) == {"served": 9}
    assert proxy.connects == 3


# pool_timeout bounds the waiting and the connecting together.


@both_drivers
async def test_pool_timeout_ends_a_caller_during_a_slow_connect(
    make_engine: MakeEngine, proxy: Proxy
) -> None:
    engine = make_engine(pool_timeout=0.3)
    proxy.delay = 1
    with pytest.raises(PoolTimeout, match=r"pool_timeout=0\.3 s.*1 opening") as raised:
        await use(engine)
    assert raised.value.phase == "connecting"
    assert (proxy.connects, proxy.connecting) == (1, 1)


async def test_pool_timeout_counts_the_wait_before_the_connect(
    make_engine: MakeEngine, proxy: Proxy
) -> None:
    engine = make_engine(pool_size=1, max_overflow=0, pool_timeout=0.6)
    connection = await engine.connect()
    proxy.delay = 0.5
    caller = asyncio.create_task(use(engine))
    await asyncio.sleep(0.3)
    await connection.invalidate()
    await connection.close()
    with pytest.raises(PoolTimeout) as raised:
        await caller
    assert raised.value.phase == "connecting"
    assert (proxy.connects, proxy.connecting) == (2, 1)


@both_drivers
async def test_pool_timeout_zero_connects_where_there_is_room_and_fails_at_once_where_not(
    make_engine: MakeEngine, proxy: Proxy
) -> None:
    engine = make_engine(pool_size=1, max_overflow=1, pool_timeout=0)
    proxy.delay = 0.1
    async with engine.connect(), engine.connect():
        assert proxy.connects == 2
        loop_turns = asyncio.create_task(asyncio.sleep(0))
        with pytest.raises(PoolTimeout) as raised:
            await use(engine)
        assert not loop_turns.done()
    assert raised.value.phase == "waiting"
    await use(engine)
    assert proxy.connects == 2


async def test_pool_timeout_none_waits_as_long_as_it_takes(
    make_engine: MakeEngine, proxy: Proxy
) -> None:
    engine = make_engine(pool_size=1, max_overflow=0, pool_timeout=None)
    proxy.delay = 0.2
    assert await outcomes(ask(engine, 5)) == {"served": 5}
    assert proxy.connects == 1


@both_drivers
async def test_a_connect_that_takes_too_long_is_ended_and_its_socket_closed(
    make_engine: MakeEngine, proxy: Proxy
) -> None:
    engine = make_engine(pool_size=1, max_overflow=0, connect_timeout=0.3)
    proxy.silence(newcomers=True)
    assert await outcome(engine) == "ConnectFailed"
    snapshot = pool_of(engine).snapshot()
    assert (snapshot.checked_out, snapshot.opening, snapshot.invalid) == (0, 0, 0)
    assert "connect_timeout=0.3 s" in str(snapshot.last_open_error)
    proxy.heal()
    await eventually(lambda: not proxy.links, seconds=3)


# Several connects at once.


@both_drivers
async def test_no_more_than_connects_at_once_are_opened_in_parallel(
    make_engine: MakeEngine, proxy: Proxy
) -> None:
    engine = make_engine(pool_size=8, max_overflow=4, connects_at_once=3)
    proxy.delay = 0.05
    done = asyncio.Event()
    asking = [asyncio.create_task(use(engine, done)) for _ in range(20)]
    await eventually(lambda: pool_of(engine).snapshot().checked_out == 12)
    done.set()
    await asyncio.gather(*asking)
    assert (proxy.most_connecting, proxy.connects) == (3, 12)


async def test_a_connection_that_comes_back_during_the_connect_is_checked_out_and_the_new_one_kept(
    make_engine: MakeEngine, proxy: Proxy
) -> None:
    engine = make_engine(pool_size=2, max_overflow=0)
    async with engine.connect() as connection:
        returned = await connection.scalar(text("SELECT pg_backend_pid()"))
        proxy.delay = 0.3
        caller = asyncio.create_task(use(engine))
        await eventually(lambda: proxy.connecting == 1)
    assert (await caller, proxy.connecting) == (returned, 1)
    await eventually(lambda: pool_of(engine).snapshot().checked_in == 2)
    assert proxy.connects == 2


async def test_a_checked_out_connection_that_is_lost_makes_room_for_those_who_wait(
    make_engine: MakeEngine, proxy: Proxy, postgres: PostgresServer
) -> None:
    engine = make_engine(pool_size=1, max_overflow=0)
    connection = await engine.connect()
    killed = await connection.scalar(text("SELECT pg_backend_pid()"))
    asking = ask(engine, 5)
    await eventually(lambda: pool_of(engine).snapshot().waiting == 5)
    kill(postgres, killed)
    with pytest.raises(DBAPIError):
        await connection.exec_driver_sql("SELECT 1")
    await connection.close()
    assert await outcomes(asking) == {"served": 5}
    assert proxy.connects == 2

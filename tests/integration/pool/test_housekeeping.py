"""What the pool does for its connections while nobody asks for one."""

import asyncio
import logging

import pytest
from tests.adversity.backends import BackendCount
from tests.eventually import eventually
from tests.integration.pool.pools import (
    MakeEngine,
    age,
    backends,
    closed,
    events_of,
    kill,
    pool_of,
    use,
)
from tests.servers.postgres import PostgresServer
from tests.servers.proxy import Proxy

from penstock.pool.events import PoolEvent
from penstock.pool.slot import CloseReason

both_drivers = pytest.mark.parametrize("driver", ["asyncpg", "psycopg"], indirect=True)

pytestmark = pytest.mark.usefixtures("frequent_housekeeping")


async def ticks(number: int) -> None:
    """Let housekeeping have that many looks; what has not happened by then does not happen."""
    await asyncio.sleep(number * 0.02)


# Connections are there before anybody asks.


@both_drivers
async def test_a_prefilled_pool_has_its_connections_before_the_first_request(
    make_engine: MakeEngine, proxy: Proxy
) -> None:
    engine = make_engine(pool_size=5, min_idle=3)
    await pool_of(engine).prefill()
    assert pool_of(engine).snapshot().checked_in == 3
    assert len(set(await backends(engine, 3))) == 3
    assert proxy.connects == 3


async def test_prefilling_opens_no_more_than_connects_at_once_in_parallel(
    make_engine: MakeEngine, proxy: Proxy
) -> None:
    engine = make_engine(pool_size=7, min_idle=7, connects_at_once=2)
    proxy.delay = 0.03
    await pool_of(engine).prefill()
    assert (proxy.most_connecting, proxy.connects) == (2, 7)


async def test_a_prefill_without_a_server_ends_and_the_pool_fills_itself_later(
    make_engine: MakeEngine, proxy: Proxy
) -> None:
    engine = make_engine(pool_size=2, min_idle=2)
    proxy.refusing = True
    await pool_of(engine).prefill()
    assert pool_of(engine).snapshot().checked_in == 0
    proxy.heal()
    await eventually(lambda: pool_of(engine).snapshot().checked_in == 2)


async def test_connections_in_use_do_not_count_as_idle(
    make_engine: MakeEngine, proxy: Proxy
) -> None:
    engine = make_engine(pool_size=4, min_idle=2)
    await pool_of(engine).prefill()
    async with engine.connect(), engine.connect():
        await eventually(lambda: pool_of(engine).snapshot().checked_in == 2)
        async with engine.connect():
            await ticks(5)
            assert pool_of(engine).ledger.open == 4
    assert proxy.connects == 4


@both_drivers
async def test_killed_idle_connections_are_replaced_without_any_request(
    make_engine: MakeEngine, proxy: Proxy, postgres: PostgresServer
) -> None:
    engine = make_engine(pool_size=5, min_idle=3, keepalive=0.05)
    await pool_of(engine).prefill()
    one, two, three = await backends(engine, 3)
    kill(postgres, one)
    kill(postgres, two)
    await eventually(lambda: pool_of(engine).snapshot().opened_total == 5)
    now = await backends(engine, 3)
    assert three in now
    assert not {one, two} & set(now)


async def test_the_pool_fills_itself_again_after_an_outage(
    make_engine: MakeEngine, proxy: Proxy
) -> None:
    engine = make_engine(pool_size=3, min_idle=3, keepalive=0.05)
    await pool_of(engine).prefill()
    proxy.refusing = True
    proxy.cut()
    await eventually(lambda: pool_of(engine).snapshot().open_failures_total >= 3)
    assert proxy.connects <= 3 + 8
    proxy.heal()
    await eventually(lambda: pool_of(engine).snapshot().checked_in == 3)


async def test_a_disposed_engine_opens_nothing_by_itself(
    make_engine: MakeEngine, proxy: Proxy
) -> None:
    engine = make_engine(pool_size=3, min_idle=3, keepalive=0.05)
    await pool_of(engine).prefill()
    await engine.dispose()
    await ticks(10)
    assert (proxy.connects, pool_of(engine).ledger.open) == (3, 0)


# Overflow is kept while it is used.


async def test_overflow_outlives_bursts_and_goes_when_it_is_idle(
    make_engine: MakeEngine, proxy: Proxy, count: BackendCount
) -> None:
    engine = make_engine(pool_size=2, max_overflow=3, overflow_idle=0.6)
    events = events_of(engine)
    for _ in range(6):
        await backends(engine, 5)
        await ticks(5)
    assert (proxy.connects, closed(events)) == (5, [])
    await eventually(lambda: pool_of(engine).ledger.open == 2)
    assert closed(events) == [CloseReason.SURPLUS] * 3
    await asyncio.sleep(1.2)
    assert (pool_of(engine).snapshot().checked_in, len(closed(events))) == (2, 3)
    await backends(engine, 2)
    assert proxy.connects == 5
    assert count.most <= 5


async def test_overflow_goes_as_far_as_it_is_not_needed(
    make_engine: MakeEngine, proxy: Proxy
) -> None:
    engine = make_engine(pool_size=1, max_overflow=4, overflow_idle=0.2)
    await backends(engine, 5)
    async with engine.connect(), engine.connect(), engine.connect():
        await eventually(lambda: pool_of(engine).ledger.open == 3)
    await eventually(lambda: pool_of(engine).ledger.open == 1)
    assert proxy.connects == 5


# Idle connections are kept alive.


@both_drivers
async def test_an_idle_connection_is_pinged_again_and_again(
    make_engine: MakeEngine, proxy: Proxy
) -> None:
    engine = make_engine(pool_size=1, max_overflow=0, keepalive=0.1)
    process = await use(engine)
    spent = proxy.round_trips
    await eventually(lambda: proxy.round_trips >= spent + 3)
    assert await use(engine) == process
    assert proxy.connects == 1


async def test_a_keepalive_ping_is_one_round_trip_for_each_idle_connection(
    make_engine: MakeEngine, proxy: Proxy
) -> None:
    engine = make_engine(pool_size=3)
    await backends(engine, 3)
    async with engine.connect():
        spent = proxy.round_trips
        age(engine, 120)
        await eventually(lambda: proxy.round_trips == spent + 2)
        await ticks(5)
        assert proxy.round_trips == spent + 2


async def test_nothing_is_pinged_where_keepalive_is_off(
    make_engine: MakeEngine, proxy: Proxy
) -> None:
    engine = make_engine(pool_size=2, keepalive=0)
    await backends(engine, 2)
    spent = proxy.round_trips
    age(engine, 100_000)
    await ticks(5)
    assert proxy.round_trips == spent


@both_drivers
async def test_connections_that_do_not_answer_a_keepalive_are_dropped(
    make_engine: MakeEngine, proxy: Proxy
) -> None:
    engine = make_engine(pool_size=2, keepalive=0.05, ping_timeout=0.1)
    events = events_of(engine)
    silent = await backends(engine, 2)
    proxy.silence()
    await eventually(lambda: pool_of(engine).ledger.idle == 0, seconds=2)
    await eventually(lambda: closed(events) == [CloseReason.DEAD] * 2)
    assert await use(engine) not in silent


async def test_a_caller_during_unanswered_keepalives_gets_a_new_connection(
    make_engine: MakeEngine, proxy: Proxy
) -> None:
    engine = make_engine(pool_size=2, keepalive=0.05, ping_timeout=10)
    silent = await backends(engine, 2)
    proxy.silence()
    await eventually(lambda: pool_of(engine).ledger.idle == 0)
    async with asyncio.timeout(2):
        assert await use(engine) not in silent


# Nobody who listens can disturb.


async def test_a_listener_that_fails_disturbs_nothing(
    make_engine: MakeEngine,
    proxy: Proxy,
    postgres: PostgresServer,
    caplog: pytest.LogCaptureFixture,
) -> None:
    engine = make_engine(pool_size=2, max_overflow=1, min_idle=2, keepalive=0.05, overflow_idle=0.1)

    def fail(event: PoolEvent) -> None:
        raise RuntimeError("not today")

    pool_of(engine).listeners.add(fail)
    events = events_of(engine)
    with caplog.at_level(logging.ERROR, logger="penstock.pool"):
        await pool_of(engine).prefill()
        await backends(engine, 3)
        await eventually(lambda: CloseReason.SURPLUS in closed(events))
        kill(postgres, (await backends(engine, 1))[0])
        await eventually(lambda: CloseReason.DEAD in closed(events))
        await eventually(lambda: pool_of(engine).snapshot().checked_in == 2)
    assert proxy.connects == 4
    names = {record.args[0] for record in caplog.records if isinstance(record.args, tuple)}
    assert names == {type(event).__name__ for event in events}

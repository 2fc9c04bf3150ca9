"""A connect that fails: who is told, who is served all the same, and how often it is tried."""

import asyncio
from collections import Counter
from time import monotonic

import pytest
from sqlalchemy import event, make_url
from sqlalchemy.exc import DBAPIError, DisconnectionError
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlalchemy.pool import AsyncAdaptedQueuePool
from tests.adversity.backends import counting_backends
from tests.eventually import eventually
from tests.integration.engine.engines import with_parts
from tests.integration.pool.pools import (
    MakeEngine,
    ask,
    backends,
    outcome,
    outcomes,
    pool_of,
    use,
)
from tests.servers.postgres import PostgresServer
from tests.servers.proxy import Proxy

from penstock import PenstockPool

both_drivers = pytest.mark.parametrize("driver", ["asyncpg", "psycopg"], indirect=True)


class ListenerError(Exception):
    """Neither a driver's error nor the pool's."""


# A failure is raised, and wakes whom it concerns.


@both_drivers
async def test_a_failed_connect_raises_the_error_that_the_stock_pool_raises(
    make_engine: MakeEngine, proxy: Proxy, database_url: str
) -> None:
    wrong = proxy.url(with_parts(database_url, password="wrong"))
    errors = []
    for poolclass in (PenstockPool, AsyncAdaptedQueuePool):
        with pytest.raises(DBAPIError, match="password authentication failed") as raised:
            await use(make_engine(wrong, poolclass=poolclass))
        errors.append(raised.value)
    ours, stock = errors
    assert (type(ours), str(ours)) == (type(stock), str(stock))
    assert type(ours.orig) is type(stock.orig)


@both_drivers
async def test_with_everything_down_everybody_is_answered_at_once(
    make_engine: MakeEngine, proxy: Proxy
) -> None:
    engine = make_engine(pool_size=3, max_overflow=2, pool_timeout=60)
    proxy.refusing = True
    answers = await outcomes(ask(engine, 30))
    assert answers.total() == 30
    assert not answers.keys() & {"served", "PoolTimeout"}
    assert proxy.connects <= 4
    snapshot = pool_of(engine).snapshot()
    assert (snapshot.opening, snapshot.waiting, snapshot.checked_out) == (0, 0, 0)


async def test_those_left_after_a_failure_are_served_by_what_is_returned(
    make_engine: MakeEngine, proxy: Proxy
) -> None:
    engine = make_engine(pool_size=2, max_overflow=1, pool_timeout=60)
    checked_out = [await engine.connect() for _ in range(2)]
    proxy.refusing = True
    asking = ask(engine, 10)
    await eventually(lambda: pool_of(engine).snapshot().open_failures_total >= 2)
    assert pool_of(engine).snapshot().waiting == 10
    for connection in checked_out:
        await connection.close()
    assert await outcomes(asking) == {"served": 10}


async def test_those_left_after_a_failure_are_served_by_the_next_connect(
    make_engine: MakeEngine, proxy: Proxy
) -> None:
    engine = make_engine(pool_size=2, max_overflow=0, pool_timeout=60)
    async with engine.connect():
        proxy.refusing = True
        asking = ask(engine, 10)
        await eventually(lambda: pool_of(engine).snapshot().open_failures_total >= 2)
        proxy.refusing = False
        answers = await outcomes(asking)
    assert answers == {"served": 10}
    assert proxy.connects == 2 + pool_of(engine).snapshot().open_failures_total


@pytest.mark.parametrize("pool_timeout", [0.3, None])
@both_drivers
async def test_where_the_server_stays_away_each_learns_why_when_its_time_is_over(
    make_engine: MakeEngine, proxy: Proxy, pool_timeout: float | None
) -> None:
    engine = make_engine(
        pool_size=2, max_overflow=0, pool_timeout=pool_timeout, connect_timeout=0.3
    )
    await cut_off(engine, proxy)
    answers = await outcomes(ask(engine, 5))
    assert answers.total() == 5
    assert not answers.keys() & {"served", "PoolTimeout"}
    snapshot = pool_of(engine).snapshot()
    assert snapshot.open_failures_total >= 2
    assert snapshot.waiting == 0


async def test_without_patience_the_first_failure_is_told(
    make_engine: MakeEngine, proxy: Proxy
) -> None:
    engine = make_engine(pool_size=1, max_overflow=0, pool_timeout=0)
    await cut_off(engine, proxy)
    assert await outcome(engine) not in {"served", "PoolTimeout"}
    assert pool_of(engine).snapshot().open_failures_total == 1


@pytest.mark.parametrize("settings", [{"pool_timeout": 0}, {"max_waiting": 0}])
async def test_who_was_given_a_dead_connection_gets_its_replacement(
    make_engine: MakeEngine, proxy: Proxy, settings: dict[str, int]
) -> None:
    engine = make_engine(pool_size=1, max_overflow=0, **settings)
    await use(engine)
    proxy.cut()
    await eventually(lambda: not proxy.links)
    assert await outcome(engine) == "served"


async def test_a_reconnect_that_a_listener_asks_for_waits_for_the_server(
    make_engine: MakeEngine, proxy: Proxy
) -> None:
    engine = make_engine(pool_size=1, max_overflow=0, pool_timeout=60)
    first = await use(engine)
    unwanted = True

    @event.listens_for(engine.sync_engine, "checkout")
    def refuse(*_: object) -> None:
        nonlocal unwanted
        if unwanted:
            unwanted, proxy.refusing = False, True
            raise DisconnectionError

    again = asyncio.create_task(use(engine))
    await eventually(lambda: pool_of(engine).snapshot().last_open_error is not None)
    proxy.refusing = False
    async with asyncio.timeout(10):
        assert await again != first


async def test_who_waits_in_a_pool_that_is_drained_does_not_wait_for_a_server_that_is_away(
    make_engine: MakeEngine, proxy: Proxy
) -> None:
    engine = make_engine(pool_size=1, max_overflow=0, pool_timeout=60)
    await cut_off(engine, proxy)
    asking = ask(engine, 5)
    await eventually(lambda: pool_of(engine).snapshot().open_failures_total >= 1)
    await pool_of(engine).drain(60)
    answers = await outcomes(asking)
    assert not answers.keys() & {"served", "PoolTimeout"}


async def test_a_password_that_is_refused_after_a_restart_is_told_at_once(
    make_engine: MakeEngine, proxy: Proxy, database_url: str, postgres: PostgresServer
) -> None:
    engine = make_engine(pool_size=1, max_overflow=0, pool_timeout=60)
    await cut_off(engine, proxy)
    asking = ask(engine, 5)
    await eventually(lambda: pool_of(engine).snapshot().open_failures_total >= 1)
    url = make_url(database_url)
    postgres.execute(f"ALTER ROLE {url.username} PASSWORD 'another'")
    try:
        proxy.heal()
        answers = await outcomes(asking)
    finally:
        postgres.execute(f"ALTER ROLE {url.username} PASSWORD '{url.password}'")
    assert answers.total() == 5
    assert not answers.keys() & {"served", "PoolTimeout"}


async def cut_off(engine: AsyncEngine, proxy: Proxy) -> None:
    """Let a pool have been connected, whose server is away now."""
    await use(engine)
    proxy.refusing = True
    proxy.cut()
    await eventually(lambda: not proxy.links)


async def test_a_connect_listener_that_fails_closes_the_connection_and_frees_the_slot(
    make_engine: MakeEngine, database_url: str
) -> None:
    engine = make_engine(pool_size=1, max_overflow=0)
    fail = True

    @event.listens_for(engine.sync_engine, "connect")
    def refuse(*_: object) -> None:
        if fail:
            raise ListenerError

    with counting_backends(database_url) as count:
        with pytest.raises(ListenerError):
            await use(engine)
        assert pool_of(engine).ledger.open == 0
        await eventually(lambda: count.samples > 2 and count.now == 0)
        fail = False
        await use(engine)
        assert count.most <= 1


# A server that is down, or says no, is not hammered.


async def test_a_server_that_is_down_is_asked_seldom_however_many_ask_the_pool(
    make_engine: MakeEngine, proxy: Proxy
) -> None:
    engine = make_engine(pool_size=10, max_overflow=10, pool_timeout=0.2)
    proxy.refusing = True
    answers: Counter[str] = Counter()
    end = monotonic() + 2

    async def ask_again_and_again() -> None:
        while monotonic() < end:
            answers[await outcome(engine)] += 1

    await asyncio.gather(*(ask_again_and_again() for _ in range(50)))
    assert "served" not in answers
    assert answers.total() >= 300
    # The first four at once; then one after another, a quarter of pool_timeout apart or more.
    assert proxy.connects <= 4 + 2 / 0.05


@both_drivers
async def test_a_server_that_refuses_the_password_is_asked_once_and_everybody_told(
    make_engine: MakeEngine, proxy: Proxy, database_url: str
) -> None:
    engine = make_engine(proxy.url(with_parts(database_url, password="wrong")), pool_size=2)
    first = await outcome(engine)
    connects = proxy.connects
    for _ in range(100):
        assert await outcome(engine) == first
    assert await outcomes(ask(engine, 50)) == {first: 50}
    assert proxy.connects == connects
    assert pool_of(engine).snapshot().waiting == 0


async def test_an_error_told_to_many_does_not_grow(
    make_engine: MakeEngine, proxy: Proxy, database_url: str
) -> None:
    engine = make_engine(proxy.url(with_parts(database_url, password="wrong")), pool_size=2)
    depths = []
    for _ in range(50):
        with pytest.raises(DBAPIError) as raised:
            await engine.connect()
        depths.append(len(raised.traceback))
    assert depths[-1] <= depths[0] + 2


# The server is back.


async def test_a_caller_during_the_hold_off_is_served_when_it_ends(
    make_engine: MakeEngine, proxy: Proxy
) -> None:
    engine = make_engine(pool_timeout=0.5)
    proxy.refusing = True
    assert await outcome(engine) not in {"served", "PoolTimeout"}
    proxy.refusing = False
    assert await outcome(engine) == "served"
    assert proxy.connects == 2


async def test_the_pool_recovers_by_itself_when_the_server_is_back(
    make_engine: MakeEngine, proxy: Proxy
) -> None:
    engine = make_engine(pool_size=5, max_overflow=0, pool_timeout=0.2)
    await backends(engine, 5)
    proxy.refusing = True
    proxy.cut()
    await eventually(lambda: not proxy.links)
    for _ in range(3):
        assert (await outcomes(ask(engine, 8)))["served"] == 0
    proxy.heal()
    pool_of(engine)._timeout = 30.0
    assert await outcomes(ask(engine, 8)) == {"served": 8}
    assert len(set(await backends(engine, 5))) == 5
    snapshot = pool_of(engine).snapshot()
    assert (snapshot.checked_in, snapshot.last_open_error) == (5, None)


async def test_the_pool_recovers_when_the_password_is_right_again(
    make_engine: MakeEngine, proxy: Proxy, database_url: str, postgres: PostgresServer
) -> None:
    url = make_url(database_url)
    engine = make_engine()
    postgres.execute(f"ALTER ROLE {url.username} PASSWORD 'another'")
    refused = await outcome(engine)
    assert refused not in {"served", "PoolTimeout"}
    postgres.execute(f"ALTER ROLE {url.username} PASSWORD '{url.password}'")
    for _ in range(100):
        if await outcome(engine) != refused:
            break
        await asyncio.sleep(0.05)
    assert await outcome(engine) == "served"
    assert proxy.connects == 2

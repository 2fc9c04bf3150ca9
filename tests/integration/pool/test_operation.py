"""What an operator can do to a pool in use: resize it, hold it still, and empty it."""

import asyncio
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from tests.adversity.backends import BackendCount
from tests.eventually import eventually
from tests.integration.pool.pools import MakeEngine, backends, pool_of, use
from tests.servers.proxy import Proxy

from penstock import PenstockPool
from penstock.errors import PoolClosed, PoolFull, PoolSuspended, SettingsError


def engine_of(url: str, **settings: Any) -> AsyncEngine:
    return create_async_engine(url, poolclass=PenstockPool, **settings)


async def test_a_larger_pool_serves_those_who_wait(database_url: str) -> None:
    engine = engine_of(database_url, pool_size=1, max_overflow=0)
    done = asyncio.Event()
    tasks = [asyncio.create_task(use(engine, done)) for _ in range(3)]
    await eventually(lambda: pool_of(engine).snapshot().waiting == 2)
    pool_of(engine).resize(pool_size=3)
    await eventually(lambda: pool_of(engine).snapshot().checked_out == 3)
    done.set()
    await asyncio.gather(*tasks)
    assert pool_of(engine).size() == 3
    await engine.dispose()


async def test_a_smaller_pool_closes_the_idle_now_and_the_checked_out_on_return(
    database_url: str,
) -> None:
    engine = engine_of(database_url, pool_size=4, max_overflow=0)
    first, second = asyncio.Event(), asyncio.Event()
    tasks = [asyncio.create_task(use(engine, event)) for event in (first, first, second, second)]
    await eventually(lambda: pool_of(engine).snapshot().checked_out == 4)
    first.set()
    await asyncio.gather(*tasks[:2])
    pool_of(engine).resize(pool_size=1)
    await eventually(lambda: pool_of(engine).ledger.open == 2)
    second.set()
    await asyncio.gather(*tasks)
    await eventually(lambda: pool_of(engine).ledger.open == 1)
    await engine.dispose()


async def test_the_new_size_outlives_dispose(database_url: str) -> None:
    engine = engine_of(database_url, pool_size=1, max_overflow=0)
    pool_of(engine).resize(3, 4)
    await engine.dispose()

    assert (pool_of(engine).size(), pool_of(engine)._max_overflow) == (3, 4)


@pytest.mark.parametrize(("size", "overflow"), [(-1, 0), (1, -2)])
async def test_a_size_that_cannot_be_is_refused(size: int, overflow: int) -> None:
    engine = engine_of("postgresql+asyncpg://host/db")
    with pytest.raises(SettingsError, match="is accepted"):
        pool_of(engine).resize(size, overflow)


async def test_a_suspended_pool_lets_callers_wait_and_serves_them_in_order(
    database_url: str,
) -> None:
    engine = engine_of(database_url, pool_size=1, max_overflow=0)
    await use(engine)
    pool_of(engine).suspend()
    served: list[int] = []

    async def ask(number: int) -> None:
        async with engine.connect():
            served.append(number)

    tasks = [asyncio.create_task(ask(number)) for number in range(5)]
    await eventually(lambda: pool_of(engine).snapshot().waiting == 5)
    assert served == []
    assert pool_of(engine).snapshot().suspended
    pool_of(engine).resume()
    await asyncio.gather(*tasks)

    assert served == [0, 1, 2, 3, 4]
    await engine.dispose()


async def test_who_waits_for_a_suspended_pool_in_vain_is_told_why(database_url: str) -> None:
    engine = engine_of(database_url, pool_timeout=0.1)
    pool_of(engine).suspend()
    with pytest.raises(PoolSuspended, match="suspended"):
        await use(engine)
    await engine.dispose()


async def test_no_more_than_max_waiting_wait(database_url: str) -> None:
    engine = engine_of(database_url, pool_size=1, max_overflow=0, max_waiting=1)
    done = asyncio.Event()
    holder = asyncio.create_task(use(engine, done))
    await eventually(lambda: pool_of(engine).snapshot().checked_out == 1)
    waiter = asyncio.create_task(use(engine))
    await eventually(lambda: pool_of(engine).snapshot().waiting == 1)
    with pytest.raises(PoolFull, match="max_waiting") as refused:
        await use(engine)
    assert refused.value.snapshot is not None
    assert (refused.value.snapshot.checked_out, refused.value.snapshot.waiting) == (1, 1)
    done.set()
    await asyncio.gather(holder, waiter)
    await engine.dispose()


async def test_draining_serves_those_who_wait_and_refuses_those_who_come(
    database_url: str,
) -> None:
    engine = engine_of(database_url, pool_size=1, max_overflow=0)
    done = asyncio.Event()
    holder = asyncio.create_task(use(engine, done))
    await eventually(lambda: pool_of(engine).snapshot().checked_out == 1)
    waiter = asyncio.create_task(use(engine))
    await eventually(lambda: pool_of(engine).snapshot().waiting == 1)
    drain = asyncio.create_task(pool_of(engine).drain(timeout=10))
    await asyncio.sleep(0)
    with pytest.raises(PoolClosed, match="drained"):
        await use(engine)
    done.set()
    await asyncio.gather(holder, waiter, drain)

    assert pool_of(engine).ledger.open == 0
    await engine.dispose()
    await use(engine)  # a disposed engine starts again
    await engine.dispose()


async def test_draining_takes_back_by_force_what_does_not_come_back(
    database_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    engine = engine_of(database_url)
    connection = await engine.connect()
    await connection.execute(text("SELECT 1"))
    await pool_of(engine).drain(timeout=0.1)

    assert pool_of(engine).ledger.open == 0
    assert [message for message in caplog.messages if message.endswith("closed: 1")]
    with pytest.raises(DBAPIError, match="closed"):
        await connection.execute(text("SELECT 1"))
    await connection.close()
    await engine.dispose()


async def test_draining_by_force_does_not_serve_those_who_still_wait(database_url: str) -> None:
    engine = engine_of(database_url, pool_size=1, max_overflow=0)
    never = asyncio.Event()
    holder = asyncio.create_task(use(engine, never))
    await eventually(lambda: pool_of(engine).snapshot().checked_out == 1)
    waiter = asyncio.create_task(use(engine, never))
    await eventually(lambda: pool_of(engine).snapshot().waiting == 1)

    async with asyncio.timeout(10):
        await pool_of(engine).drain(timeout=0.1)
    with pytest.raises(PoolClosed):
        await waiter
    holder.cancel()
    with pytest.raises(asyncio.CancelledError):
        await holder
    await engine.dispose()


@pytest.mark.parametrize("driver", ["asyncpg", "psycopg"], indirect=True)
async def test_draining_by_force_gives_up_what_is_still_being_opened(
    make_engine: MakeEngine, proxy: Proxy
) -> None:
    engine = make_engine(connect_timeout=60)
    proxy.silence(newcomers=True)
    caller = asyncio.create_task(use(engine))
    await eventually(lambda: len(proxy.links) == 1)

    async with asyncio.timeout(30):
        await pool_of(engine).drain(timeout=0.1)
    assert pool_of(engine).ledger.open == 0
    with pytest.raises(PoolClosed):
        await caller
    proxy.heal()
    await eventually(lambda: not proxy.links)


async def test_nothing_is_kept_for_those_who_waited_when_the_engine_was_disposed_of(
    database_url: str, count: BackendCount
) -> None:
    engine = engine_of(database_url, pool_size=2, max_overflow=0)
    done = asyncio.Event()
    old = pool_of(engine)
    held = [asyncio.create_task(use(engine, done)) for _ in range(2)]
    await eventually(lambda: old.snapshot().checked_out == 2)
    waiters = [asyncio.create_task(use(engine)) for _ in range(5)]
    await eventually(lambda: old.snapshot().waiting == 5)
    await engine.dispose()
    done.set()
    await asyncio.gather(*held, *waiters)

    await eventually(lambda: old.ledger.open == 0)
    await eventually(lambda: count.now == 0)


async def test_nothing_is_kept_of_what_is_opened_for_waiters_while_the_engine_is_disposed_of(
    make_engine: MakeEngine, proxy: Proxy
) -> None:
    engine = make_engine(pool_size=3, max_overflow=0)
    old = pool_of(engine)
    await backends(engine, 3)
    proxy.silence()
    disposing = asyncio.create_task(engine.dispose())
    await eventually(lambda: old.snapshot().invalid == 3)
    old.resize(pool_size=4)
    await use(engine)
    assert old.snapshot().checked_in == 1
    proxy.heal()
    await disposing

    await eventually(lambda: old.ledger.open == 0)


async def test_a_suspended_pool_stays_so_through_dispose_and_its_waiters_are_served_by_resume(
    database_url: str,
) -> None:
    engine = engine_of(database_url, pool_size=1, max_overflow=0)
    old = pool_of(engine)
    await use(engine)
    old.suspend()
    before = asyncio.create_task(use(engine))
    await eventually(lambda: old.snapshot().waiting == 1)
    for _ in range(2):
        await engine.dispose()
    after = asyncio.create_task(use(engine))
    await eventually(lambda: pool_of(engine).snapshot().waiting == 1)
    assert pool_of(engine).snapshot().suspended

    pool_of(engine).resume()
    async with asyncio.timeout(20):
        await asyncio.gather(before, after)
    await eventually(lambda: old.ledger.open == 0)
    await engine.dispose()

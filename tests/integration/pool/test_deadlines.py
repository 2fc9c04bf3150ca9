"""Who waits gives up at its own deadline: neither before, nor for what another one waited."""

import asyncio
import gc
import weakref
from collections.abc import Callable
from time import monotonic

import pytest
import uvloop
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from tests.eventually import eventually
from tests.integration.pool.pools import pool_of, use

from penstock import PenstockPool
from penstock.errors import PoolTimeout

TIMEOUT = 0.3

on_both_loops = pytest.mark.parametrize(
    "make_loop", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"]
)
MakeLoop = Callable[[], asyncio.AbstractEventLoop]


async def small_engine(url: str) -> AsyncEngine:
    """Make an engine whose one connection is open."""
    engine = create_async_engine(
        url, poolclass=PenstockPool, pool_size=1, max_overflow=0, pool_timeout=10
    )
    await use(engine)
    pool_of(engine)._timeout = TIMEOUT
    return engine


async def waits(engine: AsyncEngine) -> float:
    """Wait in vain; returns for how many seconds."""
    began = monotonic()
    with pytest.raises(PoolTimeout):
        await use(engine)
    return monotonic() - began


@on_both_loops
def test_all_who_wait_give_up_each_at_its_time(database_url: str, make_loop: MakeLoop) -> None:
    async def wait_one_after_another() -> list[float]:
        engine = await small_engine(database_url)
        async with engine.connect():
            waiting = []
            for _ in range(3):
                waiting.append(asyncio.create_task(waits(engine)))
                await asyncio.sleep(TIMEOUT / 4)
            waited = await asyncio.gather(*waiting)
        await use(engine)
        await engine.dispose()
        return waited

    with asyncio.Runner(loop_factory=make_loop) as runner:
        waited = runner.run(wait_one_after_another())
    assert min(waited) >= TIMEOUT


@on_both_loops
def test_who_comes_after_one_that_was_served_waits_for_as_long(
    database_url: str, make_loop: MakeLoop
) -> None:
    async def wait_after_another() -> float:
        engine = await small_engine(database_url)
        done, again = asyncio.Event(), asyncio.Event()
        holder = asyncio.create_task(use(engine, done))
        await eventually(lambda: pool_of(engine).snapshot().checked_out == 1)
        served = asyncio.create_task(use(engine, again))
        await eventually(lambda: pool_of(engine).snapshot().waiting == 1)
        done.set()
        await holder
        await asyncio.sleep(TIMEOUT / 2)
        waited = await waits(engine)
        again.set()
        await served
        await engine.dispose()
        return waited

    with asyncio.Runner(loop_factory=make_loop) as runner:
        assert runner.run(wait_after_another()) >= TIMEOUT


async def test_a_pool_that_somebody_waited_for_is_not_kept_alive(database_url: str) -> None:
    pool = await _waited_for(database_url)
    gc.collect()
    assert pool() is None


async def _waited_for(url: str) -> "weakref.ref[PenstockPool]":
    engine = await small_engine(url)
    pool_of(engine)._timeout = 600.0
    done = asyncio.Event()
    holder = asyncio.create_task(use(engine, done))
    await eventually(lambda: pool_of(engine).snapshot().checked_out == 1)
    waiter = asyncio.create_task(use(engine))
    await eventually(lambda: pool_of(engine).snapshot().waiting == 1)
    done.set()
    await asyncio.gather(holder, waiter)
    pool = weakref.ref(pool_of(engine))
    await engine.dispose()
    return pool

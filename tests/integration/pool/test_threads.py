"""A pool whose numbers are read, and whose operator calls, in a thread that runs no event loop."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from sqlalchemy.util import greenlet_spawn
from tests.contract.subject import acquire, release
from tests.eventually import eventually
from tests.integration.pool.pools import MakeEngine, ask, outcomes, pool_of, use

from penstock import PenstockPool
from penstock.errors import PoolSuspended

READERS: dict[str, tuple[Callable[[PenstockPool], object], object]] = {
    "snapshot": (lambda pool: pool.snapshot().checked_out, 0),
    "checkedout": (lambda pool: pool.checkedout(), 0),
    "checkedin": (lambda pool: pool.checkedin(), 0),
    "overflow": (lambda pool: pool.overflow(), 0),
    "status": (lambda pool: "Current Checked out connections: 0" in pool.status(), True),
    "queue": (lambda pool: (pool._pool.qsize(), pool._pool.empty(), pool._pool.full()), (0, 1, 0)),
    "not idle": (lambda pool: len(pool.ledger.slots) - len(pool.ledger.idle_slots), 1),
}


def in_thread(work: Callable[[], Any]) -> Any:
    """Do something in another thread, while this one and its event loop stand still."""
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(work).result()


@pytest.mark.parametrize("reader", READERS)
async def test_reading_changes_nothing_between_a_return_and_the_loop_s_next_round(
    make_engine: MakeEngine, reader: str
) -> None:
    asyncio.get_running_loop().set_debug(True)  # which notices what another thread does to it
    engine = make_engine(pool_size=1, max_overflow=0, pool_timeout=5)
    pool, (read, expected) = pool_of(engine), READERS[reader]
    lease = await acquire(engine)
    waiting = ask(engine, 1)
    await eventually(lambda: pool.snapshot().waiting == 1)

    def detach_and_read() -> object:
        lease.detach()
        before = [slot.state for slot in pool.ledger]
        seen = in_thread(lambda: read(pool))
        assert [slot.state for slot in pool.ledger] == before
        return seen

    assert await greenlet_spawn(detach_and_read) == expected
    assert await outcomes(waiting) == {"served": 1}
    assert await use(engine)
    await release(lease)


async def test_the_size_is_set_by_the_loop(make_engine: MakeEngine) -> None:
    asyncio.get_running_loop().set_debug(True)
    engine = make_engine(pool_size=1, max_overflow=0, pool_timeout=5)
    lease = await acquire(engine)
    waiting = ask(engine, 2)
    await eventually(lambda: pool_of(engine).snapshot().waiting == 2)

    in_thread(lambda: pool_of(engine).resize(pool_size=2))

    assert pool_of(engine).size() == 1
    assert await outcomes(waiting) == {"served": 2}
    assert pool_of(engine).size() == 2
    await release(lease)


async def test_checkout_is_suspended_and_resumed_by_the_loop(make_engine: MakeEngine) -> None:
    asyncio.get_running_loop().set_debug(True)
    engine = make_engine(pool_size=1, max_overflow=0, pool_timeout=5)
    await use(engine)

    in_thread(pool_of(engine).suspend)
    await eventually(lambda: pool_of(engine).snapshot().suspended)
    waiting = ask(engine, 2)
    await eventually(lambda: pool_of(engine).snapshot().waiting == 2)
    in_thread(pool_of(engine).resume)

    assert await outcomes(waiting) == {"served": 2}


async def test_without_a_wait_who_is_suspended_is_told_so(make_engine: MakeEngine) -> None:
    engine = make_engine(pool_size=2, max_overflow=0, pool_timeout=0)
    await use(engine)
    pool_of(engine).suspend()

    async with asyncio.timeout(2):
        with pytest.raises(PoolSuspended):
            await acquire(engine)
    pool_of(engine).resume()
    assert await use(engine)

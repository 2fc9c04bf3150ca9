"""The numbers that the pool shows, in SQLAlchemy's terms."""

import asyncio

import pytest
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.pool import AsyncAdaptedQueuePool, QueuePool
from tests.contract.door import Door
from tests.contract.subject import Subject, acquire, invalidate, numbers, pool_of, release
from tests.eventually import eventually


async def test_a_fresh_pool_lacks_all_of_its_connections(subject: Subject) -> None:
    pool = pool_of(subject.engine(pool_size=3, max_overflow=2, pool_timeout=7.5))
    assert (pool.size(), pool.checkedin(), pool.overflow(), pool.checkedout()) == (3, 0, -3, 0)
    assert pool.timeout() == 7.5
    assert pool.status() == (
        "Pool size: 3  Connections in pool: 0 Current Overflow: -3 "
        "Current Checked out connections: 0"
    )


async def test_the_numbers_that_others_read_from_inside_are_there(subject: Subject) -> None:
    engine = subject.engine(pool_size=3, max_overflow=2, pool_timeout=7.5)
    pool = pool_of(engine)
    assert (pool._pool.maxsize, pool._pool.qsize(), pool._overflow) == (3, 0, -3)
    assert (pool._max_overflow, pool._timeout) == (2, 7.5)
    leases = [await acquire(engine) for _ in range(2)]
    await release(leases[0])
    assert (pool._pool.maxsize, pool._pool.qsize(), pool._overflow) == (3, 1, -1)
    await release(leases[1])


async def test_the_settings_can_be_read_back(subject: Subject) -> None:
    pool = pool_of(subject.engine(pool_recycle=900, pool_pre_ping=True, pool_use_lifo=True))
    assert (pool.size(), pool._max_overflow, pool.timeout()) == (5, 10, 30.0)
    assert (pool._recycle, pool._pre_ping, pool._pool.use_lifo) == (900, True, True)


async def test_it_is_a_queue_pool_to_whom_asks(subject: Subject) -> None:
    engine = subject.engine()
    assert isinstance(engine.pool, subject.poolclass)
    assert isinstance(engine.pool, AsyncAdaptedQueuePool)
    assert isinstance(engine.pool, QueuePool)
    assert engine.pool._is_asyncio
    assert engine.sync_engine.pool is engine.pool


@pytest.mark.every_driver
async def test_the_numbers_follow_the_leases(subject: Subject) -> None:
    engine = subject.engine(pool_size=2, max_overflow=0)
    assert numbers(engine) == (2, 0, -2, 0)
    one = await acquire(engine)
    assert numbers(engine) == (2, 0, -1, 1)
    two = await acquire(engine)
    assert numbers(engine) == (2, 0, 0, 2)
    await release(one)
    assert numbers(engine) == (2, 1, 0, 1)
    await release(two)
    assert numbers(engine) == (2, 2, 0, 0)
    one = await acquire(engine)
    assert numbers(engine) == (2, 1, 0, 1)
    await release(one)
    assert pool_of(engine).status() == (
        "Pool size: 2  Connections in pool: 2 Current Overflow: 0 Current Checked out "
        "connections: 0"
    )


@pytest.mark.parametrize("max_overflow", [-1, 3])
async def test_the_numbers_follow_the_leases_above_the_size(
    subject: Subject, max_overflow: int
) -> None:
    engine = subject.engine(pool_size=3, max_overflow=max_overflow)
    leases, seen = [], []
    for _ in range(6):
        leases.append(await acquire(engine))
        seen.append(numbers(engine))
    assert seen == [(3, 0, checked_out - 3, checked_out) for checked_out in range(1, 7)]
    await release(*leases[:3])
    assert numbers(engine) == (3, 3, 3, 3)
    await release(*leases[3:])
    assert pool_of(engine).checkedout() == 0


async def test_who_waits_is_not_counted_as_a_holder(subject: Subject) -> None:
    engine = subject.engine(pool_size=1, max_overflow=0, pool_timeout=0.5)
    lease = await acquire(engine)
    waiters = [asyncio.create_task(acquire(engine)) for _ in range(3)]
    await asyncio.sleep(0.01)
    assert numbers(engine) == (1, 0, 0, 1)
    outcomes = await asyncio.gather(*waiters, return_exceptions=True)
    assert all(isinstance(outcome, PoolTimeoutError) for outcome in outcomes)
    assert numbers(engine) == (1, 0, 0, 1)
    await release(lease)
    assert numbers(engine) == (1, 1, 0, 0)


async def test_a_connect_under_way_takes_its_slot(subject: Subject) -> None:
    engine = subject.engine(pool_size=1, max_overflow=1)
    door = Door(engine)
    lease = await acquire(engine)
    door.shut()
    task = asyncio.create_task(acquire(engine))
    await eventually(lambda: door.arrivals == 2)
    assert pool_of(engine)._overflow == 1
    door.open()
    await release(lease, await task)


@pytest.mark.every_driver
async def test_an_invalidated_connection_gives_its_slot_back(subject: Subject) -> None:
    engine = subject.engine(pool_size=1, max_overflow=1, pool_timeout=5)
    one, two = await acquire(engine), await acquire(engine)
    await invalidate(one)
    await eventually(lambda: pool_of(engine).checkedout() == 1)
    await invalidate(two)
    await eventually(lambda: pool_of(engine).checkedout() == 0)
    leases = [await acquire(engine), await acquire(engine)]
    assert numbers(engine) == (1, 0, 1, 2)
    await release(*leases)
    assert pool_of(engine).checkedout() == 0

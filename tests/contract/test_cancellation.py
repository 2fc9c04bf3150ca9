"""A holder cancelled at any of its waits costs no slot, and the next one is served."""

import asyncio
import random

import pytest
from sqlalchemy import event, text
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlalchemy.util import await_
from tests.contract.door import Door
from tests.contract.subject import Subject, acquire, ask, checked_out, pool_of, release
from tests.eventually import eventually


async def is_whole(engine: AsyncEngine, size: int = 1) -> None:
    """Assert that nothing is checked out, and that all of ``size`` connections can be at once."""
    await eventually(lambda: pool_of(engine).checkedout() == 0)
    leases = [await acquire(engine) for _ in range(size)]
    assert [await ask(lease, "SELECT 1") for lease in leases] == [1] * size
    assert pool_of(engine).checkedout() == size
    await release(*leases)
    assert pool_of(engine).checkedout() == 0


async def cancelled(task: asyncio.Task[object]) -> None:
    """Cancel a task and assert that it ends so."""
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def use(engine: AsyncEngine, statement: str = "SELECT 1") -> None:
    """Do what a request does."""
    async with engine.connect() as connection:
        await connection.execute(text(statement))
        await connection.commit()


@pytest.mark.every_driver
async def test_while_it_waits(subject: Subject) -> None:
    engine = subject.engine(pool_size=1, max_overflow=0, pool_timeout=5)
    door = Door(engine)
    async with checked_out(engine):
        task = asyncio.create_task(use(engine))
        await asyncio.sleep(0.01)
        await cancelled(task)
        assert pool_of(engine).checkedout() == 1
    await is_whole(engine)
    assert door.arrivals == 1


@pytest.mark.every_driver
async def test_while_it_waits_in_the_midst_of_others(subject: Subject) -> None:
    engine = subject.engine(pool_size=1, max_overflow=0, pool_timeout=5)
    async with checked_out(engine):
        tasks = [asyncio.create_task(use(engine)) for _ in range(7)]
        await asyncio.sleep(0.01)
        for task in tasks[::2]:
            await cancelled(task)
    await asyncio.gather(*tasks[1::2])
    await is_whole(engine)


@pytest.mark.parametrize("turns", range(6))
async def test_while_a_connection_is_being_handed_over(subject: Subject, turns: int) -> None:
    engine = subject.engine(pool_size=1, max_overflow=0, pool_timeout=5)
    lease = await acquire(engine)
    tasks = [asyncio.create_task(use(engine)) for _ in range(2)]
    await asyncio.sleep(0.01)
    await release(lease)
    for _ in range(turns):
        await asyncio.sleep(0)
    tasks[0].cancel()
    outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    assert outcomes[1] is None
    await is_whole(engine)


@pytest.mark.every_driver
async def test_while_it_connects(subject: Subject) -> None:
    engine = subject.engine(pool_size=1, max_overflow=0, pool_timeout=5)
    door = Door(engine)
    door.shut(1)
    task = asyncio.create_task(use(engine))
    await eventually(lambda: door.arrivals == 1)
    await cancelled(task)
    door.open()
    await is_whole(engine)


@pytest.mark.differs("waiters of a failed connect", only="ours")
async def test_while_it_connects_and_another_waits(subject: Subject) -> None:
    engine = subject.engine(pool_size=1, max_overflow=0, pool_timeout=5)
    door = Door(engine)
    door.shut(1)
    first = asyncio.create_task(use(engine))
    await eventually(lambda: door.arrivals == 1)
    second = asyncio.create_task(use(engine))
    await asyncio.sleep(0.01)
    await cancelled(first)
    door.open()
    await second
    await is_whole(engine)


@pytest.mark.every_driver
async def test_while_a_listener_sets_a_connection_up(subject: Subject) -> None:
    engine = subject.engine(pool_size=1, max_overflow=0, pool_timeout=5)
    set_up, arrived = asyncio.Event(), asyncio.Event()

    @event.listens_for(engine.sync_engine, "connect")
    def take_time(*_: object) -> None:
        arrived.set()
        await_(set_up.wait())

    task = asyncio.create_task(use(engine))
    await arrived.wait()
    await cancelled(task)
    set_up.set()
    await is_whole(engine)


@pytest.mark.parametrize("name", ["checkout", "reset", "checkin"])
async def test_while_a_listener_takes_its_time(subject: Subject, name: str) -> None:
    engine = subject.engine(pool_size=1, max_overflow=0, pool_timeout=5)
    go_on, arrived = asyncio.Event(), asyncio.Event()

    @event.listens_for(engine.sync_engine, name)
    def take_time(*_: object) -> None:
        arrived.set()
        await_(go_on.wait())

    task = asyncio.create_task(use(engine))
    await arrived.wait()
    task.cancel()
    await asyncio.sleep(0)
    go_on.set()
    await asyncio.gather(task, return_exceptions=True)
    await is_whole(engine)


@pytest.mark.every_driver
async def test_while_it_queries(subject: Subject) -> None:
    engine = subject.engine(pool_size=1, max_overflow=0, pool_timeout=9)
    under_way = asyncio.Event()

    @event.listens_for(engine.sync_engine, "before_cursor_execute")
    def note(*_: object) -> None:
        under_way.set()

    task = asyncio.create_task(use(engine, subject.nap))
    await under_way.wait()
    await asyncio.sleep(0.02)
    await cancelled(task)
    await is_whole(engine)


@pytest.mark.every_driver
async def test_by_a_timeout_around_a_query(subject: Subject) -> None:
    engine = subject.engine(pool_size=1, max_overflow=0, pool_timeout=9)
    await is_whole(engine)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.03):
            await use(engine, subject.nap)
    await is_whole(engine)


async def test_by_a_timeout_around_the_wait_for_the_pool(subject: Subject) -> None:
    engine = subject.engine(pool_size=1, max_overflow=0, pool_timeout=5)
    async with checked_out(engine):
        waiter = asyncio.create_task(asyncio.wait_for(use(engine), 0.02))
        with pytest.raises(TimeoutError):
            await waiter
    await is_whole(engine)


@pytest.mark.every_driver
async def test_at_random(subject: Subject) -> None:
    engine = subject.engine(pool_size=2, max_overflow=1, pool_timeout=9)
    dice = random.Random(20)
    for _ in range(8):
        tasks = [asyncio.create_task(use(engine)) for _ in range(8)]
        for task in tasks:
            await asyncio.sleep(dice.random() * 0.002)
            if dice.random() < 0.5:
                task.cancel()
        outcomes = await asyncio.gather(*tasks, return_exceptions=True)
        assert {type(outcome) for outcome in outcomes} <= {type(None), asyncio.CancelledError}
    await is_whole(engine, 3)

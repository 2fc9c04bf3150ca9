"""``dispose`` and ``recreate``: what is closed, what is kept, and what begins anew."""

import asyncio
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event, text
from sqlalchemy.exc import InvalidRequestError
from sqlalchemy.util import greenlet_spawn
from tests.contract.door import Door
from tests.contract.journal import Journal
from tests.contract.subject import Subject, acquire, ask, checked_out, numbers, pool_of, release
from tests.eventually import eventually


@pytest.mark.every_driver
async def test_dispose_closes_what_is_idle_and_begins_anew(subject: Subject) -> None:
    engine = subject.engine(pool_size=2, max_overflow=1)
    journal = Journal(engine)
    leases = [await acquire(engine), await acquire(engine)]
    drivers = [lease.driver_connection for lease in leases]
    await release(*leases)
    old = engine.pool

    await engine.dispose()
    assert all(subject.is_closed(driver) for driver in drivers)
    assert (journal.count("close"), journal.count("invalidate")) == (2, 0)
    assert engine.pool is not old
    assert type(engine.pool) is subject.poolclass
    assert numbers(engine) == (2, 0, -2, 0)

    async with checked_out(engine) as lease:
        assert await ask(lease, "SELECT 1") == 1
        assert numbers(engine) == (2, 0, -1, 1)
    assert journal.count("connect") == 3


async def test_listeners_stay_through_dispose(subject: Subject) -> None:
    engine = subject.engine()
    journal = Journal(engine)
    for _ in range(3):
        async with checked_out(engine):
            pass
        await engine.dispose()
    for name in ("first_connect", "connect", "checkout", "reset", "checkin", "close"):
        assert journal.count(name) == 3


async def test_recreate_keeps_every_argument(subject: Subject) -> None:
    engine = subject.engine(
        pool_size=8,
        max_overflow=3,
        pool_timeout=25,
        pool_use_lifo=True,
        pool_recycle=35,
        pool_pre_ping=True,
        pool_reset_on_return="commit",
        pool_logging_name="kept",
        echo_pool=True,
    )
    old = pool_of(engine)
    old.logger.logger.handlers.clear()  # type: ignore[union-attr]  # echo put its own there
    new = old.recreate()
    assert isinstance(new, subject.poolclass)
    names = (
        *("_max_overflow", "_timeout", "_recycle", "_pre_ping", "_reset_on_return", "echo"),
        *("logging_name", "_dialect", "_creator", "_overflow"),
    )
    assert {name: getattr(new, name) for name in names} == {
        name: getattr(old, name) for name in names
    }
    assert (new.size(), new._pool.use_lifo, new.timeout()) == (8, True, 25)


async def test_recreate_opens_nothing(subject: Subject) -> None:
    engine = subject.engine()
    door = Door(engine)
    async with checked_out(engine):
        pass
    pool = pool_of(engine).recreate()
    assert (pool.checkedin(), pool.checkedout(), door.arrivals) == (0, 0, 1)


async def test_recreate_leaves_the_original_alone(subject: Subject) -> None:
    engine = subject.engine(pool_size=1, max_overflow=1)
    door = Door(engine)
    copy = pool_of(engine).recreate()
    for _ in range(3):
        async with checked_out(engine):
            pass
    lease = await greenlet_spawn(copy.connect)
    await release(lease)
    assert (pool_of(engine).checkedin(), copy.checkedin(), door.arrivals) == (1, 1, 2)
    await greenlet_spawn(copy.dispose)


@pytest.mark.every_driver
async def test_dispose_without_close_leaves_the_connections_alone(subject: Subject) -> None:
    engine = subject.engine(pool_size=2)
    journal = Journal(engine)
    async with checked_out(engine) as lease:
        driver, connection = lease.driver_connection, lease.dbapi_connection
    old = engine.pool
    await engine.dispose(close=False)
    assert engine.pool is not old
    assert numbers(engine) == (2, 0, -2, 0)
    assert journal.count("close") == 0
    assert not subject.is_closed(driver)
    async with checked_out(engine) as lease:
        assert lease.dbapi_connection is not connection

    await greenlet_spawn(old.dispose)
    assert journal.connections("close") == [connection]
    await eventually(lambda: subject.is_closed(driver))


@pytest.mark.every_driver
async def test_a_lease_outlives_dispose_and_never_enters_the_new_pool(subject: Subject) -> None:
    engine = subject.engine(pool_size=2, max_overflow=0)
    old = engine.pool
    async with engine.connect() as connection:
        kept = (await connection.get_raw_connection()).dbapi_connection
        await engine.dispose()
        assert (await connection.execute(text("SELECT 1"))).scalar() == 1
        async with checked_out(engine) as lease:
            assert lease.dbapi_connection is not kept
        assert numbers(engine) == (2, 1, -1, 0)
    assert numbers(engine) == (2, 1, -1, 0)
    async with checked_out(engine) as one, checked_out(engine) as two:
        assert kept not in {one.dbapi_connection, two.dbapi_connection}
    await greenlet_spawn(old.dispose)


@pytest.mark.differs("checked out at dispose", only="stock")
async def test_a_connection_checked_out_at_dispose_goes_back_into_the_old_pool(
    subject: Subject,
) -> None:
    engine = subject.engine()
    old = pool_of(engine)
    async with checked_out(engine) as lease:
        driver = lease.driver_connection
        await engine.dispose()
    assert not subject.is_closed(driver)
    assert old.checkedin() == 1
    await greenlet_spawn(old.dispose)


@pytest.mark.differs("checked out at dispose", only="ours")
async def test_a_connection_checked_out_at_dispose_is_closed_on_its_return(
    subject: Subject,
) -> None:
    engine = subject.engine()
    journal = Journal(engine)
    old = pool_of(engine)
    async with checked_out(engine) as lease:
        driver, connection = lease.driver_connection, lease.dbapi_connection
        await engine.dispose()
        assert journal.count("close") == 0
    await eventually(lambda: subject.is_closed(driver))
    await eventually(lambda: old.checkedout() == 0)
    assert journal.connections("close") == [connection]
    assert old.checkedin() == 0


async def test_whoever_waits_at_dispose_is_answered(subject: Subject) -> None:
    engine = subject.engine(pool_size=1, max_overflow=0, pool_timeout=10)
    old = engine.pool
    lease = await acquire(engine)
    waiter = asyncio.create_task(acquire(engine))
    await asyncio.sleep(0.02)
    await engine.dispose()
    await release(lease)
    async with asyncio.timeout(5):
        try:
            await release(await waiter)
        except InvalidRequestError as error:
            # A pool may as well say that it is closed.
            assert "clos" in str(error)  # noqa: PT017 - both outcomes keep the promise
    async with checked_out(engine) as lease:
        assert await ask(lease, "SELECT 1") == 1
    await greenlet_spawn(old.dispose)


async def test_a_connect_under_way_at_dispose_does_not_end_in_the_new_pool(
    subject: Subject,
) -> None:
    engine = subject.engine(pool_size=1, max_overflow=0, pool_timeout=10)
    door, opened = Door(engine), list[Any]()
    event.listen(engine.sync_engine, "connect", lambda connection, *_: opened.append(connection))
    old = engine.pool
    door.shut(1)
    caller = asyncio.create_task(acquire(engine))
    await eventually(lambda: door.arrivals == 1)
    await engine.dispose()
    async with checked_out(engine) as lease:
        assert await ask(lease, "SELECT 1") == 1
        fresh = lease.dbapi_connection
    door.open()
    try:
        await release(await caller)
    except InvalidRequestError as error:
        assert "clos" in str(error)  # noqa: PT017 - both outcomes keep the promise
    async with checked_out(engine) as lease:
        assert lease.dbapi_connection is fresh
    await greenlet_spawn(old.dispose)
    assert numbers(engine) == (1, 1, 0, 0)


async def test_dispose_is_harmless_on_a_fresh_pool_and_when_repeated(subject: Subject) -> None:
    engine = subject.engine()
    await engine.dispose()
    await engine.dispose()
    async with checked_out(engine) as lease:
        assert await ask(lease, "SELECT 1") == 1
    await engine.dispose()
    await engine.dispose()
    assert pool_of(engine).checkedout() == 0


async def test_a_disposed_pool_can_be_asked_again(subject: Subject) -> None:
    engine = subject.engine(pool_size=1, max_overflow=0, pool_timeout=5)
    journal = Journal(engine)
    async with checked_out(engine):
        pass
    await greenlet_spawn(engine.pool.dispose)
    assert numbers(engine) == (1, 0, -1, 0)
    async with checked_out(engine) as lease:
        assert await ask(lease, "SELECT 1") == 1
    assert numbers(engine) == (1, 1, 0, 0)
    assert journal.count("close") == 1


def test_after_dispose_the_engine_serves_another_event_loop(subject: Subject) -> None:
    engine = subject.engine(pool_size=1, max_overflow=0, pool_timeout=5)

    async def use() -> object:
        async with engine.connect() as connection:
            answer = (await connection.execute(text("SELECT 1"))).scalar()
        await engine.dispose()
        return answer

    assert [asyncio.run(use()), asyncio.run(use())] == [1, 1]


def test_an_engine_can_be_made_where_no_event_loop_runs(subject: Subject, tmp_path: Path) -> None:
    engine = subject.engine(pool_size=2)
    assert numbers(engine) == (2, 0, -2, 0)
    assert "Pool size: 2" in engine.pool.status()

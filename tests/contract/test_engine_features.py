"""What SQLAlchemy builds upon the pool works as it does on its own."""

import asyncio
from typing import Any

import pytest
from sqlalchemy import make_url, text
from sqlalchemy.ext.asyncio import (
    AsyncEngine,
    AsyncSession,
    async_engine_from_config,
    create_async_engine,
)
from sqlalchemy.util import await_, greenlet_spawn
from tests.contract.door import Door
from tests.contract.subject import Subject, acquire, ask, checked_out, numbers, pool_of, release
from tests.eventually import eventually


@pytest.mark.every_driver
async def test_a_connection_of_the_pool_itself_works_and_returns(subject: Subject) -> None:
    engine = subject.engine(pool_size=1, max_overflow=0)
    lease = await acquire(engine)
    assert (lease.is_valid, lease.is_detached) == (True, False)
    assert await ask(lease, "SELECT 1") == 1
    assert lease.driver_connection is not lease.dbapi_connection
    await release(lease)
    assert not lease.is_valid
    assert pool_of(engine).checkedout() == 0


async def test_a_connection_of_the_pool_itself_is_a_context_manager(subject: Subject) -> None:
    engine = subject.engine(pool_size=1, max_overflow=0)

    def use() -> Any:
        with engine.pool.connect() as lease:
            assert pool_of(engine).checkedout() == 1
            cursor = lease.cursor()
            cursor.execute("SELECT 1")
            return cursor.fetchall()

    assert [tuple(row) for row in await greenlet_spawn(use)] == [(1,)]
    assert pool_of(engine).checkedout() == 0


async def test_connect_on_the_pool_works_inside_run_sync(subject: Subject) -> None:
    engine = subject.engine(pool_size=2, max_overflow=0)

    def use(_: object) -> None:
        engine.pool.connect().close()

    async with engine.connect() as connection:
        await connection.run_sync(use)
        assert numbers(engine) == (2, 1, 0, 1)


@pytest.mark.every_driver
async def test_raw_connections_share_the_pool(subject: Subject) -> None:
    engine = subject.engine(pool_size=1, max_overflow=0)
    raw = await engine.raw_connection()
    connection = raw.dbapi_connection
    await release(raw)
    async with engine.connect() as other:
        assert (await other.get_raw_connection()).dbapi_connection is connection
        assert pool_of(engine).checkedout() == 1
    assert pool_of(engine).checkedout() == 0


@pytest.mark.every_driver
async def test_a_raw_connection_is_the_one_that_runs_the_statements(subject: Subject) -> None:
    engine = subject.engine(pool_size=1, max_overflow=0)
    async with engine.connect() as connection:
        raw = await connection.get_raw_connection()
        assert (await connection.get_raw_connection()) is raw
        assert raw.driver_connection is not None
        await connection.execute(text("SELECT 1"))
        await connection.commit()
        assert (await connection.get_raw_connection()) is raw
    assert not raw.is_valid


@pytest.mark.every_driver
async def test_a_stream_holds_its_connection_until_its_end(subject: Subject) -> None:
    engine = subject.engine(pool_size=1, max_overflow=0)
    rows = "SELECT 1 AS n UNION ALL SELECT 2 UNION ALL SELECT 3 ORDER BY 1"
    async with engine.connect() as connection:
        async with connection.stream(text(rows)) as result:
            assert [row.n async for row in result] == [1, 2, 3]
        assert pool_of(engine).checkedout() == 1
    assert pool_of(engine).checkedout() == 0


@pytest.mark.every_driver
async def test_a_stream_left_in_the_middle_spoils_nothing(subject: Subject) -> None:
    engine = subject.engine(pool_size=1, max_overflow=0, pool_timeout=5)
    rows = "SELECT 1 AS n UNION ALL SELECT 2 UNION ALL SELECT 3"
    async with engine.connect() as connection, connection.stream(text(rows)) as result:
        async for row in result:
            assert row.n in {1, 2, 3}
            break
    async with engine.connect() as connection:
        assert (await connection.execute(text("SELECT 1"))).scalar() == 1
    assert pool_of(engine).checkedout() == 0


@pytest.mark.every_driver
async def test_a_session_checks_out_at_its_first_statement_and_returns_at_its_end(
    subject: Subject,
) -> None:
    engine = subject.engine(pool_size=1, max_overflow=0)
    async with AsyncSession(engine) as session:
        assert pool_of(engine).checkedout() == 0
        assert await session.scalar(text("SELECT 1")) == 1
        assert pool_of(engine).checkedout() == 1
        await session.commit()
        assert pool_of(engine).checkedout() == 0
        assert await session.scalar(text("SELECT 2")) == 2
    assert pool_of(engine).checkedout() == 0


async def test_savepoints_stay_on_their_connection(subject: Subject) -> None:
    engine = subject.engine(pool_size=1, max_overflow=0)
    async with engine.begin() as connection:
        raw = await connection.get_raw_connection()
        async with connection.begin_nested() as savepoint:
            await connection.execute(text("SELECT 1"))
            await savepoint.rollback()
        assert (await connection.get_raw_connection()) is raw
    assert pool_of(engine).checkedout() == 0


async def test_a_connection_can_be_opened_by_a_function_of_ones_own(subject: Subject) -> None:
    inner = subject.engine()
    arguments, options = inner.dialect.create_connect_args(make_url(subject.url))
    opened: list[Any] = []
    dbapi: Any = inner.dialect.loaded_dbapi

    async def open_one() -> Any:
        connection = await dbapi.driver.connect(*arguments, **options)
        opened.append(connection)
        return connection

    engine = subject.engine(async_creator=open_one, pool_size=1, max_overflow=0)
    async with checked_out(engine) as lease:
        assert lease.driver_connection is opened[0]
        assert await ask(lease, "SELECT 1") == 1
    assert len(opened) == 1


def engine_on(subject: Subject, pool: Any) -> AsyncEngine:
    return create_async_engine(subject.url, pool=pool)


@pytest.mark.every_driver
async def test_a_pool_can_be_made_without_an_engine(subject: Subject) -> None:
    inner = subject.engine()
    arguments, options = inner.dialect.create_connect_args(make_url(subject.url))
    pool = subject.poolclass(
        lambda: inner.dialect.connect(*arguments, **options),
        pool_size=1,
        max_overflow=1,
        timeout=5,
        dialect=inner.dialect,
    )
    one, two = await greenlet_spawn(pool.connect), await greenlet_spawn(pool.connect)
    assert await ask(one, "SELECT 1") == await ask(two, "SELECT 1") == 1
    assert pool.checkedout() == 2
    await release(one, two)
    assert pool.checkedout() == 0

    engine = engine_on(subject, pool)
    assert engine.pool is pool
    async with engine.connect() as connection:
        assert (await connection.execute(text("SELECT 1"))).scalar() == 1
    await engine.dispose()
    assert type(engine.pool) is subject.poolclass


async def test_an_engine_can_be_made_from_a_configuration(subject: Subject) -> None:
    configuration = {
        "database.url": subject.url,
        "database.pool_size": "2",
        "database.max_overflow": "1",
        "database.pool_timeout": "3",
        "database.pool_recycle": "60",
    }
    engine = async_engine_from_config(
        configuration, prefix="database.", poolclass=subject.poolclass
    )
    pool = pool_of(engine)
    assert (pool.size(), pool._max_overflow, pool.timeout(), pool._recycle) == (2, 1, 3, 60)
    async with checked_out(engine) as lease:
        assert await ask(lease, "SELECT 1") == 1
    await engine.dispose()


async def test_two_engines_have_two_pools(subject: Subject) -> None:
    one = subject.engine(pool_size=1, max_overflow=0, pool_timeout=5)
    other = subject.engine(pool_size=1, max_overflow=0, pool_timeout=5)
    async with checked_out(one), checked_out(other):
        assert (pool_of(one).checkedout(), pool_of(other).checkedout()) == (1, 1)
    await one.dispose()
    assert (numbers(one), numbers(other)) == ((1, 0, -1, 0), (1, 1, 0, 0))


async def test_many_tasks_at_once_leave_the_numbers_right(subject: Subject) -> None:
    engine = subject.engine(pool_size=3, max_overflow=2, pool_timeout=10)
    door = Door(engine)

    async def select_one() -> Any:
        async with engine.begin() as connection:
            return (await connection.execute(text("SELECT 1"))).scalar()

    assert await asyncio.gather(*(select_one() for _ in range(50))) == [1] * 50
    assert pool_of(engine).checkedout() == 0
    assert door.arrivals >= 5
    await eventually(lambda: pool_of(engine).checkedin() >= 3)


async def test_awaiting_inside_a_transaction_keeps_the_lease(subject: Subject) -> None:
    engine = subject.engine(pool_size=1, max_overflow=0, pool_timeout=5)

    def work(connection: Any) -> Any:
        before = connection.connection.dbapi_connection
        await_(asyncio.sleep(0.001))
        connection.execute(text("SELECT 1"))
        return connection.connection.dbapi_connection is before

    async with engine.begin() as connection:
        assert await connection.run_sync(work)

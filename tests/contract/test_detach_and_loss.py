"""Connections that leave the pool: detached by their holder, or lost to the garbage collector."""

import asyncio
import gc
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from sqlalchemy import PoolResetState, text
from sqlalchemy.exc import ResourceClosedError, SAWarning
from sqlalchemy.util import greenlet_spawn
from tests.contract.door import Door
from tests.contract.journal import Journal
from tests.contract.subject import Subject, acquire, ask, checked_out, numbers, pool_of, release
from tests.eventually import eventually

# SQLAlchemy's own code closes a detached connection only where the dialect can terminate one,
# which psycopg's cannot: there it stays open until it is garbage, in either pool.
TERMINABLE = ("asyncpg", "asyncmy", "aiomysql", "aiosqlite")


@contextmanager
def heard() -> Iterator[list[str]]:
    """Collect what SQLAlchemy warns of; drivers may add their own about lost connections."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        messages: list[str] = []
        yield messages
        gc.collect()
        messages += [str(one.message) for one in caught if issubclass(one.category, SAWarning)]


@pytest.mark.every_driver
async def test_a_detached_connection_leaves_its_slot_to_another(subject: Subject) -> None:
    engine = subject.engine(pool_size=1, max_overflow=0, pool_timeout=5)
    detached = await acquire(engine)
    connection = detached.dbapi_connection
    detached.detach()
    assert (detached.is_detached, detached.is_valid) == (True, True)
    assert pool_of(engine).checkedout() == 0
    async with checked_out(engine) as lease:
        assert lease.dbapi_connection is not connection
        assert await ask(lease, "SELECT 1") == await ask(detached, "SELECT 1") == 1
    assert numbers(engine) == (1, 1, 0, 0)
    assert connection is not None
    await greenlet_spawn(engine.dialect.do_close, connection)


@pytest.mark.drivers(*TERMINABLE)
async def test_a_detached_connection_is_reset_and_closed_by_its_holder(
    subject: Subject,
) -> None:
    engine = subject.engine(pool_size=1, max_overflow=0, pool_timeout=5)
    journal = Journal(engine)
    detached = await acquire(engine)
    connection, driver = detached.dbapi_connection, detached.driver_connection
    detached.detach()
    journal.clear()
    await release(detached)
    assert journal.names == ["reset", "close_detached"]
    assert journal.connections("close_detached") == [connection]
    await eventually(lambda: subject.is_closed(driver))
    async with checked_out(engine) as lease:
        assert lease.dbapi_connection is not connection
    assert numbers(engine) == (1, 1, 0, 0)


@pytest.mark.drivers(*TERMINABLE)
async def test_detach_tells_of_the_connection_and_the_record_it_left(subject: Subject) -> None:
    engine = subject.engine()
    journal = Journal(engine)
    async with engine.connect() as connection:
        dbapi = (await connection.get_raw_connection()).dbapi_connection
        await connection.run_sync(lambda sync: sync.detach())
        (entry,) = journal.of("detach")
        record = journal.of("checkout")[0].rest[0]
        assert (entry.connection, entry.rest) == (dbapi, (record,))
        assert record.dbapi_connection is None
        assert (await connection.execute(text("SELECT 1"))).scalar() == 1
    assert journal.names[-1] == "close_detached"
    assert "checkin" not in journal.names
    assert pool_of(engine).checkedout() == 0


async def test_a_waiter_gets_the_slot_of_a_detached_connection(subject: Subject) -> None:
    engine = subject.engine(pool_size=1, max_overflow=0, pool_timeout=5)
    detached = await acquire(engine)
    waiter = asyncio.create_task(acquire(engine))
    await asyncio.sleep(0.02)
    detached.detach()
    lease = await waiter
    assert lease.dbapi_connection is not detached.dbapi_connection
    await release(lease, detached)


async def test_a_detached_connection_outlives_dispose(subject: Subject) -> None:
    engine = subject.engine()
    detached = await acquire(engine)
    detached.detach()
    await engine.dispose()
    assert await ask(detached, "SELECT 1") == 1
    await release(detached)


async def test_a_closed_connection_cannot_be_detached(subject: Subject) -> None:
    engine = subject.engine()
    async with engine.connect() as connection:
        sync = connection.sync_connection
    assert sync is not None
    with pytest.raises(ResourceClosedError):
        sync.detach()


@pytest.mark.every_driver
async def test_a_lost_lease_is_warned_of_and_its_slot_is_free(subject: Subject) -> None:
    engine = subject.engine(pool_size=1, max_overflow=0, pool_timeout=5)
    door = Door(engine)
    lease = await acquire(engine)
    connection = repr(lease.dbapi_connection)
    with heard() as messages:
        del lease
        gc.collect()
        await eventually(lambda: pool_of(engine).checkedout() == 0)
    (message,) = messages
    assert "garbage collector is trying to clean up" in message
    assert connection in message
    async with checked_out(engine) as lease:
        assert await ask(lease, "SELECT 1") == 1
    assert door.arrivals == 2


@pytest.mark.every_driver
async def test_a_lost_lease_is_reset_without_the_server_detached_and_closed(
    subject: Subject,
) -> None:
    engine = subject.engine(pool_size=1, max_overflow=0, pool_timeout=5)
    journal = Journal(engine)
    lease = await acquire(engine)
    journal.clear()
    with heard():
        del lease
        gc.collect()
        await eventually(lambda: pool_of(engine).checkedout() == 0)
        names, (state,) = journal.names, [entry.rest[1] for entry in journal.of("reset")]
        journal.clear()
    closed = ["close_detached"] if engine.dialect.has_terminate else []
    assert names == ["reset", "detach", *closed]
    assert state == PoolResetState(
        transaction_was_reset=False, terminate_only=True, asyncio_safe=False
    )


@pytest.mark.every_driver
async def test_a_forgotten_connection_of_the_engine_is_a_lost_lease(subject: Subject) -> None:
    engine = subject.engine(pool_size=1, max_overflow=0, pool_timeout=5)

    async def forget() -> None:
        connection = await engine.connect()
        await connection.execute(text("SELECT 1"))

    with heard() as messages:
        await forget()
        gc.collect()
        await eventually(lambda: pool_of(engine).checkedout() == 0)
    assert len(messages) == 1
    async with engine.connect() as connection:
        assert (await connection.execute(text("SELECT 1"))).scalar() == 1


@pytest.mark.drivers("asyncpg", "psycopg", "aiosqlite")
async def test_a_waiter_gets_the_slot_of_a_lost_lease(subject: Subject) -> None:
    engine = subject.engine(pool_size=1, max_overflow=0, pool_timeout=5)
    lease = await acquire(engine)
    waiter = asyncio.create_task(acquire(engine))
    await asyncio.sleep(0.02)
    assert not waiter.done()
    with heard() as messages:
        del lease
        gc.collect()
        lease = await waiter
    assert len(messages) == 1
    assert await ask(lease, "SELECT 1") == 1
    await release(lease)
    assert pool_of(engine).checkedout() == 0


@pytest.mark.every_driver
async def test_closing_twice_returns_once(subject: Subject) -> None:
    engine = subject.engine(pool_size=2, max_overflow=0)
    journal = Journal(engine)
    async with engine.connect() as connection:
        await connection.close()
        await connection.close()
    lease = await acquire(engine)
    await release(lease, lease)
    assert journal.count("checkin") == 2
    assert numbers(engine) == (2, 1, -1, 0)


async def test_closing_again_does_not_take_the_next_holders_connection(
    subject: Subject,
) -> None:
    engine = subject.engine(pool_size=1, max_overflow=0)
    first = await acquire(engine)
    await release(first)
    async with checked_out(engine) as second:
        await release(first)
        assert not first.is_valid
        assert pool_of(engine).checkedout() == 1
        assert await ask(second, "SELECT 1") == 1
    assert pool_of(engine).checkedout() == 0


async def test_a_record_checked_in_twice_is_warned_of_and_counted_once(
    subject: Subject,
) -> None:
    engine = subject.engine(pool_size=2, max_overflow=0)
    journal = Journal(engine)
    await release(await acquire(engine))
    record = journal.of("checkin")[0].rest[0]
    with pytest.warns(SAWarning, match="Double checkin"):
        record.checkin()
    assert numbers(engine) == (2, 1, -1, 0)

"""Invalidation of one connection, hard and soft, by the user and by the pool's own findings."""

import asyncio
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.exc import InvalidRequestError, PendingRollbackError, SAWarning
from sqlalchemy.util import greenlet_spawn
from tests.contract.door import Door, WalledUpError
from tests.contract.journal import Journal
from tests.contract.subject import Subject, acquire, checked_out, invalidate, pool_of, release
from tests.eventually import eventually


@pytest.mark.every_driver
async def test_an_invalidated_connection_is_closed_and_replaced(subject: Subject) -> None:
    engine = subject.engine(pool_size=1, max_overflow=0, pool_timeout=5)
    journal = Journal(engine)
    async with engine.connect() as connection:
        await connection.execute(text("SELECT 1"))
        raw = await connection.get_raw_connection()
        dead, driver = raw.dbapi_connection, raw.driver_connection
        journal.clear()
        await connection.invalidate()
        assert connection.invalidated
    await eventually(lambda: subject.is_closed(driver))
    await eventually(lambda: pool_of(engine).checkedout() == 0)
    assert journal.names == ["invalidate", "close", "checkin"]
    assert [entry.connection for entry in journal.entries] == [dead, dead, None]

    async with engine.connect() as connection:
        assert (await connection.execute(text("SELECT 1"))).scalar() == 1
        assert (await connection.get_raw_connection()).dbapi_connection is not dead
    assert journal.count("connect") == 1


@pytest.mark.every_driver
async def test_the_reason_of_an_invalidation_is_passed_on(subject: Subject) -> None:
    engine = subject.engine()
    journal = Journal(engine)
    reason = ValueError("it smells")
    soft, hard, silent = [await acquire(engine) for _ in range(3)]
    connections = [lease.dbapi_connection for lease in (soft, hard, silent)]

    await greenlet_spawn(soft.invalidate, reason, soft=True)
    await greenlet_spawn(hard.invalidate, reason)
    await invalidate(silent)
    (entry,) = journal.of("soft_invalidate")
    assert (entry.connection, entry.rest[1]) == (connections[0], reason)
    reasons = [(entry.connection, entry.rest[1]) for entry in journal.of("invalidate")]
    assert reasons == [(connections[1], reason), (connections[2], None)]
    await release(soft)
    await eventually(lambda: pool_of(engine).checkedout() == 0)


@pytest.mark.every_driver
async def test_a_softly_invalidated_connection_serves_its_holder_and_nobody_else(
    subject: Subject,
) -> None:
    engine = subject.engine(pool_size=1, max_overflow=0, pool_timeout=5)
    journal = Journal(engine)
    async with engine.connect() as connection:
        raw = await connection.get_raw_connection()
        stale, driver = raw.dbapi_connection, raw.driver_connection
        raw.invalidate(soft=True)
        assert raw.is_valid
        assert not connection.invalidated
        assert (await connection.execute(text("SELECT 1"))).scalar() == 1
    # It may be closed at once, or when its turn comes.
    assert [name for name in journal.names if name != "close"][-2:] == ["reset", "checkin"]
    async with checked_out(engine) as lease:
        assert lease.dbapi_connection is not stale
        await eventually(lambda: subject.is_closed(driver))
    assert pool_of(engine).checkedout() == 0
    assert journal.count("connect") == 2
    assert journal.connections("close") == [stale]
    assert journal.count("invalidate") == 0


async def test_an_invalidated_connection_opens_another_for_its_holder(subject: Subject) -> None:
    engine = subject.engine(pool_size=1, max_overflow=0, pool_timeout=5)
    async with engine.connect() as connection:
        dead = (await connection.get_raw_connection()).dbapi_connection
        await connection.invalidate()
        assert (await connection.execute(text("SELECT 1"))).scalar() == 1
        assert not connection.invalidated
        assert (await connection.get_raw_connection()).dbapi_connection is not dead
        assert pool_of(engine).checkedout() == 1
    assert pool_of(engine).checkedout() == 0


async def test_a_transaction_does_not_survive_the_invalidation_unnoticed(
    subject: Subject,
) -> None:
    engine = subject.engine(pool_size=1, max_overflow=0, pool_timeout=5)
    async with engine.connect() as connection:
        await connection.execute(text("SELECT 1"))
        await connection.invalidate()
        with pytest.raises(PendingRollbackError):
            await connection.execute(text("SELECT 1"))
        await connection.rollback()
        assert (await connection.execute(text("SELECT 1"))).scalar() == 1
    assert pool_of(engine).checkedout() == 0


async def test_invalidating_twice_is_harmless(subject: Subject) -> None:
    engine = subject.engine(pool_size=1, max_overflow=0, pool_timeout=5)
    journal = Journal(engine)
    async with engine.connect() as connection:
        raw = await connection.get_raw_connection()
        await connection.invalidate()
        await connection.invalidate()
        assert not raw.is_valid
        with pytest.warns(SAWarning, match="already-closed"):
            raw.invalidate()
    await eventually(lambda: pool_of(engine).checkedout() == 0)
    assert (journal.count("invalidate"), journal.count("checkin")) == (1, 1)


async def test_closing_a_lease_after_its_invalidation_returns_nothing_twice(
    subject: Subject,
) -> None:
    engine = subject.engine(pool_size=1, max_overflow=0, pool_timeout=5)
    journal = Journal(engine)
    lease = await acquire(engine)
    await invalidate(lease)
    async with checked_out(engine):
        await release(lease)
        assert pool_of(engine).checkedout() == 1
        assert journal.count("checkin") == 1
    assert pool_of(engine).checkedout() == 0


async def test_an_invalidated_connection_cannot_be_detached(subject: Subject) -> None:
    engine = subject.engine()
    async with engine.connect() as connection:
        await connection.invalidate()
        with pytest.raises(InvalidRequestError, match="invalidated"):
            await connection.run_sync(lambda sync: sync.detach())


@pytest.mark.every_driver
async def test_a_failing_reconnect_after_an_invalidation_frees_the_slot(
    subject: Subject,
) -> None:
    engine = subject.engine(pool_size=1, max_overflow=2, pool_timeout=5)
    door = Door(engine)
    await invalidate(await acquire(engine))
    await eventually(lambda: pool_of(engine).checkedout() == 0)
    door.walled_up = True
    with pytest.raises(WalledUpError):
        await acquire(engine)
    await eventually(lambda: pool_of(engine).checkedout() == 0)

    door.walled_up = False
    leases = [await acquire(engine) for _ in range(3)]
    assert pool_of(engine).checkedout() == 3
    await release(*leases)


async def test_the_waiters_are_served_by_one_connection_in_the_place_of_an_invalidated_one(
    subject: Subject,
) -> None:
    engine = subject.engine(pool_size=1, max_overflow=0, pool_timeout=10)
    door = Door(engine)
    lease = await acquire(engine)

    async def wait() -> Any:
        async with checked_out(engine) as mine:
            await asyncio.sleep(0.001)
            return mine.dbapi_connection

    dead = lease.dbapi_connection
    tasks = [asyncio.create_task(wait()) for _ in range(5)]
    await asyncio.sleep(0.01)
    assert not any(task.done() for task in tasks)
    await invalidate(lease)
    served = set(await asyncio.gather(*tasks))
    assert len(served) == 1
    assert dead not in served
    assert door.arrivals == 2

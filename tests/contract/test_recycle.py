"""``pool_recycle``: a connection that is too old is replaced at checkout."""

import asyncio

import pytest
from tests.contract.journal import Journal
from tests.contract.subject import Subject, acquire, ask, checked_out, pool_of, release
from tests.eventually import eventually


@pytest.mark.every_driver
async def test_a_connection_that_is_too_old_is_replaced(subject: Subject) -> None:
    engine = subject.engine(pool_size=1, max_overflow=0, pool_timeout=5, pool_recycle=0)
    journal = Journal(engine)
    async with checked_out(engine) as lease:
        lease.info["mark"] = True
        old, driver = lease.dbapi_connection, lease.driver_connection
    journal.clear()
    async with checked_out(engine) as lease:
        assert lease.dbapi_connection is not old
        assert "mark" not in lease.info
        assert await ask(lease, "SELECT 1") == 1
    await eventually(lambda: subject.is_closed(driver))
    assert journal.connections("close") == [old]
    assert (journal.count("connect"), journal.count("invalidate")) == (1, 0)
    assert pool_of(engine).checkedout() == 0


async def test_the_age_is_counted_in_seconds(subject: Subject) -> None:
    engine = subject.engine(pool_size=1, max_overflow=0, pool_timeout=5, pool_recycle=1)
    async with checked_out(engine) as lease:
        old = lease.dbapi_connection
    async with checked_out(engine) as lease:
        assert lease.dbapi_connection is old
    async with asyncio.timeout(10):
        while True:
            async with checked_out(engine) as lease:
                if lease.dbapi_connection is not old:
                    break
            await asyncio.sleep(0.05)
    assert pool_of(engine).checkedout() == 0


async def test_a_checked_out_connection_does_not_grow_too_old(subject: Subject) -> None:
    engine = subject.engine(pool_size=2, max_overflow=0, pool_timeout=5, pool_recycle=0)
    journal = Journal(engine)
    async with checked_out(engine) as lease:
        journal.clear()
        await ask(lease, "SELECT 1")
        await asyncio.sleep(0.02)
        assert journal.count("close") == 0
        assert await ask(lease, "SELECT 1") == 1


async def test_every_connection_is_replaced_when_its_turn_comes(subject: Subject) -> None:
    engine = subject.engine(pool_size=3, max_overflow=0, pool_timeout=5, pool_recycle=0)
    leases = [await acquire(engine) for _ in range(3)]
    old = {lease.dbapi_connection for lease in leases}
    await release(*leases)
    leases = [await acquire(engine) for _ in range(3)]
    assert not old & {lease.dbapi_connection for lease in leases}
    assert pool_of(engine).checkedout() == 3
    await release(*leases)

"""``pool_recycle``: a connection that is too old is replaced at checkout."""

import asyncio

import pytest
from tests.contract.journal import Journal
from tests.contract.subject import Subject, ask, borrow, give_back, lent, pool_of
from tests.eventually import eventually


@pytest.mark.every_driver
async def test_a_connection_that_is_too_old_is_replaced(subject: Subject) -> None:
    engine = subject.engine(pool_size=1, max_overflow=0, pool_timeout=5, pool_recycle=0)
    journal = Journal(engine)
    async with lent(engine) as loan:
        loan.info["mark"] = True
        old, driver = loan.dbapi_connection, loan.driver_connection
    journal.clear()
    async with lent(engine) as loan:
        assert loan.dbapi_connection is not old
        assert "mark" not in loan.info
        assert await ask(loan, "SELECT 1") == 1
    await eventually(lambda: subject.is_closed(driver))
    assert journal.connections("close") == [old]
    assert (journal.count("connect"), journal.count("invalidate")) == (1, 0)
    assert pool_of(engine).checkedout() == 0


async def test_the_age_is_counted_in_seconds(subject: Subject) -> None:
    engine = subject.engine(pool_size=1, max_overflow=0, pool_timeout=5, pool_recycle=1)
    async with lent(engine) as loan:
        old = loan.dbapi_connection
    async with lent(engine) as loan:
        assert loan.dbapi_connection is old
    async with asyncio.timeout(10):
        while True:
            async with lent(engine) as loan:
                if loan.dbapi_connection is not old:
                    break
            await asyncio.sleep(0.05)
    assert pool_of(engine).checkedout() == 0


async def test_a_lent_connection_does_not_grow_too_old(subject: Subject) -> None:
    engine = subject.engine(pool_size=2, max_overflow=0, pool_timeout=5, pool_recycle=0)
    journal = Journal(engine)
    async with lent(engine) as loan:
        journal.clear()
        await ask(loan, "SELECT 1")
        await asyncio.sleep(0.02)
        assert journal.count("close") == 0
        assert await ask(loan, "SELECT 1") == 1


async def test_every_connection_is_replaced_when_its_turn_comes(subject: Subject) -> None:
    engine = subject.engine(pool_size=3, max_overflow=0, pool_timeout=5, pool_recycle=0)
    loans = [await borrow(engine) for _ in range(3)]
    old = {loan.dbapi_connection for loan in loans}
    await give_back(*loans)
    loans = [await borrow(engine) for _ in range(3)]
    assert not old & {loan.dbapi_connection for loan in loans}
    assert pool_of(engine).checkedout() == 3
    await give_back(*loans)

"""What is kept with a connection, and what with its place in the pool."""

from tests.contract.subject import Subject, borrow, give_back, invalidate, lent, pool_of
from tests.eventually import eventually


async def test_info_lives_as_long_as_its_connection(subject: Subject) -> None:
    engine = subject.engine(pool_size=1, max_overflow=0, pool_timeout=5)
    async with lent(engine) as loan:
        assert loan.info == {}
        loan.info["mark"] = 1
    loan = await borrow(engine)
    assert loan.info == {"mark": 1}
    await invalidate(loan)
    await eventually(lambda: pool_of(engine).checkedout() == 0)
    async with lent(engine) as loan:
        assert loan.info == {}


async def test_info_is_emptied_by_a_soft_invalidation(subject: Subject) -> None:
    engine = subject.engine(pool_size=1, max_overflow=0, pool_timeout=5)
    async with lent(engine) as loan:
        loan.info["mark"] = 1
        loan.invalidate(soft=True)
        assert loan.info == {"mark": 1}
    async with lent(engine) as loan:
        assert loan.info == {}


async def test_record_info_lives_as_long_as_the_place_in_the_pool(subject: Subject) -> None:
    engine = subject.engine(pool_size=1, max_overflow=0, pool_timeout=5)
    loan = await borrow(engine)
    assert loan.record_info == {}
    loan.record_info["mark"] = 1
    await invalidate(loan)
    await eventually(lambda: pool_of(engine).checkedout() == 0)
    async with lent(engine) as loan:
        assert loan.record_info == {"mark": 1}


async def test_a_detached_connection_takes_a_copy_of_info_along(subject: Subject) -> None:
    engine = subject.engine(pool_size=1, max_overflow=0, pool_timeout=5)
    detached = await borrow(engine)
    detached.info["mark"] = 1
    detached.detach()
    assert (detached.info, detached.record_info) == ({"mark": 1}, None)
    async with lent(engine) as loan:
        assert loan.info == {}
    assert detached.info == {"mark": 1}
    await give_back(detached)


async def test_info_is_the_same_from_the_connection_of_an_engine(subject: Subject) -> None:
    engine = subject.engine(pool_size=1, max_overflow=0)
    async with engine.connect() as connection:
        raw = await connection.get_raw_connection()
        raw.info["mark"] = 1
        assert connection.info == {"mark": 1}
        assert (await connection.run_sync(lambda sync: sync.info)) is raw.info
    async with engine.connect() as connection:
        assert connection.info == {"mark": 1}

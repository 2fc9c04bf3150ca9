"""What is kept with a connection, and what with its place in the pool."""

from tests.contract.subject import Subject, acquire, checked_out, invalidate, pool_of, release
from tests.eventually import eventually


async def test_info_lives_as_long_as_its_connection(subject: Subject) -> None:
    engine = subject.engine(pool_size=1, max_overflow=0, pool_timeout=5)
    async with checked_out(engine) as lease:
        assert lease.info == {}
        lease.info["mark"] = 1
    lease = await acquire(engine)
    assert lease.info == {"mark": 1}
    await invalidate(lease)
    await eventually(lambda: pool_of(engine).checkedout() == 0)
    async with checked_out(engine) as lease:
        assert lease.info == {}


async def test_info_is_emptied_by_a_soft_invalidation(subject: Subject) -> None:
    engine = subject.engine(pool_size=1, max_overflow=0, pool_timeout=5)
    async with checked_out(engine) as lease:
        lease.info["mark"] = 1
        lease.invalidate(soft=True)
        assert lease.info == {"mark": 1}
    async with checked_out(engine) as lease:
        assert lease.info == {}


async def test_record_info_lives_as_long_as_the_place_in_the_pool(subject: Subject) -> None:
    engine = subject.engine(pool_size=1, max_overflow=0, pool_timeout=5)
    lease = await acquire(engine)
    assert lease.record_info == {}
    lease.record_info["mark"] = 1
    await invalidate(lease)
    await eventually(lambda: pool_of(engine).checkedout() == 0)
    async with checked_out(engine) as lease:
        assert lease.record_info == {"mark": 1}


async def test_a_detached_connection_takes_a_copy_of_info_along(subject: Subject) -> None:
    engine = subject.engine(pool_size=1, max_overflow=0, pool_timeout=5)
    detached = await acquire(engine)
    detached.info["mark"] = 1
    detached.detach()
    assert (detached.info, detached.record_info) == ({"mark": 1}, None)
    async with checked_out(engine) as lease:
        assert lease.info == {}
    assert detached.info == {"mark": 1}
    await release(detached)


async def test_info_is_the_same_from_the_connection_of_an_engine(subject: Subject) -> None:
    engine = subject.engine(pool_size=1, max_overflow=0)
    async with engine.connect() as connection:
        raw = await connection.get_raw_connection()
        raw.info["mark"] = 1
        assert connection.info == {"mark": 1}
        assert (await connection.run_sync(lambda sync: sync.info)) is raw.info
    async with engine.connect() as connection:
        assert connection.info == {"mark": 1}

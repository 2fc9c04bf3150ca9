"""Who is checked out which connection, how many there may be, and how long a holder waits."""

import asyncio
from typing import Any

import pytest
from sqlalchemy import event, text
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from tests.contract.door import Door, WalledUpError
from tests.contract.subject import Subject, acquire, ask, checked_out, numbers, pool_of, release
from tests.eventually import eventually


async def test_nothing_is_opened_before_it_is_asked_for(subject: Subject) -> None:
    engine = subject.engine(pool_size=5)
    door = Door(engine)
    for _ in range(5):
        async with checked_out(engine):
            pass
    assert door.arrivals == 1


async def test_the_connection_that_rested_longest_is_checked_out_first(subject: Subject) -> None:
    engine = subject.engine(pool_size=3, max_overflow=0)
    leases = [await acquire(engine) for _ in range(3)]
    one, two, three = (lease.dbapi_connection for lease in leases)
    await release(*leases)
    for turn in (one, two, three, one):
        async with checked_out(engine) as lease:
            assert lease.dbapi_connection is turn
    async with checked_out(engine) as first, checked_out(engine) as second:
        assert [first.dbapi_connection, second.dbapi_connection] == [two, three]


async def test_with_use_lifo_the_connection_returned_last_is_checked_out_first(
    subject: Subject,
) -> None:
    engine = subject.engine(pool_size=3, max_overflow=0, pool_use_lifo=True)
    leases = [await acquire(engine) for _ in range(3)]
    one, two, three = (lease.dbapi_connection for lease in leases)
    await release(*leases)
    for _ in range(3):
        async with checked_out(engine) as lease:
            assert lease.dbapi_connection is three
    async with (
        checked_out(engine) as last,
        checked_out(engine) as middle,
        checked_out(engine) as first,
    ):
        checked_out_now = [lease.dbapi_connection for lease in (last, middle, first)]
        assert checked_out_now == [three, two, one]


@pytest.mark.every_driver
async def test_a_holder_waits_for_a_connection_to_come_back(subject: Subject) -> None:
    engine = subject.engine(pool_size=1, max_overflow=0, pool_timeout=5)
    door = Door(engine)
    lease = await acquire(engine)
    connection = lease.dbapi_connection
    waiter = asyncio.create_task(acquire(engine))
    await asyncio.sleep(0.02)
    assert not waiter.done()
    await release(lease)
    lease = await waiter
    assert lease.dbapi_connection is connection
    await release(lease)
    assert door.arrivals == 1


@pytest.mark.every_driver
async def test_a_holder_gives_up_after_pool_timeout(subject: Subject) -> None:
    engine = subject.engine(pool_size=1, max_overflow=1, pool_timeout=0.5)
    leases = [await acquire(engine), await acquire(engine)]
    with pytest.raises(PoolTimeoutError):
        await asyncio.create_task(acquire(engine))
    assert pool_of(engine).checkedout() == 2
    await release(*leases)
    async with checked_out(engine):
        assert pool_of(engine).checkedout() == 1


async def test_a_timeout_of_nothing_does_not_wait(subject: Subject) -> None:
    engine = subject.engine(pool_size=1, max_overflow=0, pool_timeout=0)
    async with checked_out(engine) as lease:
        connection = lease.dbapi_connection
        with pytest.raises(PoolTimeoutError):
            await asyncio.create_task(acquire(engine))
    async with checked_out(engine) as lease:
        assert lease.dbapi_connection is connection


@pytest.mark.drivers("asyncpg", "asyncmy", "aiomysql", "aiosqlite")
async def test_a_timeout_of_nothing_waits_for_what_nobody_holds(subject: Subject) -> None:
    engine = subject.engine(pool_size=1, max_overflow=0, pool_timeout=0)
    async with engine.connect() as connection:
        await connection.invalidate()
        assert (await connection.execute(text("SELECT 1"))).scalar() == 1
    async with engine.connect() as connection:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await connection.execute(text(subject.nap))
        await connection.rollback()
        assert (await connection.execute(text("SELECT 1"))).scalar() == 1
    lease = await acquire(engine)
    lease.detach()
    await release(await acquire(engine), lease)


@pytest.mark.drivers("asyncpg", "psycopg")
async def test_a_timeout_of_nothing_outlives_the_end_of_every_connection(subject: Subject) -> None:
    engine = subject.engine(pool_size=2, max_overflow=0, pool_timeout=0, pool_pre_ping=True)
    leases = [await acquire(engine), await acquire(engine)]
    for lease in leases:
        await subject.kill(lease.driver_connection)
    await release(*leases)

    leases = [await acquire(engine), await acquire(engine)]

    with pytest.raises(PoolTimeoutError):
        await asyncio.create_task(acquire(engine))
    assert [await ask(lease, "SELECT 1") for lease in leases] == [1, 1]
    await release(*leases)


async def test_a_refused_holder_learns_where_it_is_explained(subject: Subject) -> None:
    engine = subject.engine(pool_size=1, max_overflow=0, pool_timeout=0)
    async with checked_out(engine):
        with pytest.raises(PoolTimeoutError) as refused:
            await asyncio.create_task(acquire(engine))
    assert refused.value.code == "3o7r"
    assert str(refused.value).endswith("/3o7r)")


async def test_the_overflow_can_be_changed_on_a_running_pool(subject: Subject) -> None:
    engine = subject.engine(pool_size=1, max_overflow=0, pool_timeout=0)
    pool = pool_of(engine)
    async with checked_out(engine):
        pool._max_overflow = 1
        async with checked_out(engine):
            assert (pool.overflow(), pool._max_overflow) == (1, 1)


async def test_without_a_timeout_a_holder_waits_on(subject: Subject) -> None:
    engine = subject.engine(pool_size=1, max_overflow=0, pool_timeout=None)
    lease = await acquire(engine)
    waiter = asyncio.create_task(acquire(engine))
    await asyncio.sleep(0.02)
    assert not waiter.done()
    await release(lease)
    await release(await waiter)


async def test_every_waiter_is_served_by_the_one_connection_in_the_order_of_asking(
    subject: Subject,
) -> None:
    engine = subject.engine(pool_size=1, max_overflow=0, pool_timeout=5)
    door = Door(engine)
    served: list[int] = []

    async def wait(number: int) -> None:
        async with checked_out(engine):
            served.append(number)
            await asyncio.sleep(0)

    async with checked_out(engine):
        tasks = [asyncio.create_task(wait(number)) for number in range(10)]
        await asyncio.sleep(0.02)
    await asyncio.gather(*tasks)
    assert (served, door.arrivals) == (list(range(10)), 1)


@pytest.mark.parametrize("options", [{"pool_size": 1, "max_overflow": -1}, {"pool_size": 0}])
async def test_a_pool_without_a_limit_checks_out_as_many_as_are_asked_for(
    subject: Subject, options: dict[str, Any]
) -> None:
    engine = subject.engine(pool_timeout=5, **options)
    door = Door(engine)
    leases = await asyncio.gather(*(acquire(engine) for _ in range(20)))
    assert len({lease.dbapi_connection for lease in leases}) == 20
    assert (door.arrivals, pool_of(engine).checkedout()) == (20, 20)
    await release(*leases)
    assert pool_of(engine).checkedout() == 0


@pytest.mark.parametrize("overflow", [0, 42])
async def test_a_pool_without_a_size_keeps_every_connection(
    subject: Subject, overflow: int
) -> None:
    engine = subject.engine(pool_size=0, max_overflow=overflow)
    door = Door(engine)
    for _ in range(3):
        leases = [await acquire(engine) for _ in range(5)]
        assert numbers(engine) == (0, 0, 0, 5)
        await release(*leases)
        assert numbers(engine) == (0, 5, 0, 0)
    assert door.arrivals == 5


async def test_no_connection_is_in_two_hands_and_no_more_are_open_than_allowed(
    subject: Subject,
) -> None:
    engine = subject.engine(pool_size=2, max_overflow=2, pool_timeout=10)
    held: set[Any] = set()
    most = 0

    async def work(number: int) -> None:
        nonlocal most
        for _ in range(5):
            async with checked_out(engine) as lease:
                assert lease.dbapi_connection not in held
                held.add(lease.dbapi_connection)
                most = max(most, len(held))
                await asyncio.sleep(0.0005 * (number % 3))
                held.remove(lease.dbapi_connection)

    await asyncio.gather(*(work(number) for number in range(20)))
    assert most == 4
    assert pool_of(engine).checkedout() == 0


@pytest.mark.differs("overflow", only="stock")
async def test_overflow_is_closed_at_check_in(subject: Subject) -> None:
    engine = subject.engine(pool_size=1, max_overflow=2)
    door = Door(engine)
    for _ in range(3):
        await release(*[await acquire(engine) for _ in range(3)])
        assert numbers(engine) == (1, 1, 0, 0)
    assert door.arrivals == 7


@pytest.mark.differs("overflow", only="ours")
async def test_overflow_is_kept_while_it_is_used(subject: Subject) -> None:
    engine = subject.engine(pool_size=1, max_overflow=2)
    door = Door(engine)
    for _ in range(3):
        await release(*[await acquire(engine) for _ in range(3)])
        assert numbers(engine) == (1, 3, 2, 0)
    assert door.arrivals == 3


@pytest.mark.every_driver
async def test_a_failing_connect_reaches_the_holder_and_frees_the_slot(
    subject: Subject,
) -> None:
    engine = subject.engine(pool_size=1, max_overflow=0, pool_timeout=5)
    door = Door(engine)
    door.walled_up = True
    for _ in range(3):
        with pytest.raises(WalledUpError):
            await acquire(engine)
        assert pool_of(engine).checkedout() == 0
    door.walled_up = False
    async with checked_out(engine) as lease:
        assert await ask(lease, "SELECT 1") == 1


async def test_a_failing_connect_leaves_those_alone_who_have_a_connection(
    subject: Subject,
) -> None:
    engine = subject.engine(pool_size=2, max_overflow=3, pool_timeout=5)
    door = Door(engine)
    leases = [await acquire(engine) for _ in range(3)]
    assert pool_of(engine)._overflow == 1
    door.walled_up = True
    with pytest.raises(WalledUpError):
        await acquire(engine)
    assert pool_of(engine)._overflow == 1
    assert [await ask(lease, "SELECT 1") for lease in leases] == [1, 1, 1]
    door.walled_up = False
    leases.append(await acquire(engine))
    assert pool_of(engine).checkedout() == 4
    await release(*leases)


@pytest.mark.differs("waiters of a failed connect", only="ours")
async def test_after_a_failing_connect_nobody_sleeps_beside_the_free_slot(
    subject: Subject,
) -> None:
    engine = subject.engine(pool_size=1, max_overflow=0, pool_timeout=9)
    door = Door(engine)
    door.shut(1)
    first = asyncio.create_task(acquire(engine))
    await eventually(lambda: door.arrivals == 1)
    second = asyncio.create_task(acquire(engine))
    await asyncio.sleep(0.01)
    door.open(into_a_wall=True)
    async with asyncio.timeout(4):
        outcomes = await asyncio.gather(first, second, return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [WalledUpError] * 2
    async with checked_out(engine):
        assert pool_of(engine).checkedout() == 1


async def test_a_hanging_connect_holds_up_one_holder_and_no_more(subject: Subject) -> None:
    engine = subject.engine(pool_size=1, max_overflow=3, pool_timeout=5)
    door = Door(engine)
    async with checked_out(engine):
        door.shut(1)
        tasks = [asyncio.create_task(acquire(engine))]
        await eventually(lambda: door.arrivals == 2)
        tasks += [asyncio.create_task(acquire(engine)) for _ in range(2)]
        await eventually(lambda: sum(task.done() for task in tasks) == 2)
        door.open()
        await release(*await asyncio.gather(*tasks))
    assert pool_of(engine).checkedout() == 0


async def test_two_connects_are_under_way_at_once(subject: Subject) -> None:
    engine = subject.engine(pool_size=2, pool_timeout=5)
    async with checked_out(engine):
        pass
    await engine.dispose()
    door = Door(engine)
    door.shut()
    tasks = [asyncio.create_task(acquire(engine)) for _ in range(2)]
    await eventually(lambda: door.arrivals == 2)
    door.open()
    await release(*await asyncio.gather(*tasks))


@pytest.mark.every_driver
async def test_a_burst_is_served_completely(subject: Subject) -> None:
    engine = subject.engine(pool_size=2, max_overflow=1, pool_timeout=10)

    @event.listens_for(engine.sync_engine, "connect")
    def count(*_: object) -> None:
        opened.append(pool_of(engine).checkedout())

    opened: list[int] = []

    async def select(number: int) -> Any:
        async with engine.connect() as connection:
            return (await connection.execute(text(f"SELECT {number}"))).scalar()

    assert await asyncio.gather(*map(select, range(30))) == list(range(30))
    assert max(opened) <= 3
    assert pool_of(engine).checkedout() == 0

"""``pool_recycle``: a connection is replaced by one that is ready, before it goes itself."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import accumulate

import pytest
from sqlalchemy import bindparam, select, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.ext.asyncio import AsyncEngine
from tests.adversity.backends import BackendCount
from tests.eventually import eventually
from tests.integration.pool.pools import (
    MakeEngine,
    backend,
    backends,
    closed,
    events_of,
    pool_of,
    use,
)
from tests.servers.proxy import Proxy

from penstock.pool.events import CheckedOut, ConnectionClosed, ConnectionOpened, PoolEvent
from penstock.pool.slot import CloseReason

both_drivers = pytest.mark.parametrize("driver", ["asyncpg", "psycopg"], indirect=True)
pytestmark = pytest.mark.usefixtures("frequent_housekeeping")

HOTTEST = select(bindparam("document", type_=JSONB))


def end_the_lives_of(engine: AsyncEngine) -> None:
    """Let all that are open now have lived their time, but be good for a little longer."""
    for slot in pool_of(engine).ledger:
        slot.retire_at = 0.0


def surplus_over_time(events: list[PoolEvent]) -> list[int]:
    """Tell how many more connections than at first there were after each opening and closing."""
    opened = (isinstance(event, ConnectionOpened) for event in events)
    gone = (isinstance(event, ConnectionClosed) for event in events)
    return list(accumulate(a - b for a, b in zip(opened, gone, strict=True)))


def waits(events: list[PoolEvent]) -> set[float]:
    return {event.waited for event in events if isinstance(event, CheckedOut)}


@asynccontextmanager
async def steady_use(engine: AsyncEngine, callers: int) -> AsyncIterator[None]:
    """Let so many check out and return, again and again, for a block."""
    is_over = False

    async def check_out_again_and_again() -> None:
        while not is_over:
            async with engine.connect():
                await asyncio.sleep(0.003)

    async with asyncio.TaskGroup() as group:
        for _ in range(callers):
            group.create_task(check_out_again_and_again())
        yield
        is_over = True


@both_drivers
@pytest.mark.parametrize("size", [1, 4])
async def test_nobody_waits_while_connections_are_replaced(
    make_engine: MakeEngine, proxy: Proxy, count: BackendCount, size: int
) -> None:
    engine = make_engine(pool_size=size, max_overflow=2, pool_recycle=3600)
    old = await backends(engine, size)
    events = events_of(engine)
    proxy.delay = 0.05
    async with steady_use(engine, size):
        end_the_lives_of(engine)
        await eventually(lambda: len(closed(events)) == size)
    assert closed(events) == [CloseReason.LIFETIME] * size
    assert waits(events) == {0.0}
    assert set(surplus_over_time(events)) <= {0, 1, 2}
    assert proxy.connects == 2 * size
    assert not set(old) & set(await backends(engine, size))
    assert count.most <= size + 2


@pytest.mark.parametrize("max_overflow", [1, 2, 4])
async def test_as_many_idle_connections_are_there_after_their_replacement(
    make_engine: MakeEngine, proxy: Proxy, count: BackendCount, max_overflow: int
) -> None:
    engine = make_engine(pool_size=4, max_overflow=max_overflow, pool_recycle=3600)
    await backends(engine, 4)
    events = events_of(engine)
    end_the_lives_of(engine)
    await eventually(lambda: len(closed(events)) == 4)
    await eventually(lambda: pool_of(engine).snapshot().checked_in == 4)
    assert min(surplus_over_time(events)) == 0
    assert proxy.connects == 8
    assert count.most <= 4 + max_overflow


async def test_without_room_a_connection_goes_before_its_replacement_comes(
    make_engine: MakeEngine, proxy: Proxy, count: BackendCount
) -> None:
    engine = make_engine(pool_size=3, max_overflow=0, pool_recycle=3600)
    old = await backends(engine, 3)
    events = events_of(engine)
    end_the_lives_of(engine)
    await eventually(lambda: pool_of(engine).snapshot().opened_total == 6)
    assert set(surplus_over_time(events)) <= {0, -1, -2}
    assert not set(old) & set(await backends(engine, 3))
    assert waits(events) == {0.0}
    assert count.most <= 3


async def test_the_surplus_of_a_burst_is_not_replaced(
    make_engine: MakeEngine, proxy: Proxy
) -> None:
    engine = make_engine(pool_size=2, max_overflow=3, pool_recycle=3600)
    await backends(engine, 5)
    events = events_of(engine)
    end_the_lives_of(engine)
    await eventually(lambda: len(closed(events)) == 5)
    await eventually(lambda: pool_of(engine).snapshot().checked_in == 2)
    assert proxy.connects == 7


async def test_a_connection_is_replaced_while_it_is_checked_out(
    make_engine: MakeEngine, proxy: Proxy
) -> None:
    engine = make_engine(pool_size=1, max_overflow=1, pool_recycle=3600)
    events = events_of(engine)
    async with engine.connect() as connection:
        checked_out = await connection.scalar(text("SELECT pg_backend_pid()"))
        end_the_lives_of(engine)
        await eventually(lambda: pool_of(engine).snapshot().checked_in == 1)
        assert await backend(engine) != checked_out
        assert closed(events) == []
    await eventually(lambda: closed(events) == [CloseReason.LIFETIME])
    assert proxy.connects == 2


async def test_connections_are_replaced_again_and_again(
    make_engine: MakeEngine, proxy: Proxy, count: BackendCount
) -> None:
    engine = make_engine(pool_size=2, max_overflow=1, pool_recycle=0.5)
    events = events_of(engine)
    async with steady_use(engine, 2):
        await eventually(lambda: len(closed(events)) >= 6)
    ages = [event.age for event in events if isinstance(event, ConnectionClosed)]
    assert set(closed(events)) == {CloseReason.LIFETIME}
    assert min(ages) >= 0.25  # of one age, the first goes early
    assert count.most <= 3


async def test_the_old_connection_is_used_while_no_replacement_can_be_had(
    make_engine: MakeEngine, proxy: Proxy
) -> None:
    engine = make_engine(pool_size=1, max_overflow=1, pool_recycle=3600)
    old = await use(engine)
    events = events_of(engine)
    proxy.refusing = True
    end_the_lives_of(engine)
    await eventually(lambda: pool_of(engine).snapshot().open_failures_total >= 2)
    assert await use(engine) == old
    proxy.heal()
    await eventually(lambda: closed(events) == [CloseReason.LIFETIME])
    assert await use(engine) != old
    assert waits(events) == {0.0}


@both_drivers
async def test_what_has_outlived_pool_recycle_is_not_checked_out(
    make_engine: MakeEngine, proxy: Proxy
) -> None:
    engine = make_engine(pool_size=1, pool_recycle=3600)
    old = await use(engine)
    for slot in pool_of(engine).ledger:
        slot.expires_at = 0.0
    assert await use(engine) != old
    assert proxy.connects == 2


# The replacement is ready.


async def replaced(engine: AsyncEngine) -> None:
    """Wait until the only connection has been replaced."""
    events = events_of(engine)
    end_the_lives_of(engine)
    await eventually(lambda: closed(events) == [CloseReason.LIFETIME])


async def test_the_first_query_on_a_replacement_costs_one_round_trip(
    make_engine: MakeEngine, proxy: Proxy
) -> None:
    engine = make_engine(
        pool_size=1, max_overflow=1, pool_recycle=3600, isolation_level="AUTOCOMMIT"
    )
    costs = []
    for _ in range(2):
        for _ in range(2):
            spent = proxy.round_trips
            async with engine.connect() as connection:
                assert await connection.scalar(HOTTEST, {"document": {"a": 1}}) == {"a": 1}
            costs.append(proxy.round_trips - spent)
        await replaced(engine)
    assert costs[0] > 1
    assert costs[1:] == [1, 1, 1]


async def test_the_statements_used_last_are_prepared_on_a_replacement(
    make_engine: MakeEngine, proxy: Proxy
) -> None:
    engine = make_engine(pool_size=1, max_overflow=1, pool_recycle=3600)
    async with engine.connect() as connection:
        for number in range(30):
            await connection.execute(text(f"SELECT {number}"))
    await replaced(engine)
    async with engine.connect() as connection:
        found = await connection.scalars(text("SELECT statement FROM pg_prepared_statements"))
        prepared = {statement for statement in found if statement.startswith("SELECT ")}
    assert {f"SELECT {number}" for number in range(10, 30)} <= prepared
    assert not {f"SELECT {number}" for number in range(10)} & prepared


async def test_a_statement_that_cannot_be_prepared_any_more_harms_no_replacement(
    make_engine: MakeEngine, proxy: Proxy
) -> None:
    engine = make_engine(pool_size=1, max_overflow=1, pool_recycle=3600)
    async with engine.begin() as connection:
        await connection.execute(text("CREATE TABLE short_lived (id int)"))
        await connection.execute(text("SELECT 1"))
        await connection.execute(text("SELECT id FROM short_lived"))
        await connection.execute(text("DROP TABLE short_lived"))
    await replaced(engine)
    await use(engine)
    assert proxy.connects == 2

"""What a pool asks the server between two leases: bounded, and no slot is lost by it."""

import asyncio
from typing import Any

import asyncpg
import pytest
from sqlalchemy.ext.asyncio import AsyncEngine
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

from penstock.pool.slot import CloseReason

LONG = 30.0


async def backend_asked(connection: Any) -> int:
    process: int = await connection.driver_connection.fetchval("SELECT pg_backend_pid()")
    return process


async def sleep(connection: Any) -> None:
    await connection.driver_connection.execute("SELECT pg_sleep(60)")


async def serves_again(engine: AsyncEngine) -> None:
    """See that the one slot of a pool is there for the next, on another connection."""
    async with asyncio.timeout(LONG):
        await use(engine)
    assert pool_of(engine).ledger.open == 1


async def test_an_idle_connection_is_asked_and_counts_as_no_lease(
    make_engine: MakeEngine, proxy: Proxy
) -> None:
    engine = make_engine(pool_size=1)
    process = await backend(engine)
    events, spent = events_of(engine), proxy.connects

    assert await pool_of(engine).run_probe(backend_asked, LONG) == process
    assert (events, proxy.connects) == ([], spent)
    assert await backend(engine) == process


async def test_the_one_that_was_idle_for_longest_is_asked(make_engine: MakeEngine) -> None:
    engine = make_engine(pool_size=2)
    first, second = await backends(engine, 2)

    asked = [await pool_of(engine).run_probe(backend_asked, LONG) for _ in range(4)]
    assert asked == [first, second, first, second]


async def test_nobody_is_asked_where_nothing_is_idle(make_engine: MakeEngine) -> None:
    engine = make_engine(pool_size=1)
    assert await pool_of(engine).run_probe(backend_asked, LONG) is None
    async with engine.connect() as connection:
        await connection.get_raw_connection()
        assert await pool_of(engine).run_probe(backend_asked, LONG) is None


async def test_nobody_is_asked_in_a_pool_that_rests(make_engine: MakeEngine) -> None:
    engine = make_engine(pool_size=1)
    await use(engine)
    pool_of(engine).suspend()
    assert await pool_of(engine).run_probe(backend_asked, LONG) is None

    pool_of(engine).resume()
    assert await pool_of(engine).run_probe(backend_asked, LONG) is not None

    await pool_of(engine).drain(LONG)
    assert await pool_of(engine).run_probe(backend_asked, LONG) is None


async def test_nobody_is_asked_from_another_event_loop(make_engine: MakeEngine) -> None:
    engine = make_engine(pool_size=1)
    await use(engine)

    def elsewhere() -> int | None:
        return asyncio.run(pool_of(engine).run_probe(backend_asked, LONG))

    assert await asyncio.to_thread(elsewhere) is None


async def test_a_holder_waits_for_the_answer_and_gets_the_connection(
    make_engine: MakeEngine, proxy: Proxy
) -> None:
    engine = make_engine(pool_size=1, max_overflow=0)
    process = await backend(engine)
    may_answer = asyncio.Event()

    async def ask_slowly(connection: Any) -> int:
        await may_answer.wait()
        return await backend_asked(connection)

    asking = asyncio.create_task(pool_of(engine).run_probe(ask_slowly, LONG))
    await asyncio.sleep(0)
    checkout = asyncio.create_task(backend(engine))
    await eventually(lambda: pool_of(engine).snapshot().waiting == 1)
    may_answer.set()

    assert set(await asyncio.gather(asking, checkout)) == {process}
    assert proxy.connects == 1


async def test_a_server_that_does_not_answer_costs_the_bound_and_the_connection(
    make_engine: MakeEngine, proxy: Proxy
) -> None:
    engine = make_engine(pool_size=1, max_overflow=0)
    await use(engine)
    events = events_of(engine)
    proxy.silence()

    async with asyncio.timeout(LONG):
        with pytest.raises(TimeoutError):
            await pool_of(engine).run_probe(backend_asked, 0.2)

    await eventually(lambda: closed(events) == [CloseReason.DEAD])
    await serves_again(engine)


async def test_a_probe_that_is_cancelled_costs_the_connection(make_engine: MakeEngine) -> None:
    engine = make_engine(pool_size=1, max_overflow=0)
    process = await backend(engine)
    asking = asyncio.create_task(pool_of(engine).run_probe(sleep, LONG))
    await asyncio.sleep(0.1)
    asking.cancel()

    with pytest.raises(asyncio.CancelledError):
        await asking
    await serves_again(engine)
    assert await backend(engine) != process


async def test_a_probe_that_fails_costs_the_connection(make_engine: MakeEngine) -> None:
    engine = make_engine(pool_size=1, max_overflow=0)
    process = await backend(engine)

    async def fail(_: Any) -> None:
        raise KeyError("the probe's own")

    with pytest.raises(KeyError, match="the probe's own"):
        await pool_of(engine).run_probe(fail, LONG)
    await serves_again(engine)
    assert await backend(engine) != process


async def test_a_backend_that_ends_during_a_probe_is_not_reused(
    make_engine: MakeEngine,
) -> None:
    engine = make_engine(pool_size=1, max_overflow=0)
    process = await backend(engine)
    events = events_of(engine)

    async def end(connection: Any) -> None:
        with pytest.raises(asyncpg.PostgresError):
            await connection.driver_connection.execute(
                "SELECT pg_terminate_backend(pg_backend_pid())"
            )

    await pool_of(engine).run_probe(end, LONG)
    await eventually(lambda: closed(events) == [CloseReason.DEAD])
    await serves_again(engine)
    assert await backend(engine) != process


async def test_a_drain_waits_for_a_probe(make_engine: MakeEngine) -> None:
    engine = make_engine(pool_size=1)
    process = await backend(engine)
    asking = asyncio.create_task(pool_of(engine).run_probe(backend_asked, LONG))
    await asyncio.sleep(0)

    async with asyncio.timeout(LONG):
        await pool_of(engine).drain(LONG)
    assert await asking == process
    assert pool_of(engine).ledger.open == 0

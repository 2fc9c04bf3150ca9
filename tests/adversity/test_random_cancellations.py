"""Cancelled at any moment, in every way: nothing is lost, and the server never has too many."""

import asyncio
import os
from collections.abc import Awaitable, Callable
from random import Random

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from tests.adversity.backends import counting_backends
from tests.adversity.cancellations import WAYS
from tests.eventually import eventually

from penstock import PenstockPool

CANCELLATIONS = int(os.environ.get("CANCELLATIONS", "10000"))
"""Ten thousand take some ten seconds; ``CANCELLATIONS=100000`` has ten times as many."""
POOL_SIZE, MAX_OVERFLOW, TASKS = 5, 3, 16
LONGEST = 0.006
"""Seconds: some statements end before they are cancelled, some are cut off, some never start."""

Work = Callable[[AsyncEngine, Random, set[int]], Awaitable[None]]


async def write(engine: AsyncEngine, random: Random, acknowledged: set[int]) -> None:
    key = random.getrandbits(60)
    async with engine.connect() as connection:
        await connection.execute(text("INSERT INTO written VALUES (:key)"), {"key": key})
        await connection.execute(text("SELECT pg_sleep(:s)"), {"s": random.random() * LONGEST})
        await connection.commit()
    acknowledged.add(key)


async def read(engine: AsyncEngine, random: Random, acknowledged: set[int]) -> None:
    async with engine.connect() as connection:
        await connection.execute(text("SELECT pg_sleep(:s)"), {"s": random.random() * LONGEST})


async def read_in_autocommit(engine: AsyncEngine, random: Random, acknowledged: set[int]) -> None:
    async with engine.connect() as connection:
        await connection.execution_options(isolation_level="AUTOCOMMIT")
        await connection.execute(text("SELECT pg_sleep(:s)"), {"s": random.random() * LONGEST})


async def acquire_only(engine: AsyncEngine, random: Random, acknowledged: set[int]) -> None:
    async with engine.connect():
        await asyncio.sleep(random.random() * LONGEST)


@pytest.mark.timeout(1200)
async def test_nothing_is_lost_by_cancellations_at_random_moments(database_url: str) -> None:
    engine = create_async_engine(
        database_url, poolclass=PenstockPool, pool_size=POOL_SIZE, max_overflow=MAX_OVERFLOW
    )
    async with engine.begin() as connection:
        await connection.execute(text("CREATE TABLE written (key bigint PRIMARY KEY)"))
    random, acknowledged, cancelled = Random(20), set[int](), 0

    async def cancel_again_and_again() -> None:
        nonlocal cancelled
        works: list[Work] = [write, read, read_in_autocommit, acquire_only]
        while cancelled < CANCELLATIONS:
            work = random.choice(works)(engine, random, acknowledged)
            way = random.choice(WAYS)
            was_cancelled = await way(work, random.random() * LONGEST * 2.5)
            cancelled += was_cancelled

    with counting_backends(database_url) as count:
        async with asyncio.TaskGroup() as group:
            for _ in range(TASKS):
                group.create_task(cancel_again_and_again())
        pool = engine.pool
        assert isinstance(pool, PenstockPool)
        await eventually(lambda: pool.snapshot().checked_in == pool.snapshot().opened_total)
        await eventually(lambda: count.idle_in_transaction == 0)
        most = count.most

    snapshot = pool.snapshot()
    assert most <= POOL_SIZE + MAX_OVERFLOW
    assert count.samples > 50
    assert (snapshot.checked_out, snapshot.waiting, snapshot.invalid) == (0, 0, 0)
    async with engine.connect() as connection:
        found = set(await connection.scalars(text("SELECT key FROM written")))
    assert acknowledged <= found
    await asyncio.gather(*(read(engine, random, acknowledged) for _ in range(100)))
    await engine.dispose()

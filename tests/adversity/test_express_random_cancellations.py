"""The express lane and sessions side by side, cancelled at any moment, in every way."""

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from random import Random

import pytest
from sqlalchemy import BigInteger, bindparam, func, insert, select, text
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from tests.adversity.backends import counting_backends
from tests.adversity.cancellations import WAYS
from tests.eventually import eventually

from penstock import Database, query

CANCELLATIONS = int(os.environ.get("CANCELLATIONS", "10000")) // 25
"""Four hundred take some four seconds."""
POOL_SIZE, MAX_OVERFLOW, TASKS = 4, 2, 12
LONGEST = 0.006
"""Seconds: some statements end before they are cancelled, some are cut off, some never start."""


class Base(DeclarativeBase):
    """What the table belongs to."""


class Written(Base):
    """What was written, by whom it may be."""

    __tablename__ = "written"
    key: Mapped[int] = mapped_column(BigInteger, primary_key=True)


insert_key = query(insert(Written).values(key=bindparam("key")).returning(Written.key))
sleep = query(text("SELECT CAST(:number AS bigint) FROM pg_sleep(:seconds)"))
numbers = query(select(func.generate_series(1, bindparam("last"))))

Work = Callable[[Database, Random, set[int]], Awaitable[None]]


async def read(database: Database, random: Random, _: set[int]) -> None:
    number = random.getrandbits(60)
    seconds = random.random() * LONGEST
    assert await database.reader.scalar(sleep, number=number, seconds=seconds) == number


async def write(database: Database, random: Random, acknowledged: set[int]) -> None:
    key = random.getrandbits(60)
    row = await database.writer.one(insert_key, key=key)
    assert row.key == key
    acknowledged.add(key)


async def write_many(database: Database, random: Random, acknowledged: set[int]) -> None:
    keys = [random.getrandbits(60) for _ in range(20)]
    await database.writer.execute_many(insert(Written), [{"key": key} for key in keys])
    acknowledged.update(keys)


async def copy(database: Database, random: Random, acknowledged: set[int]) -> None:
    keys = [random.getrandbits(60) for _ in range(20)]

    async def rows() -> AsyncIterator[dict[str, int]]:
        for key in keys:
            await asyncio.sleep(random.random() * LONGEST / 10)
            yield {"key": key}

    assert await database.writer.copy_in(Written, rows()) == len(keys)
    acknowledged.update(keys)


async def stream(database: Database, random: Random, _: set[int]) -> None:
    last = random.randrange(1, 50)
    async with database.reader.stream(numbers, last=last).yield_per(10) as rows:
        assert [row[0] async for row in rows] == list(range(1, last + 1))


async def snapshot(database: Database, random: Random, _: set[int]) -> None:
    async with database.reader.snapshot() as moment:
        first = await moment.scalar(select(func.count()).select_from(Written))
        await moment.scalar(sleep, number=1, seconds=random.random() * LONGEST)
        assert await moment.scalar(select(func.count()).select_from(Written)) == first


async def write_in_a_session(database: Database, random: Random, acknowledged: set[int]) -> None:
    key = random.getrandbits(60)
    async with database.write() as session:
        session.add(Written(key=key))
    acknowledged.add(key)


async def read_in_a_session(database: Database, random: Random, _: set[int]) -> None:
    async with database.read() as session:
        await session.execute(text("SELECT pg_sleep(:s)"), {"s": random.random() * LONGEST})


async def write_by_the_engine(database: Database, random: Random, acknowledged: set[int]) -> None:
    key = random.getrandbits(60)
    async with database.engine.begin() as connection:
        await connection.execute(insert(Written), {"key": key})
    acknowledged.add(key)


WORKS: list[Work] = [
    read,
    write,
    write_many,
    copy,
    stream,
    snapshot,
    write_in_a_session,
    read_in_a_session,
    write_by_the_engine,
]


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    async with Database.from_url(
        database_url, environment="testing", pool_size=POOL_SIZE, max_overflow=MAX_OVERFLOW
    ) as database:
        async with database.engine.begin() as connection:
            await connection.run_sync(Base.metadata.create_all)
        yield database


@pytest.mark.timeout(1200)
async def test_nothing_is_lost_and_nobody_is_confined_by_anothers_read(
    database: Database, database_url: str
) -> None:
    random, acknowledged, cancelled = Random(20), set[int](), 0

    async def cancel_again_and_again() -> None:
        nonlocal cancelled
        while cancelled < CANCELLATIONS:
            work = random.choice(WORKS)(database, random, acknowledged)
            way = random.choice(WAYS)
            cancelled += await way(work, random.random() * LONGEST * 2)

    with counting_backends(database_url) as count:
        async with asyncio.TaskGroup() as group:
            for _ in range(TASKS):
                group.create_task(cancel_again_and_again())
        await eventually(
            lambda: database.pool.snapshot().checked_in == database.pool.snapshot().opened_total
        )
        await eventually(lambda: count.idle_in_transaction == 0)
        most = count.most

    assert most <= POOL_SIZE + MAX_OVERFLOW
    assert (database.pool.snapshot().checked_out, database.pool.snapshot().waiting) == (0, 0)
    found = {row.key for row in await database.reader.all(select(Written.key))}
    assert acknowledged <= found
    await asyncio.gather(*(work(database, random, acknowledged) for work in WORKS for _ in "12345"))

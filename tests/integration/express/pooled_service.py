"""A service whose connections lead to a pooler: one process, many tasks, every answer checked.

``python -m tests.integration.express.pooled_service URL FIRST`` runs it once.
"""

import asyncio
import sys
from typing import Any

from sqlalchemy import bindparam, insert, select, update
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.orm import (
    DeclarativeBase,
    Mapped,
    foreign,
    mapped_column,
    relationship,
    selectinload,
)

from penstock import Database, query

ITEMS = 200
"""Rows that every test finds, numbered from 0."""
TASKS = 20
REQUESTS = 3
"""How often each task asks each route."""


class Base(DeclarativeBase):
    """What the tables belong to."""


class Item(Base):
    """Something to be found by its number."""

    __tablename__ = "items"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]
    hits: Mapped[int] = mapped_column(default=0)
    entries: Mapped[list["Entry"]] = relationship(
        primaryjoin=lambda: Item.id == foreign(Entry.item_id), viewonly=True
    )


class Entry(Base):
    """Something that is only ever added."""

    __tablename__ = "entries"
    id: Mapped[int] = mapped_column(primary_key=True)
    item_id: Mapped[int]
    way: Mapped[str]


def expected_name(item_id: int) -> str:
    """Return the name by which an answer is known to belong to the question."""
    return f"item {item_id}"


async def fill(url: str) -> None:
    """Make the tables in an empty database, and the items in them."""
    engine = create_async_engine(url)
    rows = [{"id": each, "name": expected_name(each), "hits": 0} for each in range(ITEMS)]
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
        await connection.execute(insert(Item), rows)
    await engine.dispose()


def behind_pgbouncer(url: str, pool_size: int, **settings: Any) -> Database:
    """Return the service's database, whose URL leads to a PgBouncer."""
    return Database.from_url(
        url,
        environment="testing",
        proxy="pgbouncer",
        pool_size=pool_size,
        max_overflow=0,
        slow_query=None,  # which is no fault, on a machine that is busy
        **settings,
    )


by_id = Item.id == bindparam("item_id")
name_of = query(select(Item.name).where(by_id))
item_of = query(select(Item).where(by_id))
with_entries = query(select(Item).where(by_id).options(selectinload(Item.entries)))
names_between = query(
    select(Item.id, Item.name)
    .where(Item.id.between(bindparam("first"), bindparam("last")))
    .order_by(Item.id)
)
hit = query(update(Item).where(by_id).values(hits=Item.hits + 1).returning(Item.id, Item.name))
quiet_hit = query(update(Item).where(by_id).values(hits=Item.hits + 1))
add_entry = query(insert(Entry).values(item_id=bindparam("item_id"), way=bindparam("way")))


async def read_express(database: Database, item_id: int) -> None:
    """Ask for one row, one value and one object."""
    reader = database.reader
    assert (await reader.one(name_of, item_id=item_id)).name == expected_name(item_id)
    assert await reader.scalar(name_of, item_id=item_id) == expected_name(item_id)
    assert (await reader.one(item_of, item_id=item_id)).id == item_id
    assert await reader.one_or_none(name_of, item_id=-item_id - 1) is None
    entries = (await reader.one(with_entries, item_id=item_id)).entries
    assert {entry.item_id for entry in entries} <= {item_id}


async def read_many(database: Database, item_id: int) -> None:
    """Ask for a list, once whole and once as a stream."""
    wanted = [(each, expected_name(each)) for each in range(item_id, min(item_id + 50, ITEMS))]
    between = {"first": item_id, "last": item_id + 49}
    assert [tuple(row) for row in await database.reader.all(names_between, between)] == wanted
    async with database.reader.stream(names_between, between) as rows:
        assert [tuple(row) async for row in rows] == wanted
    async with database.reader.stream(names_between, between).yield_per(10) as rows:
        assert tuple(await anext(rows)) == wanted[0]


async def read_snapshot(database: Database, item_id: int) -> None:
    """Ask twice at the same moment, while others write."""
    async with database.reader.snapshot() as snapshot:
        first = await snapshot.one(item_of, item_id=item_id)
        assert (await snapshot.one(item_of, item_id=item_id)).hits == first.hits
        assert await snapshot.scalar(name_of, item_id=item_id) == expected_name(item_id)


async def write_express(database: Database, item_id: int) -> None:
    """Write two rows of one item, each in a transaction of its own."""
    row = await database.writer.one(hit, item_id=item_id)
    assert tuple(row) == (item_id, expected_name(item_id))
    assert await database.writer.execute(quiet_hit, item_id=item_id) == 1


async def write_many(database: Database, item_id: int) -> None:
    """Write several rows at once, by each of the ways."""
    await database.writer.execute_many(
        add_entry, [{"item_id": item_id, "way": "many"} for _ in range(3)]
    )
    rows = [{"item_id": item_id, "way": "copy"} for _ in range(3)]
    assert await database.writer.copy_in(Entry, rows) == 3


async def use_sessions(database: Database, item_id: int) -> None:
    """Read in one session and write in another."""
    async with database.read() as session:
        found = await session.get_one(Item, item_id)
        assert found.name == expected_name(item_id)
        streamed = await session.stream(select(Item.name).where(Item.id == item_id))
        assert [row.name async for row in streamed] == [expected_name(item_id)]
    async with database.write() as writing:
        await writing.execute(update(Item).where(Item.id == item_id).values(hits=Item.hits + 1))
        writing.add(Entry(item_id=item_id, way="session"))


ROUTES = (read_express, read_many, read_snapshot, write_express, write_many, use_sessions)
HITS = 3
"""What one round of the routes adds to an item's hits."""
ENTRIES = {"many": 3, "copy": 3, "session": 1}
"""What one round of the routes adds to the entries of an item."""


async def work(database: Database, first: int) -> None:
    """Let every task ask every route again and again, each about an item of its own.

    Args:
        database: The service's.
        first: The number of the first task's item.
    """

    async def task(item_id: int) -> None:
        for turn in range(REQUESTS * len(ROUTES)):
            await ROUTES[(turn + item_id) % len(ROUTES)](database, item_id)

    async with asyncio.TaskGroup() as tasks:
        for item_id in range(first, first + TASKS):
            tasks.create_task(task(item_id))


async def main(url: str, first: int) -> None:
    """Be one process of the service."""
    async with behind_pgbouncer(url, pool_size=10) as database:
        await work(database, first)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2])))

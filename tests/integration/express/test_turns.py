"""A bulk write lets the event loop run: rows are counted between two of its turns, not seconds."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest
import pytest_asyncio
from sqlalchemy import (
    Column,
    Dialect,
    Integer,
    MetaData,
    String,
    Table,
    TypeDecorator,
    func,
    insert,
    select,
    text,
)
from tests.eventually import eventually

from penstock import Database

pytestmark = pytest.mark.asyncio(loop_scope="module")
ROWS = 40_000
MOST = ROWS // 4
"""Rows between two turns. Five milliseconds' worth are some hundred; with no turns, it is all."""


class Work:
    """Counts what is done, and how much of it between two turns of the event loop."""

    def __init__(self) -> None:
        self.begin()

    def begin(self) -> None:
        self.done = self.longest = self._seen = 0

    def step(self) -> None:
        self.done += 1
        self.longest = max(self.longest, self.done - self._seen)

    async def watch(self) -> None:
        while True:
            self._seen = self.done
            await asyncio.sleep(0)


work = Work()


class Counted(TypeDecorator[str]):
    """Text whose conversions are counted, which are made for each row as it is sent."""

    impl = String
    cache_ok = True

    def process_bind_param(self, value: Any, dialect: Dialect) -> Any:
        work.step()
        return value


LINES = Table(
    "lines",
    MetaData(),
    Column("id", Integer),
    Column("line", Counted),
    Column("made", String, default=lambda: "made"),
)


def one_by_one() -> Iterator[dict[str, Any]]:
    for number in range(ROWS):
        work.step()
        yield {"id": number, "line": "line"}


async def one_by_one_async() -> AsyncIterator[dict[str, Any]]:
    for row in one_by_one():
        yield row


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def database(module_url: str) -> AsyncIterator[Database]:
    async with Database.from_url(module_url, environment="testing") as database:
        async with database.engine.begin() as connection:
            await connection.run_sync(LINES.metadata.create_all)
        yield database


WAYS: dict[str, Callable[[Any], Any]] = {
    "copy_generator": lambda writer: writer.copy_in(LINES, one_by_one()),
    "copy_list": lambda writer: writer.copy_in(LINES, list(one_by_one())),
    "copy_async_generator": lambda writer: writer.copy_in(LINES, one_by_one_async()),
    "execute_many": lambda writer: writer.execute_many(insert(LINES), one_by_one()),
}


@pytest.mark.parametrize("way", WAYS)
async def test_others_run_while_many_rows_are_written(database: Database, way: str) -> None:
    await database.writer.execute(text("TRUNCATE lines"))
    writing = WAYS[way](database.writer)
    work.begin()
    watching = asyncio.create_task(work.watch())
    try:
        await writing
    finally:
        watching.cancel()

    assert work.done >= ROWS
    assert work.longest < MOST
    assert await database.reader.scalar(select(func.count()).select_from(LINES)) == ROWS


async def test_a_copy_that_is_given_up_amid_its_turns_writes_nothing(database: Database) -> None:
    await database.writer.execute(text("TRUNCATE lines"))
    work.begin()
    writing = asyncio.create_task(database.writer.copy_in(LINES, one_by_one()))
    await eventually(lambda: work.done > 100)
    writing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await writing

    assert work.done < 2 * ROWS
    assert await database.reader.scalar(select(func.count()).select_from(LINES)) == 0

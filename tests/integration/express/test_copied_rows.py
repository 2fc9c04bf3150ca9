"""Rows that COPY cannot take: each is named, nothing is written, and the connection is kept."""

import datetime
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from typing import Any

import pytest
from sqlalchemy import Column, Date, Integer, MetaData, Table, Text, func, select
from sqlalchemy.dialects.postgresql import MACADDR, MONEY, TSVECTOR
from sqlalchemy.exc import DBAPIError

from penstock import Database
from penstock.errors import ExpressError, ParameterError

METADATA = MetaData()
ROWS = Table(
    "rows", METADATA, Column("id", Integer, primary_key=True), Column("day", Date, nullable=True)
)
UNCOPIED = {
    name: Table(f"of_{name}", METADATA, Column("id", Integer), Column("value", kind))
    for name, kind in {"macaddr": MACADDR, "money": MONEY, "tsvector": TSVECTOR}.items()
}
VALUES = {"macaddr": "08:00:2b:01:02:03", "money": "1.50", "tsvector": "some words"}
COPIED = Table("texts", METADATA, Column("id", Integer, primary_key=True), Column("text", Text))


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    database = Database.from_url(
        database_url, environment="testing", pool_size=1, max_overflow=0, telemetry=False
    )
    async with database:
        async with database.engine.begin() as connection:
            await connection.run_sync(METADATA.create_all)
        yield database


class Other:
    """No mapping."""


def kind(row: object) -> str:
    """Name a case by the type of its row."""
    return type(row).__name__


def as_list(rows: Iterable[Any]) -> Any:
    return list(rows)


def as_generator(rows: Iterable[Any]) -> Iterator[Any]:
    yield from rows


async def as_async_generator(rows: Iterable[Any]) -> AsyncIterator[Any]:
    for row in rows:
        yield row


async def is_as_before(database: Database) -> bool:
    """Return whether nothing is in the tables, and the first connection is still the only one."""
    counted = await database.reader.scalar(select(func.count()).select_from(ROWS))
    return counted == 0 and database.pool.snapshot().opened_total == 1


@pytest.mark.parametrize("given_as", [as_list, as_generator, as_async_generator])
@pytest.mark.parametrize("row", [None, "ab", (1, None), 5, Other(), [("id", 1)]], ids=kind)
@pytest.mark.parametrize("number", [1, 2])
async def test_a_row_that_is_no_mapping_is_named(
    database: Database, row: object, number: int, given_as: Callable[[Iterable[Any]], Any]
) -> None:
    rows: list[Any] = [{"id": 1}, {"id": 2}, {"id": 3}]
    rows[number - 1] = row

    with pytest.raises(ParameterError, match=rf"\b{number}\b.*\b{type(row).__name__}\b"):
        await database.writer.copy_in(ROWS, given_as(rows))

    assert await is_as_before(database)


async def test_a_value_of_another_type_is_named_by_its_row(database: Database) -> None:
    day = datetime.date(2026, 1, 1)

    with pytest.raises(DBAPIError, match="invalid input in row 2"):
        await database.writer.copy_in(ROWS, [{"id": 1, "day": day}, {"id": 2, "day": "today"}])

    assert await is_as_before(database)


@pytest.mark.parametrize("name", UNCOPIED)
async def test_a_type_without_a_binary_form_is_refused_as_such(
    database: Database, name: str
) -> None:
    with pytest.raises(ExpressError, match=r"no binary format encoder.*execute_many"):
        await database.writer.copy_in(UNCOPIED[name], [{"id": 1, "value": VALUES[name]}])

    assert await is_as_before(database)
    assert await database.writer.copy_in(COPIED, [{"id": 1, "text": "a"}]) == 1


async def test_no_row_at_all_writes_nothing(database: Database) -> None:
    assert await database.writer.copy_in(ROWS, []) == 0

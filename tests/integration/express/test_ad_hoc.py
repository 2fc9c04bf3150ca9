"""Statements that were not prepared: known again by their form, each with its own values."""

from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
import pytest_asyncio
from sqlalchemy import Select, bindparam, func, insert, literal, select, update
from sqlalchemy.orm import aliased, with_loader_criteria
from tests.integration.express.answers import by_session
from tests.integration.express.reads import ids
from tests.integration.express.shop import Base, Item, Stock, fill

from penstock import Database, ParameterError, QueryRefused, query
from penstock.express.adhoc import SIZE

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def database(module_url: str) -> AsyncIterator[Database]:
    async with Database.from_url(module_url, environment="testing") as database:
        async with database.engine.begin() as connection:
            await connection.run_sync(Base.metadata.create_all)
        yield database


@pytest_asyncio.fixture(loop_scope="module")
async def filled(database: Database) -> Database:
    await fill(database)
    return database


@pytest.mark.parametrize("size", [1, 2, 3])
async def test_statements_of_one_form_keep_their_own_values(filled: Database, size: int) -> None:
    for number in range(1, 5):
        found = await filled.reader.all(
            select(Item.id, literal(number * size))
            .where(Item.id.in_(range(number, number + size)), Item.price > number)
            .order_by(Item.id)
            .limit(size)
        )
        expected = [(n, number * size) for n in range(number, min(number + size, 5))]
        assert found == expected


async def test_written_statements_of_one_form_keep_their_own_values(filled: Database) -> None:
    for number in range(1, 5):
        await filled.writer.execute(update(Item).where(Item.id == number).values(price=number * 7))
        await filled.writer.execute(insert(Stock).values(item_id=number, place="p", pieces=number))
        row = await filled.writer.one(
            insert(Item).values(name=f"new {number}").returning(Item.name)
        )
        assert row == (f"new {number}",)
        assert await filled.reader.exists(
            select(Stock).where(Stock.item_id == number, Stock.place == "p")
        )

    assert await filled.reader.all(select(Item.price).where(Item.id < 5).order_by(Item.id)) == [
        (7,),
        (14,),
        (21,),
        (28,),
    ]
    assert not await filled.reader.exists(select(Item).where(Item.id == 99))


async def test_defaults_of_parameters_belong_to_their_own_statement(filled: Database) -> None:
    for number in (1, 2, 3):
        statement = ids.where(Item.id == bindparam("id", number))
        assert await filled.reader.all(statement) == [(number,)]
        assert await filled.reader.all(statement, id=4) == [(4,)]


@pytest.mark.parametrize("first", [0, 1])
async def test_which_parameters_need_a_value_is_up_to_each_statement_of_a_form(
    filled: Database, first: int
) -> None:
    column = (Item.id, Item.price)[first]  # another form for each order
    optional = select(Item.id).where(column > bindparam("low", 0))
    required = select(Item.id).where(column > bindparam("low"))
    for statement in (optional, required, optional, required)[first:]:
        if statement is optional:
            assert len(await filled.reader.all(statement)) == 4
        else:
            with pytest.raises(ParameterError, match="missing parameters: low"):
                await filled.reader.all(statement)
        assert await filled.reader.all(statement, low=99) == []


def of_an_alias() -> tuple[Select[*tuple[Any, ...]], Any]:
    item = aliased(Item)
    return select(item.name, item.id), item.id


def of_an_aliased_entity() -> tuple[Select[*tuple[Any, ...]], Any]:
    item = aliased(Item)
    return select(item.id, item), item


def of_a_label() -> tuple[Select[*tuple[Any, ...]], Any]:
    number = func.count().label("number")
    return select(func.max(Item.id), number), number


def of_a_tables_alias() -> tuple[Select[*tuple[Any, ...]], Any]:
    table = Item.__table__.alias()
    return select(table.c.price, table.c.id), table.c.id


def of_a_class() -> tuple[Select[*tuple[Any, ...]], Any]:
    return select(Item.name, Item.id), Item.id


@pytest.mark.parametrize(
    "made", [of_an_alias, of_an_aliased_entity, of_a_label, of_a_tables_alias, of_a_class]
)
async def test_a_value_is_found_by_the_statements_own_column(
    filled: Database, made: Callable[[], tuple[Select[*tuple[Any, ...]], Any]]
) -> None:
    for _ in range(2):
        statement, column = made()
        (row, *_) = await filled.reader.all(statement)
        assert row._mapping[column] is row[1]
        async with filled.reader.stream(statement) as rows:
            assert all([row._mapping[column] is row[1] async for row in rows])


async def test_criteria_of_one_form_keep_their_own_values(filled: Database) -> None:
    for number in (1, 2, 3):
        statement = ids.options(with_loader_criteria(Item, Item.id > number))
        found = await filled.reader.all(statement)
        assert found == await by_session(filled, statement)


async def test_forms_are_not_kept_without_end(filled: Database) -> None:
    for number in range(SIZE + 50):
        statement = select(literal(number).label(f"x{number}"))
        assert await filled.reader.scalar(statement) == number

    assert len(filled.reader._adhoc._queries) <= SIZE


@pytest.mark.parametrize("option", ["yield_per", "stream_results"])
async def test_options_of_a_session_are_refused_also_for_a_form_that_is_known(
    filled: Database, option: str
) -> None:
    statement = select(Item.id, Item.price)
    await filled.reader.all(statement)
    strange = statement.execution_options(**{option: 5})

    with pytest.raises(QueryRefused, match=option):
        query(strange)
    with pytest.raises(QueryRefused, match=option):
        await filled.reader.all(strange)

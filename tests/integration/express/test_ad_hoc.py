"""Statements that were not prepared: known again by their form, each with its own values."""

from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
import pytest_asyncio
from sqlalchemy import (
    Integer,
    bindparam,
    case,
    column,
    func,
    insert,
    inspect,
    literal,
    select,
    text,
    union_all,
    update,
)
from sqlalchemy.orm import Bundle, aliased, with_loader_criteria
from sqlalchemy.sql.compiler import SQLCompiler
from tests.integration.express.answers import by_session, picture
from tests.integration.express.reads import ids
from tests.integration.express.shop import Base, Item, Stock, fill

from penstock import Database, query
from penstock.errors import ParameterError, QueryRefused
from penstock.express.query import SIZE

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


def of_alias() -> Any:
    item = aliased(Item)
    return select(item.name, item.id), [item.id, item.name, inspect(item).selectable.c.id]


def of_aliased_entity() -> Any:
    item = aliased(Item)
    return select(item.id, item), [item, item.id]


def of_label() -> Any:
    number = func.count().label("number")
    return select(func.max(Item.id), number), [number]


def of_tables_alias() -> Any:
    table = Item.__table__.alias()
    return select(table.c.price, table.c.id), [table.c.id, table.c.price]


def of_class() -> Any:
    return select(Item.name, Item.id), [Item.id, Item.name, Item.__table__.c.id]


def of_table() -> Any:
    return select(Item.__table__), [Item.__table__.c.id, Item.__table__.c.item_name]


def of_entity_and_label() -> Any:
    number = func.length(Item.name).label("number")
    return select(Item, number), [Item, number]


def of_bundle() -> Any:
    number = func.length(Item.name).label("number")
    return select(Bundle("both", Item.id, Item.name), number), [number]


def of_text() -> Any:
    number = column("n", Integer)
    return text("SELECT 5 AS n, 6 AS m").columns(number), [number, "m"]


def of_text_by_position() -> Any:
    one, two = column("x", Integer), column("y", Integer)
    return text("SELECT 5 AS n, 6 AS m").columns(one, two), [one, two]


def of_union() -> Any:
    statement = union_all(select(literal(1).label("n")), select(literal(2).label("n")))
    return statement, [statement.selected_columns.n]


def of_union_of_columns() -> Any:
    item = aliased(Item)
    statement = union_all(select(item.id, item.name), select(Item.id, Item.name))
    return statement, list(statement.selected_columns)


def of_cte() -> Any:
    inner = select(Item.id, Item.price).cte()
    return select(inner.c.price, inner.c.id), [inner.c.id, inner.c.price]


def of_subquery() -> Any:
    inner = select(Item.id.label("x"), Item.price).subquery()
    return select(inner), [inner.c.x, inner.c.price]


def of_from_statement() -> Any:
    item = aliased(Item)
    inner = select(item.id, item.name)
    return select(Item.id, Item.name).from_statement(inner), [Item.id, Item.name]


def of_case() -> Any:
    kind = case((Item.id == 1, 2), else_=3)
    return select(Item.id, kind), [kind, Item.id]


READ_BY_COLUMNS: list[Callable[[], Any]] = [
    of_alias,
    of_aliased_entity,
    of_label,
    of_tables_alias,
    of_class,
    of_table,
    of_entity_and_label,
    of_bundle,
    of_text,
    of_text_by_position,
    of_union,
    of_union_of_columns,
    of_cte,
    of_subquery,
    of_from_statement,
    of_case,
]


def returning_label() -> Any:
    label = func.upper(Item.name).label("up")
    return update(Item).where(Item.id == 1).values(price=1).returning(Item.id, label), [label]


def returning_entity() -> Any:
    label = func.upper(Item.name).label("up")
    changed = update(Item).where(Item.id == 1).values(price=1)
    return changed.returning(Item, Item.id, label), [Item, Item.id, label]


def returning_core() -> Any:
    table: Any = Item.__table__
    label = func.upper(table.c.item_name).label("up")
    changed = update(table).where(table.c.id == 1).values(price=1)
    return changed.returning(table.c.id, label), [table.c.id, label]


@pytest.mark.parametrize("make", READ_BY_COLUMNS, ids=lambda make: make.__name__)
async def test_a_value_is_found_by_the_statements_own_column_at_each_call(
    filled: Database, make: Callable[[], Any]
) -> None:
    statement, keys = make()
    row: Any = await filled.reader.first(query(statement))
    expected = [picture(row._mapping[key]) for key in keys]
    for _ in range(3):
        statement, keys = make()
        row = await filled.reader.first(statement)
        assert [picture(row._mapping[key]) for key in keys] == expected
        async with filled.reader.stream(statement) as rows:
            async for row in rows:
                assert [picture(row._mapping[key]) for key in keys] == expected
                break
        async with filled.reader.snapshot() as snapshot:
            row = await snapshot.first(statement)
            assert [picture(row._mapping[key]) for key in keys] == expected


@pytest.mark.parametrize("make", [returning_label, returning_entity, returning_core])
async def test_a_returned_value_is_found_by_the_statements_own_column(
    filled: Database, make: Callable[[], Any]
) -> None:
    expected = None
    for _ in range(3):
        statement, keys = make()
        row = await filled.writer.one(statement)
        found = [key for key in keys if row._mapping[key] is not None]
        assert len(found) == len(keys)
        assert row._mapping[keys[-1]] == "ITEM 1"
        expected = expected or [picture(row._mapping[key]) for key in keys[1:]]
        assert [picture(row._mapping[key]) for key in keys[1:]] == expected


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


async def test_each_way_to_ask_compiles_a_form_once(
    filled: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    compiled = []
    compile_ = SQLCompiler.__init__

    def counted(self: SQLCompiler, *arguments: Any, **named: Any) -> None:
        compiled.append(self)
        compile_(self, *arguments, **named)

    monkeypatch.setattr(SQLCompiler, "__init__", counted)

    def statement(number: int) -> Any:
        criteria = with_loader_criteria(Item, Item.price > number)
        return select(Item).where(Item.id == number).options(criteria)

    async def ask(number: int) -> list[Any]:
        reader = filled.reader
        found = [await reader.exists(statement(number)), len(await reader.all(statement(number)))]
        async with reader.snapshot() as snapshot:
            found += [await snapshot.exists(statement(number))]
            found += [len(await snapshot.all(statement(number)))]
        async with reader.with_context(settings={"app.x": "1"}).snapshot() as snapshot:
            found += [await snapshot.exists(statement(number))]
        async with reader.stream(statement(number)) as rows:
            found += [len([row async for row in rows])]
        return [*found, await reader.with_timeout(5).exists(statement(number))]

    assert await ask(1) == [True, 1, True, 1, True, 1, True]
    assert compiled
    compiled.clear()
    assert await ask(2) == [True, 1, True, 1, True, 1, True]
    assert await ask(99) == [False, 0, False, 0, False, 0, False]
    assert compiled == []

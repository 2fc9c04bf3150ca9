"""Every form of statement: in the express lane the same as by a session."""

from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
import pytest_asyncio
from sqlalchemy import (
    Column,
    Integer,
    MetaData,
    String,
    Table,
    TypeDecorator,
    bindparam,
    delete,
    func,
    insert,
    select,
    update,
)
from sqlalchemy.exc import DBAPIError, IntegrityError, InvalidRequestError
from tests.integration.express.answers import by_session
from tests.integration.express.batches import at_once
from tests.integration.express.reads import READS, ids
from tests.integration.express.shop import Base, Item, Stock, fill
from tests.integration.express.writes import MANY, WRITES

from penstock import Database, query
from penstock.errors import ExpressError, ParameterError, QueryRefused

pytestmark = pytest.mark.asyncio(loop_scope="module")
table: Any = Item.__table__
stock: Any = Stock.__table__

NULLS = {"render_nulls": True}
"""A session leaves out of an INSERT what is None; the express lane writes NULL."""


async def content(database: Database) -> Any:
    async with database.read() as session:
        return [
            (await session.execute(select(each).order_by(*each.primary_key))).all()
            for each in (table, stock)
        ]


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


def seen(results: list[Any]) -> Any:
    return [(r._fields, list(r._mapping), tuple(r), [type(v) for v in r]) for r in results]


@pytest.mark.parametrize("name", READS)
async def test_reads_are_as_a_session_reads(filled: Database, name: str) -> None:
    statement, given = READS[name]
    expected = seen(await by_session(filled, statement, given))

    asked = query(statement)
    for _ in range(2):
        assert seen(await filled.reader.all(asked, given)) == expected
        assert seen(await filled.reader.all(statement, given)) == expected
    for results in await at_once(filled.reader.all(asked, given) for _ in range(12)):
        assert seen(results) == expected
    async with filled.reader.snapshot() as snapshot:
        assert seen(await snapshot.all(asked, given)) == expected
    async with filled.reader.stream(asked, given).yield_per(2) as rows:
        assert seen([row async for row in rows]) == expected


RETURNING = {"conflict_update", "update_entity", "cte_of_a_write", "insert_default_values"}
"""Those whose name does not say so."""


async def wrote(database: Database, run: Callable[[], Any]) -> Any:
    await fill(database)
    answer = await run()
    return answer, await content(database)


@pytest.mark.parametrize("name", WRITES)
async def test_writes_are_as_a_session_writes(database: Database, name: str) -> None:
    statement, given = WRITES[name]

    async def session() -> Any:
        async with database.write() as session:
            result: Any = await session.execute(statement, given, execution_options=NULLS)
            returns = "returning" in name or name in RETURNING
            return seen(result.all()) if returns else None, getattr(result, "rowcount", -1)

    (rows, count), expected = await wrote(database, session)
    for asked in (query(statement), statement):

        async def express(asked: Any = asked) -> Any:
            if rows is None:
                return await database.writer.execute(asked, given)
            return seen(await database.writer.all(asked, given))

        answer, content_now = await wrote(database, express)
        assert content_now == expected
        if rows is None:
            assert count in {answer, -1}
        else:
            assert answer == rows


@pytest.mark.parametrize("name", MANY)
async def test_many_writes_are_as_a_session_writes(database: Database, name: str) -> None:
    statement, given = MANY[name]

    async def session() -> None:
        async with database.write() as session:
            await session.execute(statement, given, execution_options=NULLS)

    async def express() -> None:
        await database.writer.execute_many(statement, given)

    expected = await wrote(database, session)
    assert await wrote(database, express) == expected


async def test_a_copy_fills_in_what_an_insert_does(database: Database) -> None:
    computed = {"length": 1, "ticket": 1}
    rows: list[dict[str, Any]] = [
        {"name": "a", "price": 1, **computed},
        {"name": "b", "price": None, **computed},
    ]

    async def session() -> None:
        async with database.write() as session:
            await session.execute(insert(Item), rows)

    async def express() -> None:
        assert await database.writer.copy_in(Item, rows) == 2

    _, (expected, _) = await wrote(database, session)
    _, (found, _) = await wrote(database, express)
    assert [row._mapping["slug"] for row in found] == [row._mapping["slug"] for row in expected]
    assert [row._mapping["number"] for row in found] == [row._mapping["number"] for row in expected]
    assert [row._mapping["colour"] for row in found] == [row._mapping["colour"] for row in expected]
    assert found == expected


async def test_a_copy_without_what_the_server_would_compute_is_refused(database: Database) -> None:
    with pytest.raises(ExpressError, match="length, ticket"):
        await database.writer.copy_in(Item, [{"name": "a"}])


class Encrypted(TypeDecorator[str]):
    """Text that the server turns into something else."""

    impl = String
    cache_ok = True

    def bind_expression(self, bindparam: Any) -> Any:
        return func.reverse(bindparam)


async def test_a_copy_past_what_the_server_would_make_of_a_value_is_refused(
    database: Database,
) -> None:
    notes = Table("notes", MetaData(), Column("line", Encrypted))
    async with database.engine.begin() as connection:
        await connection.run_sync(notes.metadata.create_all)

    with pytest.raises(ExpressError, match=r"bind_expression\(\) of line"):
        await database.writer.copy_in(notes, [{"line": "secret"}])
    await database.writer.execute_many(insert(notes), [{"line": "secret"}])
    assert await database.reader.all(select(notes.c.line)) == [("terces",)]


async def test_an_update_of_each_row_without_a_where_changes_no_other_row(filled: Database) -> None:
    try:
        await filled.writer.execute_many(update(Item), [{"id": 1, "price": 77}])
    except ExpressError:
        """Refusing is as good."""

    prices = await filled.reader.all(select(Item.price).order_by(Item.id))
    assert [price for (price,) in prices] in ([77, 20, 30, 40], [10, 20, 30, 40])


async def test_a_copy_that_breaks_a_constraint_says_so_and_returns_its_connection(
    filled: Database,
) -> None:
    with pytest.raises(IntegrityError):
        await filled.writer.copy_in(Stock, [{"item_id": 99, "place": "x", "pieces": 1}])

    assert filled.pool.snapshot().checked_out == 0


async def test_an_open_update_sets_what_is_named_by_attribute(filled: Database) -> None:
    statement = query(update(Item).where(Item.id == bindparam("i")))

    assert await filled.writer.execute(statement, i=1, name="x", price=3) == 1
    assert await filled.reader.one(select(Item.name, Item.price).where(Item.id == 1)) == ("x", 3)


async def test_a_write_without_returning_has_no_rows_to_give(filled: Database) -> None:
    for statement in (insert(Item).values(name="a"), update(Item).values(price=1)):
        with pytest.raises(InvalidRequestError, match="execute"):
            await filled.writer.all(query(statement))


async def test_locking_is_refused_by_the_server_in_a_reader(filled: Database) -> None:
    with pytest.raises(DBAPIError) as refused:
        await filled.reader.all(query(ids.with_for_update()))

    assert getattr(refused.value.orig, "sqlstate", None) == "25006"
    assert len(await filled.writer.all(query(ids.with_for_update()))) == 4


async def test_a_reader_refuses_what_writes(filled: Database) -> None:
    with pytest.raises(ExpressError, match="writer"):
        await filled.reader.all(delete(Stock))


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({}, "missing.*first, second"),
        ({"first": 1}, "missing.*second"),
        ({"first": 1, "second": 2, "thrid": 3}, "unknown: thrid"),
        ({"first": 1, "thrid": 3}, "missing.*second.*unknown: thrid"),
        ({"first": 1, "second": 2, "id_1": 3}, "unknown: id_1"),
    ],
)
async def test_parameters_that_do_not_fit_are_named(
    filled: Database, given: dict[str, int], told: str
) -> None:
    statement = ids.where(
        Item.id > bindparam("first"), Item.id < bindparam("second"), Item.id != 7
    ).limit(bindparam("third", 5))
    for asked in (query(statement), statement):
        with pytest.raises(ParameterError, match=told):
            await filled.reader.all(asked, given)
    write = query(
        update(Item).where(Item.id == bindparam("first")).values(price=bindparam("second"))
    )
    with pytest.raises(ParameterError, match=told):
        await filled.writer.execute(write, given)
    with pytest.raises(ParameterError, match=told):
        await filled.writer.execute_many(write, [{"first": 1, "second": 1}, given])


async def test_values_are_taken_as_a_mapping_and_as_keywords(filled: Database) -> None:
    asked = query(ids.where(Item.id > bindparam("low"), Item.id < bindparam("high")))

    expected = [(2,), (3,)]
    assert await filled.reader.all(asked, low=1, high=4) == expected
    assert await filled.reader.all(asked, {"low": 1, "high": 4}) == expected
    assert await filled.reader.all(asked, {"low": 1}, high=4) == expected


async def test_a_callable_is_called_for_each_use(filled: Database) -> None:
    answers = iter([1, 2, 3, 4])
    statement = select(bindparam("n", callable_=lambda: next(answers), type_=Integer))
    asked = query(statement)

    found = [await filled.reader.scalar(each) for each in (asked, asked, statement, statement)]
    assert found == [1, 2, 3, 4]


@pytest.mark.parametrize("thing", ["SELECT 1", func.now(), Item, Item.id, None, 5])
async def test_what_is_no_statement_is_refused(thing: Any) -> None:
    with pytest.raises(QueryRefused):
        query(thing)

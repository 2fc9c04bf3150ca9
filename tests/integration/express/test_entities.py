"""Instances of mapped classes: the same as a session's once it has expunged them."""

import pickle
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio
from pydantic import BaseModel, ConfigDict
from sqlalchemy import bindparam, delete, func, insert, inspect, literal, select, text
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import (
    defer,
    raiseload,
    with_expression,
    with_loader_criteria,
)
from tests.integration.express.answers import by_session, picture
from tests.integration.express.entity_statements import STATEMENTS, everybody
from tests.integration.express.staff import (
    Animal,
    Dog,
    Member,
    Square,
    Team,
    User,
    staff_database,
)

from penstock import Database, query

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def database(module_url: str) -> AsyncIterator[Database]:
    async with staff_database(module_url) as database:
        yield database


@pytest.mark.parametrize("name", STATEMENTS)
async def test_instances_are_as_a_session_leaves_them(database: Database, name: str) -> None:
    statement = STATEMENTS[name]
    expected = picture(await by_session(database, statement))

    asked = query(statement)
    for _ in range(2):
        assert picture(await database.reader.all(asked)) == expected
        assert picture(await database.reader.all(statement)) == expected
    async with database.reader.snapshot() as snapshot:
        assert picture(await snapshot.all(asked)) == expected


async def test_a_stream_gives_the_same_instances(database: Database) -> None:
    async with database.reader.stream(query(everybody)).yield_per(2) as found:
        streamed = [user async for user in found]

    assert picture(streamed) == picture(await by_session(database, everybody))


def refusal(instance: Any, name: str) -> type[Exception]:
    with pytest.raises(SQLAlchemyError) as told:
        getattr(instance, name)
    return told.type


@pytest.mark.parametrize("option", [None, raiseload(User.team), raiseload("*"), defer(User.age)])
@pytest.mark.parametrize("name", ["team", "biography", "secret", "addresses"])
async def test_what_was_not_loaded_says_so(database: Database, option: Any, name: str) -> None:
    statement = select(User).where(User.id == 1)
    statement = statement if option is None else statement.options(option)
    (expected,) = await by_session(database, statement)

    user = await database.reader.one(query(statement))

    assert refusal(user, name) is refusal(expected, name)


async def test_a_changed_instance_is_merged_and_flushed(database: Database) -> None:
    member = await database.reader.one(query(select(Member).where(Member.id == 1)))
    member.points = 100
    assert inspect(member).modified
    async with database.write() as session:
        merged = await session.merge(member)
        assert merged is not member

    assert await database.reader.scalar(select(Member.points).where(Member.id == 1)) == 100


async def test_a_changed_instance_is_added_and_flushed(database: Database) -> None:
    member = await database.reader.one(query(select(Member).where(Member.id == 1)))
    async with database.write() as session:
        session.add(member)
        assert await session.get(Member, 1) is member
        member.points += 1

    expected = member.points
    assert await database.reader.scalar(select(Member.points).where(Member.id == 1)) == expected


async def test_an_added_instance_loads_what_was_missing(database: Database) -> None:
    user = await database.reader.one(query(everybody.where(User.id == 1)))
    async with database.write() as session:
        session.add(user)
        await session.refresh(user, ["biography", "team"])
        assert user.team is not None
        assert user.team.name == "red"
        await session.refresh(user)
        await session.delete(user)
        await session.rollback()


async def test_an_instance_is_deleted(database: Database) -> None:
    await database.writer.execute(text("INSERT INTO members VALUES (99, 'x', 1)"))
    member = await database.reader.one(query(select(Member).where(Member.id == 99)))
    async with database.write() as session:
        await session.delete(member)

    assert await database.reader.one_or_none(select(Member).where(Member.id == 99)) is None


@pytest.mark.parametrize(
    "name", ["plain", "tuples_outer", "joined_collection", "columns", "single_base"]
)
async def test_results_can_be_pickled(database: Database, name: str) -> None:
    found = await database.reader.all(query(STATEMENTS[name]))

    assert picture(pickle.loads(pickle.dumps(found))) == picture(found)


class UserModel(BaseModel):
    """What a route answers with."""

    model_config = ConfigDict(from_attributes=True)
    id: int
    name: str
    age: int | None


async def test_pydantic_takes_rows_and_instances(database: Database) -> None:
    by_row = query(select(User.id, User.name, User.age).where(User.id == bindparam("number")))
    by_entity = query(select(User).where(User.id == bindparam("number")))

    expected = UserModel(id=2, name="user 2", age=20)
    assert UserModel.model_validate(await database.reader.one(by_row, number=2)) == expected
    assert UserModel.model_validate(await database.reader.one(by_entity, number=2)) == expected


async def test_a_row_is_like_a_sessions(database: Database) -> None:
    statement = (
        select(
            User.id,
            User.name,
            Team.name,
            func.count().label("count"),
            literal(5).label("index"),
            User.age + 1,
        )
        .join(User.team)
        .group_by(User.id, Team.name)
        .order_by(User.id)
    )
    (expected, *_), (row, *_) = (
        await by_session(database, statement),
        await database.reader.all(query(statement)),
    )

    assert row == expected == tuple(row)
    assert hash(row) == hash(expected)
    assert row._fields == expected._fields
    assert dict(row._mapping) == dict(expected._mapping)
    assert list(row._mapping) == list(expected._mapping)
    for column in (User.id, User.name, Team.name, User.__table__.c.user_name):
        assert row._mapping[column] == expected._mapping[column]
    assert row._mapping["index"] == expected._mapping["index"] == 5
    assert (row.index, row.count) == (expected.index, expected.count) == (5, 1)
    assert row[1:3] == expected[1:3]
    assert row._asdict() == expected._asdict()
    for name in ("nothing", "age"):
        with pytest.raises(AttributeError):
            getattr(row, name)
        with pytest.raises(KeyError):
            row._mapping[name]
    with pytest.raises((AttributeError, TypeError)):
        row.id = 3


@pytest.mark.parametrize(
    "statement",
    [text("SELECT 1 AS x, 2 AS x"), select(User.id.label("x"), User.age.label("x")).limit(1)],
    ids=["text", "select"],
)
async def test_a_name_that_comes_twice_is_what_it_is_in_a_session(
    database: Database, statement: Any
) -> None:
    (expected,) = await by_session(database, statement)
    (row,) = await database.reader.all(query(statement))

    assert row == expected
    assert row.x == expected.x
    assert row._mapping["x"] == expected._mapping["x"]
    assert list(row._mapping) == list(expected._mapping)


async def test_an_expression_takes_its_value_from_a_parameter(database: Database) -> None:
    statement = everybody.options(with_expression(User.score, User.id * bindparam("factor")))

    asked = query(statement)
    assert asked.required == {"factor"}
    assert picture(await database.reader.all(asked, factor=3)) == picture(
        await by_session(database, statement, {"factor": 3})
    )


async def test_criteria_take_their_value_from_a_parameter(database: Database) -> None:
    statement = everybody.options(with_loader_criteria(User, User.age > bindparam("least")))

    asked = query(statement)
    for least in (0, 10, 20):
        found = await database.reader.all(asked, least=least)
        assert picture(found) == picture(await by_session(database, statement, {"least": least}))


async def test_square_is_loaded_by_itself(database: Database) -> None:
    assert picture(await database.reader.all(query(select(Square)))) == picture(
        await by_session(database, select(Square))
    )


async def test_a_class_that_shares_its_table_is_written_as_what_it_is(database: Database) -> None:
    writer = database.writer
    async with database.write() as session:
        await session.execute(insert(Dog), [{"id": 100, "name": "rex"}])
    await writer.execute(insert(Dog), id=101, name="rex")
    await writer.execute(query(insert(Dog)), id=102, name="rex")
    await writer.execute_many(insert(Dog), [{"id": 103, "name": "rex"}])
    await writer.copy_in(Dog, [{"id": 104, "name": "rex"}])
    await writer.copy_in(Dog, [{"id": 105, "name": "rex", "kind": "cat"}])

    kinds = query(select(Animal.id, Animal.kind).where(Animal.id >= 100).order_by(Animal.id))
    expected = [(number, "dog") for number in range(100, 105)]
    assert await database.reader.all(kinds) == [*expected, (105, "cat")]
    await writer.execute(delete(Animal).where(Animal.id >= 100))

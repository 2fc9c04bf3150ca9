"""What readers and writers promise their callers, on a real server."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
from sqlalchemy import (
    bindparam,
    delete,
    func,
    insert,
    select,
    text,
    update,
)
from sqlalchemy.exc import (
    DBAPIError,
    IntegrityError,
    MultipleResultsFound,
    NoResultFound,
)
from sqlalchemy.orm import with_loader_criteria
from tests.integration.express.people import (
    User,
    add,
    by_id,
    name_of,
    named,
    names,
    people,
    row_of,
    series,
    user_of,
    visit,
)

from penstock import Database, query
from penstock.errors import ExpressError, ParameterError


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    """A pool of one connection, with ada and bob."""
    async with people(database_url) as database:
        yield database


async def test_one_is_the_only_result(database: Database) -> None:
    row = await database.reader.one(row_of, user_id=1)
    assert (row.id, row.name) == tuple(row) == (1, "ada")
    with pytest.raises(NoResultFound):
        await database.reader.one(row_of, user_id=9)
    with pytest.raises(MultipleResultsFound):
        await database.reader.one(names)


async def test_one_or_none_is_none_where_there_is_none(database: Database) -> None:
    assert await database.reader.one_or_none(name_of, user_id=2) == ("bob",)
    assert await database.reader.one_or_none(name_of, user_id=9) is None
    with pytest.raises(MultipleResultsFound):
        await database.reader.one_or_none(names)


async def test_first_scalar_and_all(database: Database) -> None:
    reader = database.reader
    assert await reader.first(names) == ("ada",)
    assert await reader.first(name_of, user_id=9) is None
    assert await reader.scalar(names) == "ada"
    assert await reader.all(names) == [("ada",), ("bob",)]
    assert await reader.all(name_of, user_id=9) == []


async def test_exists_asks_for_no_more_than_one(database: Database) -> None:
    reader = database.reader
    assert await reader.exists(name_of, user_id=1) is True
    assert await reader.exists(name_of, {"user_id": 9}) is False
    assert await reader.exists(select(User).where(User.name == "ada")) is True
    assert await reader.with_timeout(5).exists(select(User).where(User.name == "eve")) is False
    with pytest.raises(ExpressError, match=r"exists\(\) takes a select"):
        await reader.exists(query(text("SELECT 1")))


async def test_exists_sees_no_more_than_criteria_let(database: Database) -> None:
    for name in ("ada", "nobody"):
        seen = select(User).options(with_loader_criteria(User, User.name == name))
        expected = bool(await database.reader.all(seen))
        assert await database.reader.exists(seen) == expected
        assert await database.reader.exists(query(seen)) == expected
    criteria = with_loader_criteria(User, User.name == bindparam("name"))
    given = query(select(User).options(criteria))
    assert await database.reader.exists(given, name="ada")
    assert not await database.reader.exists(given, name="nobody")


async def test_an_entity_is_detached_and_complete(database: Database) -> None:
    user = await database.reader.one(user_of, user_id=1)
    assert (user.id, user.name, user.visits) == (1, "ada", 7)
    user.name = "changed by its reader alone"
    assert (await database.reader.one(user_of, user_id=1)).name == "ada"


async def test_values_are_keywords_or_a_mapping_or_both(database: Database) -> None:
    both = query(select(User.id).where(by_id, User.name == bindparam("name")))
    for values, keywords in (
        ({"user_id": 1, "name": "ada"}, {}),
        ({"user_id": 1}, {"name": "ada"}),
        (None, {"user_id": 1, "name": "ada"}),
    ):
        assert await database.reader.scalar(both, values, **keywords) == 1


async def test_missing_and_unknown_values_are_named_and_nothing_is_sent(
    database: Database,
) -> None:
    async with database.engine.connect():  # the pool's only connection
        for values, message in (
            ({}, "missing parameters: user_id"),
            ({"user_id": 1, "nmae": "x"}, "unknown: nmae"),
            ({"id": 1}, "missing parameters: user_id; unknown: id"),
        ):
            with pytest.raises(ParameterError, match=message):
                await database.reader.one(row_of, values)


async def test_ad_hoc_statements_have_their_own_values(database: Database) -> None:
    for user_id, name in ((1, "ada"), (2, "bob")):
        statement = select(User.name).where(User.id == user_id)
        assert await database.reader.scalar(statement) == name
    for wanted in (["ada"], ["ada", "bob"], []):
        assert len(await database.reader.all(named, names=wanted)) == len(wanted)
    assert await database.reader.scalar(text("SELECT :a || :b"), a="x", b="y") == "xy"


async def test_a_reader_refuses_what_writes_before_it_is_sent(database: Database) -> None:
    async with database.engine.connect():  # the pool's only connection
        for statement in (add, insert(User), delete(User), update(User).where(User.id == 1)):
            with pytest.raises(ExpressError, match="writer"):
                await database.reader.all(statement, name="eve")


async def test_the_server_refuses_what_a_reader_cannot_see(database: Database) -> None:
    statement = text(
        "WITH added AS (INSERT INTO users (name, visits) VALUES ('eve', 0) RETURNING id) "
        "SELECT id FROM added"
    )

    async def snapshot() -> None:
        async with database.reader.snapshot() as moment:
            await moment.all(statement)

    async def stream() -> None:
        async with database.reader.stream(statement) as rows:
            assert [row async for row in rows] == []

    for work in (lambda: database.reader.all(statement), snapshot, stream):
        with pytest.raises(DBAPIError) as refused:
            await work()
        assert getattr(refused.value.orig, "sqlstate", None) == "25006"
    assert await database.reader.all(names) == [("ada",), ("bob",)]


async def test_a_writer_returns_what_the_statement_returns(database: Database) -> None:
    row = await database.writer.one(add, name="eve")
    assert (row.id, row.name) == (3, "eve")
    assert await database.writer.scalar(add, name="fay") == 4
    user = await database.writer.one(insert(User).returning(User), name="gil", visits=1)
    assert (user.id, user.name, user.visits) == (5, "gil", 1)
    gone = await database.writer.all(delete(User).where(User.id > 2).returning(User.name))
    assert {row.name for row in gone} == {"eve", "fay", "gil"}


async def test_execute_counts_rows(database: Database) -> None:
    writer = database.writer
    assert await writer.execute(visit, user_id=1) == 1
    assert await writer.execute(visit, user_id=9) == 0
    assert await writer.execute(update(User).values(visits=0)) == 2
    assert await writer.execute(insert(User), name="eve") == 1
    assert await writer.execute(delete(User)) == 3


async def test_execute_many_writes_all_or_nothing(database: Database) -> None:
    writer = database.writer
    await writer.execute_many(insert(User), [{"name": str(number)} for number in range(1000)])
    assert await database.reader.scalar(select(func.count()).select_from(User)) == 1002
    with pytest.raises(IntegrityError) as refused:
        await writer.execute_many(insert(User), [{"name": "eve"}, {"name": "ada"}])
    assert getattr(refused.value.orig, "sqlstate", None) == "23505"
    for rows in ([{"name": "eve"}, {"nmae": "fay"}], [{"name": "eve"}, {}]):
        with pytest.raises(ExpressError):
            await writer.execute_many(insert(User), rows)
    await writer.execute_many(insert(User), [])
    assert not await database.reader.exists(select(User).where(User.name == "eve"))


async def test_copy_in_writes_all_or_nothing(database: Database) -> None:
    async def rows() -> AsyncIterator[dict[str, Any]]:
        for number in range(5000):
            yield {"name": str(number)}

    writer = database.writer
    assert await writer.copy_in(User, rows()) == 5000
    assert await writer.copy_in(User.__table__, [{"id": 0, "name": "zoe", "visits": 1}]) == 1
    assert await writer.copy_in(User, []) == 0
    assert await database.reader.scalar(select(User.visits).where(User.name == "4999")) == 7
    uneven: list[dict[str, Any]] = [{"name": "eve"}, {"name": "fay", "visits": 1}]
    for wrong in ([{"nmae": "eve"}], uneven):
        with pytest.raises(ParameterError):
            await writer.copy_in(User, wrong)
    with pytest.raises(ExpressError):
        await writer.copy_in(int, [{"name": "eve"}])
    assert not await database.reader.exists(select(User).where(User.name == "eve"))


async def test_a_stream_gives_every_row_in_order(database: Database) -> None:
    for batch in (1, 7, 500):
        async with database.reader.stream(series, last=50).yield_per(batch) as rows:
            assert [row.number async for row in rows] == list(range(1, 51))
    stream = database.reader.stream(series, {"last": 3})
    assert [row.number async for row in stream] == [1, 2, 3]
    async with database.reader.stream(select(User).order_by(User.id)) as users:
        assert [user.name async for user in users] == ["ada", "bob"]
    async with database.reader.stream(name_of, user_id=9) as nobody:
        assert [row async for row in nobody] == []


async def test_a_snapshot_sees_one_moment(database: Database, database_url: str) -> None:
    async with (
        Database.from_url(database_url, environment="testing") as other,
        database.reader.snapshot() as moment,
    ):
        assert await moment.scalar(select(func.count()).select_from(User)) == 2
        await other.writer.one(add, name="eve")
        assert await moment.all(names) == [("ada",), ("bob",)]
        async with moment.stream(names) as rows:
            assert [row.name async for row in rows] == ["ada", "bob"]
        async with moment.snapshot() as same:
            assert not await same.exists(select(User).where(User.name == "eve"))
        assert await other.reader.exists(select(User).where(User.name == "eve"))
    assert await database.reader.exists(select(User).where(User.name == "eve"))


async def test_a_timeout_is_for_one_call_alone(database: Database) -> None:
    sleep = query(text("SELECT pg_sleep(:seconds)"))
    with pytest.raises(TimeoutError):
        await database.reader.with_timeout(0.05).one(sleep, seconds=60)
    await database.reader.with_timeout(10).one(sleep, seconds=0.1)
    await database.reader.one(sleep, {"seconds": 0.1})

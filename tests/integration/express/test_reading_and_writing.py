"""What readers and writers promise their callers, on a real server."""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from decimal import Decimal
from typing import Any

import pytest
from sqlalchemy import bindparam, delete, func, insert, select, text, update
from sqlalchemy.exc import (
    DBAPIError,
    IntegrityError,
    MultipleResultsFound,
    NoResultFound,
    ProgrammingError,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from penstock import Database, ExpressError, ParameterError, query


class Base(DeclarativeBase):
    """What the table belongs to."""


class User(Base):
    """Somebody to be read and written."""

    __tablename__ = "users"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(unique=True)
    visits: Mapped[int] = mapped_column(default=7)


by_id = User.id == bindparam("user_id")
row_of = query(select(User.id, User.name).where(by_id))
name_of = query(select(User.name).where(by_id))
user_of = query(select(User).where(by_id))
names = query(select(User.name).order_by(User.id))
named = query(select(User.id).where(User.name.in_(bindparam("names", expanding=True))))
add = query(insert(User).values(name=bindparam("name")).returning(User.id, User.name))
visit = query(update(User).where(by_id).values(visits=User.visits + 1))
series = query(text("SELECT generate_series(1, CAST(:last AS int)) AS number"))


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    """A pool of one connection, with ada and bob."""
    database = Database.from_url(database_url, environment="testing", pool_size=1, max_overflow=0)
    async with database.engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
    await database.writer.execute_many(add, [{"name": name} for name in ("ada", "bob")])
    yield database
    await database.close(timeout=1)


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
    assert await reader.exists(select(User).where(User.name == "eve"), timeout=5) is False
    with pytest.raises(ExpressError, match=r"exists\(\) takes a select"):
        await reader.exists(query(text("SELECT 1")))


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
            with pytest.raises(ExpressError, match="give it to the writer"):
                await database.reader.all(statement, name="eve")


async def test_the_server_refuses_what_a_reader_cannot_see(database: Database) -> None:
    statement = text("INSERT INTO users (name, visits) VALUES ('eve', 0) RETURNING id")

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


async def test_the_servers_error_in_a_copy_is_sqlalchemys(database: Database) -> None:
    for _ in range(2):
        with pytest.raises(IntegrityError) as refused:
            await database.writer.copy_in(User, [{"name": "eve"}, {"name": "ada"}])
        assert getattr(refused.value.orig, "sqlstate", None) == "23505"
        assert database.pool.checked_out == 0
    assert await database.reader.all(names) == [("ada",), ("bob",)]


async def test_a_value_that_does_not_fit_is_told_as_sqlalchemy_would(database: Database) -> None:
    rows = [{"name": "eve", "visits": 2**40}]
    works: list[Callable[[], Awaitable[Any]]] = [
        lambda: database.reader.one(row_of, user_id="not a number"),
        lambda: database.writer.execute(insert(User), rows[0]),
        lambda: database.writer.execute_many(insert(User), rows),
        lambda: database.writer.copy_in(User, rows),
    ]
    for work in works:
        with pytest.raises(DBAPIError):
            await work()


@pytest.mark.parametrize("wrong", ["many", 2**40, Decimal("NaN")])
async def test_a_value_that_does_not_fit_leaves_nothing_of_a_copy(
    database: Database, wrong: object
) -> None:
    rows = [{"name": "eve", "visits": 1}, {"name": "fay", "visits": wrong}]
    for _ in range(2):
        with pytest.raises(DBAPIError, match="invalid input in row 2: "):
            await database.writer.copy_in(User, rows)
        assert await database.writer.execute(visit, user_id=1) == 1
    assert await database.reader.all(names) == [("ada",), ("bob",)]


async def test_what_fails_where_the_rows_come_from_is_told_as_it_is(database: Database) -> None:
    def rows() -> Iterator[dict[str, Any]]:
        yield {"name": "eve"}
        raise ValueError("the caller's own")

    with pytest.raises(ValueError, match=r"^the caller's own$"):
        await database.writer.copy_in(User, rows())
    assert await database.reader.all(names) == [("ada",), ("bob",)]


async def test_the_servers_errors_are_sqlalchemys(database: Database) -> None:
    with pytest.raises(IntegrityError) as refused:
        await database.writer.one(add, name="ada")
    assert getattr(refused.value.orig, "sqlstate", None) == "23505"
    with pytest.raises(ProgrammingError) as unknown:
        await database.reader.all(text("SELECT * FROM nowhere"))
    assert getattr(unknown.value.orig, "sqlstate", None) == "42P01"
    assert "nowhere" in str(unknown.value.statement)


async def test_the_servers_errors_in_a_snapshot_are_sqlalchemys(database: Database) -> None:
    async with database.reader.snapshot() as moment:
        with pytest.raises(ProgrammingError) as unknown:
            await moment.all(text("SELECT * FROM nowhere"))
        assert "nowhere" in str(unknown.value.statement)


async def test_the_servers_errors_amid_a_stream_are_sqlalchemys(database: Database) -> None:
    failing = text("SELECT 1 / (3 - number) FROM generate_series(1, 5) AS number")
    async with database.reader.stream(failing, batch=1) as rows:
        with pytest.raises(DBAPIError, match="division by zero"):
            async for _ in rows:
                pass


async def test_a_stream_gives_every_row_in_order(database: Database) -> None:
    for batch in (1, 7, 500):
        async with database.reader.stream(series, last=50, batch=batch) as rows:
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
        await database.reader.one(sleep, seconds=60, timeout=0.05)
    await database.reader.one(sleep, seconds=0.1, timeout=10)
    await database.reader.one(sleep, {"seconds": 0.1})

"""An INSERT of a list of rows that returns something: of all of them, or nothing is written."""

from typing import Any

import pytest
from sqlalchemy import ForeignKey, bindparam, delete, func, insert, select, update
from sqlalchemy.exc import IntegrityError, NoResultFound
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship, selectinload
from tests.integration.express.answers import in_session, picture
from tests.servers.proxy import Proxy

from penstock import Database, query
from penstock.errors import ParameterError
from penstock.express.errors import ExpressError
from penstock.testing import rollback_after


class Base(DeclarativeBase):
    """What the tables belong to."""


class Kind(Base):
    """Is referred to."""

    __tablename__ = "kinds"
    id: Mapped[int] = mapped_column(primary_key=True)


class Thing(Base):
    """With defaults of each sort, and another name in the database."""

    __tablename__ = "things"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column("thing_name", unique=True)
    size: Mapped[int] = mapped_column(default=lambda: 3)
    note: Mapped[str | None] = mapped_column(server_default="none")
    kind_id: Mapped[int | None] = mapped_column(ForeignKey("kinds.id"))
    kind: Mapped[Kind | None] = relationship()


table = Base.metadata.tables["things"]
ROWS = [{"name": f"thing {number}", "kind_id": 1 + number % 2} for number in range(20)]


@pytest.fixture
async def database(behind_proxy: Database) -> Database:
    async with behind_proxy.engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
        await connection.execute(insert(Kind), [{"id": 1}, {"id": 2}])
    return behind_proxy


async def count(database: Database) -> int:
    return await database.reader.scalar(select(func.count()).select_from(Thing)) or 0


STATEMENTS: dict[str, Any] = {
    "instances": insert(Thing).returning(Thing, sort_by_parameter_order=True),
    "columns": insert(Thing).returning(Thing.name, Thing.size, sort_by_parameter_order=True),
    "one_column": insert(Thing).returning(Thing.id, sort_by_parameter_order=True),
    "expression": insert(Thing).returning(Thing.size * 2, Thing, sort_by_parameter_order=True),
    "related": insert(Thing)
    .returning(Thing, sort_by_parameter_order=True)
    .options(selectinload(Thing.kind)),
    "table": insert(table).returning(table.c.size),
}


def rows_for(name: str) -> list[dict[str, Any]]:
    key = "thing_name" if name == "table" else "name"
    return [{key: row["name"], "kind_id": row["kind_id"]} for row in ROWS]


@pytest.mark.parametrize("name", STATEMENTS)
async def test_what_is_returned_is_what_a_session_returns(database: Database, name: str) -> None:
    statement, rows = STATEMENTS[name], rows_for(name)
    start = "ALTER SEQUENCE things_id_seq RESTART"

    async def afresh() -> None:
        async with database.engine.begin() as connection:
            await connection.execute(delete(Thing))
            await connection.exec_driver_sql(start)

    await afresh()
    async with AsyncSession(database.engine) as session:
        expected = await in_session(session, statement, rows)
    for asked in (statement, query(statement)):
        await afresh()
        assert picture(await database.writer.all(asked, rows)) == picture(expected)
        assert await count(database) == 20


async def test_it_is_one_round_trip(database: Database, proxy: Proxy) -> None:
    asked = query(insert(Thing).returning(Thing.id, Thing.name))
    await database.writer.all(asked, ROWS)
    await database.writer.execute(delete(Thing))
    before = proxy.round_trips
    found = await database.writer.all(asked, ROWS)

    assert proxy.round_trips - before == 1
    assert [row.name for row in found] == [row["name"] for row in ROWS]


async def test_all_rows_are_written_or_none(database: Database) -> None:
    asked = insert(Thing).returning(Thing)
    with pytest.raises(IntegrityError):
        await database.writer.all(asked, [*ROWS, ROWS[0]])
    with pytest.raises(IntegrityError):
        await database.writer.all(
            asked.options(selectinload(Thing.kind)), [*ROWS, {"name": "x", "kind_id": 9}]
        )

    assert await count(database) == 0
    assert len(await database.writer.all(asked, ROWS)) == 20


@pytest.mark.parametrize("asked", [insert(Thing), insert(Thing).returning(Thing.name)])
async def test_execute_many_writes_all_rows_and_returns_none(
    database: Database, asked: Any
) -> None:
    for number, statement in enumerate((asked, query(asked))):
        rows = [{**row, "name": f"{row['name']} {number}"} for row in ROWS]
        found: Any = await database.writer.execute_many(statement, rows)  # type: ignore[func-returns-value]
        assert found is None

    assert await count(database) == 2 * len(ROWS)


async def test_the_first_or_the_only_one_is_returned(database: Database) -> None:
    asked = insert(Thing).returning(Thing.name)
    assert await database.writer.scalar(asked, ROWS[:2]) == "thing 0"
    assert await database.writer.one(asked, ROWS[2:3]) == ("thing 2",)
    assert await database.writer.all(asked, []) == []
    with pytest.raises(NoResultFound):
        await database.writer.one(asked, [])

    assert await count(database) == 3


async def test_values_of_the_statement_are_those_of_every_row(database: Database) -> None:
    asked = insert(Thing).values(name=bindparam("title"), size=7).returning(Thing.name, Thing.size)
    rows = [{"title": "a"}, {"title": "b"}]

    assert await database.writer.all(asked, rows) == [("a", 7), ("b", 7)]


async def test_what_is_no_list_for_an_insert_is_refused_with_the_way_out(
    database: Database,
) -> None:
    changed = update(Thing).where(Thing.id == bindparam("i")).values(size=1).returning(Thing)
    for statement in (insert(Thing), select(Thing), changed):
        with pytest.raises(ParameterError, match="execute_many"):
            await database.writer.all(statement, ROWS)
    with pytest.raises(ParameterError, match="execute_many"):
        await database.writer.execute(insert(Thing), ROWS)
    with pytest.raises(ExpressError, match="execute_many"):
        await database.writer.execute(insert(Thing).returning(Thing), ROWS)
    with pytest.raises(ParameterError, match="no list"):
        await database.reader.all(select(Thing), ROWS)
    with pytest.raises(ExpressError, match="other columns"):
        await database.writer.all(insert(Thing).returning(Thing), [ROWS[0], {"id": 5, **ROWS[1]}])

    assert await count(database) == 0


async def test_a_lane_of_sessions_returns_the_same(database: Database) -> None:
    asked = insert(Thing).returning(Thing, sort_by_parameter_order=True)
    asked = asked.options(selectinload(Thing.kind))
    async with rollback_after(database):
        things = await database.writer.all(asked, ROWS)
        nothing = await database.writer.all(asked, [])
        assert await count(database) == 20

    assert [thing.name for thing in things] == [row["name"] for row in ROWS]
    assert {thing.kind.id for thing in things if thing.kind} == {1, 2}
    assert nothing == []

"""``schema_translate_map``: the same statements in another schema; and other execution options."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio
from sqlalchemy import ForeignKey, bindparam, delete, insert, select, text, update
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import (
    DeclarativeBase,
    Mapped,
    immediateload,
    joinedload,
    mapped_column,
    relationship,
    selectin_polymorphic,
    selectinload,
    subqueryload,
)
from tests.integration.express.answers import by_session, picture

from penstock import Database, query
from penstock.errors import QueryRefused

pytestmark = pytest.mark.asyncio(loop_scope="module")

SCHEMAS = ["first", "second"]


class Base(DeclarativeBase):
    """What the tables belong to."""


class Room(Base):
    """In no schema of its own."""

    __tablename__ = "rooms"
    __mapper_args__ = {"polymorphic_on": "kind", "polymorphic_identity": "room"}  # noqa: RUF012 - SQLAlchemy's
    id: Mapped[int] = mapped_column(primary_key=True)
    kind: Mapped[str] = mapped_column(default="room")
    name: Mapped[str]
    doors: Mapped[list["Door"]] = relationship(back_populates="room", order_by="Door.id")


class Hall(Room):
    """In a table of its own."""

    __tablename__ = "halls"
    __mapper_args__ = {"polymorphic_identity": "hall"}  # noqa: RUF012 - SQLAlchemy's
    id: Mapped[int] = mapped_column(ForeignKey("rooms.id"), primary_key=True)
    seats: Mapped[int]


class Door(Base):
    """Belongs to a room."""

    __tablename__ = "doors"
    id: Mapped[int] = mapped_column(primary_key=True)
    room_id: Mapped[int] = mapped_column(ForeignKey("rooms.id"))
    room: Mapped[Room] = relationship(back_populates="doors")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def database(module_url: str) -> AsyncIterator[Database]:
    async with Database.from_url(module_url, environment="testing") as database:
        for schema in SCHEMAS:
            async with database.engine.begin() as connection:
                await connection.execute(text(f"CREATE SCHEMA {schema}"))
                await connection.execution_options(schema_translate_map={None: schema})
                await connection.run_sync(Base.metadata.create_all)
                session = AsyncSession(connection)
                rooms = [Room(id=1, name=f"{schema} room"), Hall(id=2, name=schema, seats=9)]
                session.add_all([*rooms, Door(id=1, room_id=1), Door(id=2, room_id=2)])
                await session.flush()
        yield database


def of(statement: Any, schema: str) -> Any:
    return statement.execution_options(schema_translate_map={None: schema})


rooms = select(Room).order_by(Room.id)
READS: dict[str, Any] = {
    "instances": rooms,
    "columns": select(Room.id, Room.name).order_by(Room.id),
    "table": select(Room.__table__),
    "list": rooms.where(Room.id.in_([1, 2])),
    "subclass": select(Hall),
    "joined": rooms.options(joinedload(Room.doors)),
    "selectin": rooms.options(selectinload(Room.doors)),
    "selectin_to_one": select(Door).options(selectinload(Door.room)).order_by(Door.id),
    "subquery": rooms.options(subqueryload(Room.doors)),
    "immediate": rooms.options(immediateload(Room.doors)),
}


@pytest.mark.parametrize("name", READS)
async def test_reads_are_of_the_schema_that_is_named(database: Database, name: str) -> None:
    found = []
    for schema in [*SCHEMAS, *SCHEMAS]:
        statement = of(READS[name], schema)
        expected = picture(await by_session(database, statement))
        assert picture(await database.reader.all(statement)) == expected
        assert picture(await database.reader.all(query(statement))) == expected
        async with database.reader.snapshot() as snapshot:
            assert picture(await snapshot.all(statement)) == expected
        found.append(str(expected))

    assert found[0] == found[2] != found[1] == found[3] or name == "selectin_to_one"


async def test_subclasses_are_loaded_of_the_schema_that_is_named(database: Database) -> None:
    statement = rooms.options(selectin_polymorphic(Room, [Hall]))
    for schema in SCHEMAS:
        (_, hall) = await database.reader.all(of(statement, schema))
        assert (hall.name, hall.seats) == (schema, 9)


async def test_streams_and_questions_are_of_the_schema_that_is_named(database: Database) -> None:
    for schema in SCHEMAS:
        async with database.reader.stream(of(rooms, schema)).yield_per(1) as stream:
            assert [room.name async for room in stream] == [f"{schema} room", schema]
        assert await database.reader.exists(of(rooms.where(Room.name == schema), schema))


async def test_writes_are_of_the_schema_that_is_named(database: Database) -> None:
    new_door = insert(Door).values(id=bindparam("door_id"), room_id=1).returning(Door)
    for schema in SCHEMAS:
        door = await database.writer.one(
            of(new_door.options(selectinload(Door.room)), schema), door_id=3
        )
        assert door.room.name == f"{schema} room"
        changed = of(update(Door).where(Door.id == 3).values(room_id=2), schema)
        assert await database.writer.execute(changed) == 1
        again = upsert(Door).values(id=3, room_id=1).on_conflict_do_nothing()
        assert await database.writer.execute(of(again, schema)) == 0
        await database.writer.execute_many(of(insert(Door), schema), [{"id": 4, "room_id": 1}])
        assert await database.writer.execute(of(delete(Door).where(Door.id > 2), schema)) == 2


async def test_a_form_is_compiled_once_for_each_schema(database: Database) -> None:
    for _ in range(2):
        for schema in SCHEMAS:
            for number in (1, 2):
                statement = of(select(Room.name).where(Room.id == number), schema)
                expected = schema if number == 2 else f"{schema} room"
                assert await database.reader.scalar(statement) == expected


async def test_own_execution_options_change_nothing(database: Database) -> None:
    statement = of(rooms, "first").execution_options(of_our_own=True, audited_by="nobody")

    assert len(await database.reader.all(query(statement))) == 2
    assert len(await database.reader.all(statement)) == 2


@pytest.mark.parametrize(
    "options",
    [{"yield_per": 2}, {"stream_results": True}, {"identity_token": "x"}, {"max_row_buffer": 1}],
)
async def test_options_that_only_a_session_follows_are_refused(
    database: Database, options: dict[str, Any]
) -> None:
    statement = of(rooms, "first")
    await database.reader.all(statement)
    with pytest.raises(QueryRefused, match=next(iter(options))):
        query(statement.execution_options(**options))
    with pytest.raises(QueryRefused, match=next(iter(options))):
        await database.reader.all(statement.execution_options(**options))

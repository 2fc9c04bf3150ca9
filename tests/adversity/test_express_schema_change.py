"""The schema changes under statements that are prepared: the next use is right again."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from decimal import Decimal
from typing import Any

import pytest
from sqlalchemy import Numeric, bindparam, insert, select, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from penstock import Database, query


class Base(DeclarativeBase):
    """What the table belongs to."""


class Note(Base):
    """Something whose table is changed behind its back."""

    __tablename__ = "notes"
    id: Mapped[int] = mapped_column(primary_key=True)
    line: Mapped[str]
    price: Mapped[Decimal] = mapped_column(Numeric(10, 2))


line_of = query(select(Note.line).where(Note.id == bindparam("note_id")))
note_of = query(select(Note).where(Note.id == bindparam("note_id")))
row_of = query(select(Note.__table__).where(Note.id == bindparam("note_id")))
price_of = query(select(Note.price).where(Note.id == bindparam("note_id")))
everything_of = query(text("SELECT * FROM notes WHERE id = :note_id"))
add = query(
    insert(Note).values(id=bindparam("note_id"), line="new", price=Decimal(1)).returning(Note)
)
add_text = query(text("INSERT INTO notes (id, line) VALUES (:note_id, 'new') RETURNING *"))


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    """A pool of two connections, both with every statement prepared, and one note."""
    async with Database.from_url(
        database_url, environment="testing", pool_size=2, max_overflow=0
    ) as database:
        await change(
            database,
            "CREATE TABLE notes (id int PRIMARY KEY, line text, price numeric(10, 2))",
            "INSERT INTO notes VALUES (1, 'first', 9.5)",
        )
        await use_everywhere(database, line_of, note_of, row_of, price_of, everything_of)
        yield database


async def use_everywhere(database: Database, *queries: object) -> None:
    async with database.engine.connect():
        for each in queries:
            await database.reader.all(each, note_id=1)  # type: ignore[call-overload]  # any query
    for each in queries:
        await database.reader.all(each, note_id=1)  # type: ignore[call-overload]  # any query


async def change(database: Database, *statements: str) -> None:
    async with database.engine.begin() as connection:
        for statement in statements:
            await connection.execute(text(statement))


RETYPED: Sequence[str] = [
    "ALTER TABLE notes ALTER COLUMN line TYPE varchar(200)",
    "ALTER TABLE notes ALTER COLUMN id TYPE bigint",
    "ALTER TABLE notes ADD COLUMN more int DEFAULT 5",
    "ALTER TABLE notes ADD COLUMN more int DEFAULT 5, ALTER COLUMN id TYPE bigint",
    "CREATE INDEX ON notes (line)",
]


@pytest.mark.parametrize("statement", RETYPED)
async def test_reads_and_writes_are_right_after_the_change(
    database: Database, statement: str
) -> None:
    await database.writer.one(add, note_id=2)
    await change(database, statement)
    async with database.engine.connect():
        await read_everything(database)
    await read_everything(database)
    for number in (3, 4):
        assert (await database.writer.one(add, note_id=number)).price == Decimal(1)
    assert database.pool.snapshot().opened_total == 2


async def read_everything(database: Database) -> None:
    reader = database.reader
    assert await reader.scalar(line_of, note_id=1) == "first"
    note = await reader.one(note_of, note_id=1)
    assert (note.id, note.line, note.price) == (1, "first", Decimal("9.5"))
    assert (await reader.one(row_of, note_id=1)).line == "first"
    row = await reader.one(everything_of, note_id=1)
    assert (row.id, row.line, row.price) == (1, "first", Decimal("9.5"))


async def test_a_new_column_is_seen_by_whoever_selects_all(database: Database) -> None:
    await change(database, "ALTER TABLE notes ADD COLUMN more int DEFAULT 5")
    for _ in range(2):
        row = await database.reader.one(everything_of, note_id=1)
        assert dict(row._mapping) == {
            "id": 1,
            "line": "first",
            "price": Decimal("9.5"),
            "more": 5,
        }
    assert (await database.writer.one(add_text, note_id=2)).more == 5


async def test_a_crowd_sees_a_new_column_on_every_connection(database: Database) -> None:
    for number in range(5):
        await change(database, f"ALTER TABLE notes ADD COLUMN more_{number} int DEFAULT {number}")
        rows = await asyncio.gather(
            *(database.reader.one(everything_of, note_id=1) for _ in range(20))
        )
        expected = [1, "first", Decimal("9.5"), *range(number + 1)]
        assert [list(row) for row in rows] == [expected] * 20
        assert [list(row._mapping) for row in rows] == [
            ["id", "line", "price", *(f"more_{each}" for each in range(number + 1))]
        ] * 20


async def test_a_new_column_is_seen_while_others_use_the_connections(database: Database) -> None:
    async def sleep(seconds: float) -> None:
        await database.reader.all(text("SELECT pg_sleep(:seconds)"), seconds=seconds)

    await change(database, "ALTER TABLE notes ADD COLUMN more int DEFAULT 5")
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(sleep(0.1))
        asked = tasks.create_task(database.reader.one(everything_of, note_id=1))
        tasks.create_task(sleep(0.5))
    assert asked.result().more == 5


async def test_a_write_that_returns_all_has_the_new_column_as_well(database: Database) -> None:
    assert (await database.writer.one(add_text, note_id=2)).id == 2
    await change(database, "ALTER TABLE notes ADD COLUMN more int DEFAULT 5")
    assert (await database.writer.one(add_text, note_id=3)).more == 5
    assert len(await database.reader.all(text("SELECT id FROM notes"))) == 3


async def test_a_column_that_takes_anothers_place_has_its_own_name(database: Database) -> None:
    await change(database, "ALTER TABLE notes DROP COLUMN price, ADD COLUMN more int DEFAULT 5")
    row = await database.reader.one(everything_of, note_id=1)
    assert dict(row._mapping) == {"id": 1, "line": "first", "more": 5}


async def test_a_number_is_what_it_is_to_a_session_that_has_read_it_before(
    database: Database,
) -> None:
    async def of_a_session() -> Any:
        async with database.read() as session:
            return await session.scalar(price_of.statement, {"note_id": 1})

    await of_a_session()
    await change(database, "ALTER TABLE notes ALTER COLUMN price TYPE float8")
    price = await database.reader.scalar(price_of, note_id=1)
    with pytest.raises(DBAPIError, match="cached statement plan is invalid"):
        await of_a_session()  # which does not heal by itself, but knows better from now on
    assert type(price) is type(await of_a_session())


async def test_a_table_that_was_made_anew_is_read_and_written(database: Database) -> None:
    await database.writer.one(add, note_id=2)
    await change(
        database,
        "DROP TABLE notes",
        "CREATE TABLE notes (price numeric, line varchar, id bigint PRIMARY KEY)",
        "INSERT INTO notes VALUES (9.5, 'first', 1)",
    )
    async with database.engine.connect():
        await read_everything(database)
    await read_everything(database)
    assert (await database.writer.one(add, note_id=2)).line == "new"


MOODS = query(text("SELECT id, mood FROM people WHERE mood = :mood"))
NEW_MOODS = (
    "DROP TABLE IF EXISTS people",
    "DROP TYPE IF EXISTS mood",
    "CREATE TYPE mood AS ENUM ('glad', 'sad')",
    "CREATE TABLE people (id int, mood mood)",
    "INSERT INTO people VALUES (1, 'glad')",
)


async def test_a_type_that_was_made_anew_is_read(database: Database) -> None:
    await change(database, *NEW_MOODS)
    assert (await database.reader.one(MOODS, mood="glad")).mood == "glad"
    await change(database, *NEW_MOODS)
    for _ in range(2):
        assert (await database.reader.one(MOODS, mood="glad")).mood == "glad"


async def test_a_type_that_was_made_anew_is_written_once(database: Database) -> None:
    add_person = query(text("INSERT INTO people VALUES (:id, :mood)"))
    await change(database, *NEW_MOODS)
    assert await database.writer.execute(add_person, id=2, mood="sad") == 1
    await change(database, *NEW_MOODS)
    assert await database.writer.execute(add_person, id=2, mood="sad") == 1
    assert await database.reader.scalar(text("SELECT count(*) FROM people")) == 2


EACH_ROW = "FOR EACH ROW EXECUTE FUNCTION look()"
LOOK = """CREATE FUNCTION look() RETURNS trigger LANGUAGE plpgsql AS $$
    DECLARE glad mood = 'glad';
    BEGIN IF CAST(glad AS text) = NEW.line THEN NEW.price = 0; END IF; RETURN NEW; END
$$"""
"""Each connection remembers the type by its number."""


async def test_a_copy_that_failed_is_not_taken_up_without_its_first_rows(
    database: Database,
) -> None:
    mood = "CREATE TYPE mood AS ENUM ('glad', 'sad')"
    await change(database, mood, LOOK, "CREATE TRIGGER look BEFORE INSERT ON notes " + EACH_ROW)
    async with database.engine.connect():  # so that it is the same connection again
        await database.writer.copy_in(Note, [{"id": 2, "line": "sad", "price": 1}])
        await change(database, "DROP TYPE mood", mood)
        with pytest.raises(DBAPIError, match="cache lookup failed"):
            await database.writer.copy_in(Note, [{"id": 3, "line": "sad", "price": 1}])
    assert not await database.reader.exists(select(Note).where(Note.id == 3))


async def test_an_enum_that_gets_another_value_is_read_and_written(database: Database) -> None:
    await change(database, *NEW_MOODS)
    assert (await database.reader.one(MOODS, mood="glad")).mood == "glad"
    await change(database, "ALTER TYPE mood ADD VALUE 'calm'")
    assert await database.writer.execute(text("INSERT INTO people VALUES (3, 'calm')")) == 1
    assert (await database.reader.one(MOODS, mood="calm")).mood == "calm"


async def test_a_composite_type_that_gets_another_attribute_is_read(database: Database) -> None:
    places = query(text("SELECT place FROM places ORDER BY id"))
    await change(
        database,
        "CREATE TYPE spot AS (x int, y int)",
        "CREATE TABLE places (id int, place spot)",
        "INSERT INTO places VALUES (1, ROW(1, 2))",
    )
    assert tuple(await database.reader.scalar(places)) == (1, 2)
    await change(database, "ALTER TYPE spot ADD ATTRIBUTE z int")
    assert tuple(await database.reader.scalar(places)) == (1, 2, None)


async def test_inside_a_snapshot_it_may_fail_and_the_next_one_is_right(
    database: Database,
) -> None:
    await change(database, "ALTER TABLE notes ADD COLUMN more int DEFAULT 5")
    for _ in range(3):  # each connection may fail once
        try:
            async with database.reader.snapshot() as snapshot:
                more = (await snapshot.one(everything_of, note_id=1)).more
        except DBAPIError:
            continue
        break
    async with database.reader.snapshot() as snapshot:
        assert (await snapshot.one(everything_of, note_id=1)).more == more == 5
        assert (await snapshot.one(note_of, note_id=1)).line == "first"
    assert database.pool.snapshot().checked_out == 0

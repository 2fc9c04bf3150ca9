"""What a write returns: where no result can be made of it, nothing is saved, as in a session."""

import enum
from collections.abc import AsyncIterator
from datetime import datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest
import pytest_asyncio
from sqlalchemy import (
    JSON,
    Dialect,
    Enum,
    ForeignKey,
    Numeric,
    String,
    TypeDecorator,
    bindparam,
    delete,
    event,
    func,
    insert,
    select,
    text,
    update,
)
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.exc import MultipleResultsFound, NoResultFound
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import (
    DeclarativeBase,
    Mapped,
    aliased,
    immediateload,
    mapped_column,
    relationship,
    selectinload,
)
from tests.integration.express.answers import picture

from penstock import Database, query

pytestmark = pytest.mark.asyncio(loop_scope="module")


class Base(DeclarativeBase):
    """What the tables belong to."""


class Flavour(enum.Enum):
    """All that the program knows; the table has more."""

    SWEET = "sweet"


class Lower(TypeDecorator[str]):
    """Text that is refused when it is read in capitals."""

    impl = String
    cache_ok = True

    def process_result_value(self, value: Any, dialect: Dialect) -> Any:
        if value is not None and value != value.lower():
            raise ValueError(value)
        return value


class Positive(TypeDecorator[Decimal]):
    """A number, refused below 0, whose conversion depends on what the server sends."""

    impl = Numeric(9, 2)
    cache_ok = True

    def process_result_value(self, value: Any, dialect: Dialect) -> Any:
        if value is not None and value < 0:
            raise ValueError(value)
        return value


class Shelf(Base):
    """Has jars."""

    __tablename__ = "shelves"
    id: Mapped[int] = mapped_column(primary_key=True)
    flavour: Mapped[Flavour | None] = mapped_column(Enum(Flavour, native_enum=False))


class Jar(Base):
    """With a type of each kind that may refuse what is stored."""

    __tablename__ = "jars"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(unique=True)
    flavour: Mapped[Flavour | None] = mapped_column(Enum(Flavour, native_enum=False))
    label: Mapped[str | None] = mapped_column(Lower)
    price: Mapped[Decimal | None] = mapped_column(Positive)
    prices: Mapped[list[Decimal] | None] = mapped_column(ARRAY(Positive))
    amount: Mapped[Decimal | None]
    rate: Mapped[float | None]
    made_at: Mapped[datetime] = mapped_column(server_default=func.now())
    token: Mapped[UUID] = mapped_column(server_default=func.gen_random_uuid())
    extra: Mapped[Any | None] = mapped_column(JSON)
    shelf_id: Mapped[int | None] = mapped_column(ForeignKey("shelves.id"))
    shelf: Mapped[Shelf | None] = relationship(lazy="joined")


class Watched(Base):
    """Somebody refuses to have it loaded."""

    __tablename__ = "watched"
    id: Mapped[int] = mapped_column(primary_key=True)


@event.listens_for(Watched, "load")
def refuse(*_: Any) -> None:
    raise ValueError("not to be loaded")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def database(module_url: str) -> AsyncIterator[Database]:
    async with Database.from_url(module_url, environment="testing") as database:
        async with database.engine.begin() as connection:
            await connection.run_sync(Base.metadata.create_all)
        yield database


@pytest_asyncio.fixture(loop_scope="module")
async def jars(database: Database) -> Database:
    await database.writer.execute(text("TRUNCATE jars, shelves, watched RESTART IDENTITY"))
    await database.writer.execute(text("INSERT INTO shelves (flavour) VALUES ('SOUR')"))
    await database.writer.execute_many(insert(Jar), [{"name": "a"}, {"name": "b"}])
    return database


async def stored(database: Database) -> Any:
    jars = text("SELECT jsonb_agg(to_jsonb(jars) ORDER BY id)::text FROM jars")
    watched = select(func.count()).select_from(Watched)
    return await database.reader.scalar(jars), await database.reader.scalar(watched)


SEVERAL: dict[str, Any] = {
    "update": update(Jar).values(label="x").returning(Jar.id),
    "update_entity": update(Jar).values(label="x").returning(Jar),
    "update_range": update(Jar).where(Jar.id > 0).values(label="x").returning(Jar.id),
    "update_by_a_column": update(Jar).where(Jar.id == Jar.id).values(label="x").returning(Jar.id),
    "update_by_another": update(Jar)
    .where(Jar.id == aliased(Jar).id, Jar.label.is_(None))
    .values(label="x")
    .returning(Jar.id),
    "delete": delete(Jar).returning(Jar.id),
    "insert": insert(Jar).values([{"name": "c"}, {"name": "d"}]).returning(Jar.id),
    "insert_from": insert(Jar).from_select(["name"], select(Jar.name + "x")).returning(Jar.id),
    "text": text("UPDATE jars SET label = 'x' RETURNING id"),
}
NOT_LOADED: dict[str, Any] = {
    "enum": update(Jar).where(Jar.id == 1).values(flavour=text("'SOUR'")).returning(Jar.flavour),
    "enum_entity": update(Jar).where(Jar.id == 1).values(flavour=text("'SOUR'")).returning(Jar),
    "decorated": update(Jar).where(Jar.id == 1).values(label="X").returning(Jar.label),
    "decorated_number": update(Jar).where(Jar.id == 1).values(price=-1).returning(Jar.price),
    "decorated_array": update(Jar).where(Jar.id == 1).values(prices=[-1]).returning(Jar.prices),
    "event": insert(Watched).values(id=1).returning(Watched),
    "further": update(Jar)
    .where(Jar.id == 1)
    .values(shelf_id=1)
    .returning(Jar)
    .options(selectinload(Jar.shelf)),
    "further_at_once": insert(Jar)
    .values(name="c", shelf_id=1)
    .returning(Jar)
    .options(immediateload(Jar.shelf)),
    "text": select(Jar).from_statement(
        text("UPDATE jars SET flavour = 'SOUR' WHERE id = 1 RETURNING *")
    ),
    "text_further": select(Jar)
    .from_statement(text("UPDATE jars SET shelf_id = 1 WHERE id = 1 RETURNING *"))
    .options(selectinload(Jar.shelf)),
    "text_with_types": text("UPDATE jars SET flavour = 'SOUR' RETURNING flavour").columns(
        flavour=Jar.flavour.type
    ),
    "cte": select(
        update(Jar).values(flavour=text("'SOUR'")).returning(Jar.flavour).cte("changed").c.flavour
    ),
}


@pytest.mark.parametrize("name", SEVERAL)
async def test_where_one_was_expected_several_are_not_saved(jars: Database, name: str) -> None:
    before = await stored(jars)
    for extract in (jars.writer.one, jars.writer.one_or_none):
        for asked in (SEVERAL[name], query(SEVERAL[name])):
            for _ in range(2):
                with pytest.raises(MultipleResultsFound):
                    await extract(asked)
    assert await stored(jars) == before
    assert len(await jars.writer.all(SEVERAL[name])) > 1
    assert await stored(jars) != before


async def test_where_one_was_expected_and_none_came_nothing_is_saved(jars: Database) -> None:
    before = await stored(jars)
    with pytest.raises(NoResultFound):
        await jars.writer.one(
            text("WITH gone AS (DELETE FROM jars RETURNING id) SELECT id FROM gone WHERE id < 0")
        )
    assert await stored(jars) == before


@pytest.mark.parametrize("name", NOT_LOADED)
async def test_what_cannot_be_loaded_is_not_saved(jars: Database, name: str) -> None:
    before = await stored(jars)
    for asked in (lambda: NOT_LOADED[name], lambda: query(NOT_LOADED[name])):
        for _ in range(2):
            with pytest.raises(Exception, match=r"SOUR|X|-1|not to be loaded"):
                await jars.writer.all(asked())
    assert await stored(jars) == before
    assert jars.pool.snapshot().checked_out == 0


async def test_of_several_rows_none_is_saved_where_one_cannot_be_loaded(jars: Database) -> None:
    before, write = await stored(jars), jars.writer
    asked = insert(Jar).returning(Jar).options(selectinload(Jar.shelf))
    for extract in (write.all, write.first, write.one, write.one_or_none, write.scalar):
        with pytest.raises(LookupError, match="SOUR"):
            await extract(asked, [{"name": "c", "shelf_id": None}, {"name": "d", "shelf_id": 1}])
    for extract in (write.one, write.one_or_none):
        for several in (asked, insert(Jar).returning(Jar.id)):
            with pytest.raises(MultipleResultsFound):
                await extract(several, [{"name": "c"}, {"name": "d"}])
    assert await stored(jars) == before
    assert len(await write.all(asked, [{"name": "c"}, {"name": "d"}])) == 2


async def test_what_loads_along_is_returned_as_by_a_session(jars: Database) -> None:
    statement = update(Jar).where(Jar.id == 1).values(flavour="SWEET").returning(Jar)
    async with AsyncSession(jars.engine) as session:
        expected = list((await session.scalars(statement)).all())
        session.expunge_all()
    assert picture(await jars.writer.all(statement)) == picture(expected)


TABLE: Any = Jar.__table__
ONE_ROW: dict[str, tuple[Any, bool]] = {
    "insert": (insert(Jar), True),
    "insert_values": (insert(Jar).values(name="c"), True),
    "by_key": (update(Jar).where(Jar.id == bindparam("i")), True),
    "by_key_and_more": (update(Jar).where(Jar.id == 1, Jar.name != "x"), True),
    "by_both": (delete(Jar).where((Jar.id == 1) & (Jar.label == "x")), True),
    "by_unique": (delete(Jar).where(Jar.name == "a"), True),
    "core": (delete(TABLE).where(TABLE.c.id == 1), True),
    "either": (delete(Jar).where((Jar.id == 1) | (Jar.id == 2)), False),
    "in": (delete(Jar).where(Jar.id.in_([1])), False),
    "other_column": (delete(Jar).where(Jar.label == "x"), False),
    "of_another": (delete(Jar).where(aliased(Jar).id == 1), False),
    "of_another_class": (delete(Jar).where(Shelf.id == 1), False),
    "text": (text("DELETE FROM jars WHERE id = 1"), False),
}


@pytest.mark.parametrize("name", ONE_ROW)
async def test_a_statement_of_one_row_is_known_by_its_form(name: str) -> None:
    statement, is_of_one_row = ONE_ROW[name]
    assert query(statement).is_of_one_row is is_of_one_row


PLAIN: dict[str, bool] = {
    "id": False,
    "name": False,
    "flavour": True,
    "label": True,
    "price": True,
    "prices": True,
    "amount": False,
    "rate": False,
    "made_at": False,
    "token": False,
    "extra": False,
}


@pytest.mark.parametrize("name", PLAIN)
async def test_what_python_may_refuse_is_known_before_it_is_sent(jars: Database, name: str) -> None:
    asked = query(insert(Jar).returning(getattr(Jar, name)))
    assert asked.plan(jars.engine.dialect, ["name"]).may_fail is PLAIN[name]
    assert await jars.writer.first(asked, name="c") is not None

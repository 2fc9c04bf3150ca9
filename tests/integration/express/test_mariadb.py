"""The express calls on MariaDB, by either driver: what a session gives, and what is refused."""

from collections.abc import AsyncIterator
from datetime import date
from decimal import Decimal

import pytest
from sqlalchemy import Numeric, String, bindparam, delete, func, insert, select, text, update
from sqlalchemy.exc import IntegrityError, NoResultFound
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from penstock import Database, query
from penstock.express import SqlalchemyLane


class Base(DeclarativeBase):
    """What the table belongs to."""


class Sale(Base):
    """A row with the types that drivers give back differently."""

    __tablename__ = "sales"
    id: Mapped[int] = mapped_column(primary_key=True)
    title: Mapped[str] = mapped_column(String(50), unique=True)
    price: Mapped[Decimal] = mapped_column(Numeric(10, 2))
    day: Mapped[date]
    is_paid: Mapped[bool]
    note: Mapped[str | None] = mapped_column(String(50))


SALES = [
    {
        "title": f"sale {n}",
        "price": Decimal(n) / 4,
        "day": date(2026, 1, n + 1),
        "is_paid": n % 2 == 0,
        "note": None if n % 3 else "it's % and : too",
    }
    for n in range(20)
]
by_title = query(select(Sale).where(Sale.title == bindparam("title")))
unpaid = query(
    select(Sale.title, Sale.price, Sale.day, Sale.is_paid, Sale.note)
    .where(Sale.is_paid.is_(False), Sale.price < bindparam("below"))
    .order_by(Sale.id)
)


@pytest.fixture(params=["asyncmy", "aiomysql"])
async def database(request: pytest.FixtureRequest, mariadb_url: str) -> AsyncIterator[Database]:
    """A table of twenty rows, written by the express lane."""
    url = mariadb_url.replace("asyncmy", request.param)
    async with Database.from_url(url, environment="testing") as database:
        async with database.engine.begin() as connection:
            await connection.run_sync(Base.metadata.create_all)
        await database.writer.execute_many(insert(Sale), SALES)
        yield database


async def test_it_is_the_lane_that_goes_through_sqlalchemy(database: Database) -> None:
    assert isinstance(database.reader.lane, SqlalchemyLane)


async def test_rows_and_instances_are_what_a_session_gives(database: Database) -> None:
    async with database.read() as session:
        found = await session.scalar(select(Sale).where(Sale.title == "sale 3"))
        rows = (await session.execute(unpaid.statement, {"below": 4})).all()
    sale = await database.reader.one(by_title, title="sale 3")

    assert found is not None
    assert vars(sale).keys() >= {"id", "title", "price", "day", "is_paid", "note"}
    for name in ("id", "title", "price", "day", "is_paid", "note"):
        assert getattr(sale, name) == getattr(found, name)
        assert type(getattr(sale, name)) is type(getattr(found, name))
    assert await database.reader.all(unpaid, below=4) == rows
    assert len(rows) == 8


async def test_the_shapes_of_an_answer(database: Database) -> None:
    reader = database.reader

    assert await reader.scalar(select(func.count(Sale.id))) == len(SALES)
    assert await reader.one_or_none(by_title, title="none") is None
    assert await reader.first(select(Sale.title).order_by(Sale.id)) == ("sale 0",)
    assert await reader.exists(by_title, title="sale 1")
    assert not await reader.exists(by_title, title="none")
    with pytest.raises(NoResultFound):
        await reader.one(by_title, title="none")
    assert (await reader.one(text("SELECT :a + 1 AS b"), a=1)).b == 2


async def test_a_stream_gives_all_rows_in_order(database: Database) -> None:
    async with database.reader.stream(select(Sale.title).order_by(Sale.id)) as rows:
        assert [row.title async for row in rows] == [each["title"] for each in SALES]


async def test_a_snapshot_sees_one_moment(database: Database) -> None:
    count = select(func.count(Sale.id))
    async with database.reader.snapshot() as moment:
        before = await moment.scalar(count)
        await database.writer.execute(delete(Sale).where(Sale.title == "sale 1"))

        assert await moment.scalar(count) == before == len(SALES)
    assert await database.reader.scalar(count) == len(SALES) - 1


async def test_what_is_written_is_counted_and_committed(database: Database) -> None:
    writer = database.writer
    more = [{**SALES[0], "title": f"more {n}"} for n in range(3)]
    cheaper = update(Sale).where(Sale.price > bindparam("above")).values(price=Sale.price - 1)

    assert await writer.copy_in(Sale, more) == 3
    assert await writer.execute(query(cheaper), above=4) == 3
    assert await writer.execute(delete(Sale).where(Sale.title.like("more %"))) == 3
    assert await database.reader.scalar(select(func.max(Sale.price))) == Decimal("4.00")


async def test_what_the_server_refuses_leaves_nothing_behind(database: Database) -> None:
    twice = [{**SALES[0], "title": "new"}, SALES[0]]

    with pytest.raises(IntegrityError):
        await database.writer.execute_many(insert(Sale), twice)
    assert not await database.reader.exists(by_title, title="new")
    assert database.pool.snapshot().checked_out == 0


async def test_a_reader_cannot_write(database: Database) -> None:
    with pytest.raises(Exception, match=r"(?i)read.only"):
        await database.reader.all(text("DELETE FROM sales RETURNING id"))
    assert await database.reader.scalar(select(func.count(Sale.id))) == len(SALES)

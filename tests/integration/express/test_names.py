"""The names under which values are given: of attributes, columns and parameters, and no others."""

from collections.abc import AsyncIterator, MutableMapping
from dataclasses import dataclass
from typing import Any

import pytest
import pytest_asyncio
from sqlalchemy import Integer, bindparam, insert, select, text, update
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.ext.hybrid import hybrid_property
from sqlalchemy.orm import DeclarativeBase, Mapped, composite, mapped_column

from penstock import Database, query
from penstock.errors import ExpressError, ParameterError

pytestmark = pytest.mark.asyncio(loop_scope="module")


class Base(DeclarativeBase):
    """What the tables belong to."""


@dataclass
class Price:
    """Two columns in one attribute."""

    amount: int | None
    currency: int | None


class Sum:
    """A composite that is no dataclass."""

    def __init__(self, amount: int, tax: int) -> None:
        self.amount, self.tax = amount, tax

    def __composite_values__(self) -> tuple[int, int]:
        return self.amount, self.tax

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sum) and vars(other) == vars(self)

    __hash__ = None  # type: ignore[assignment]  # it can be changed


class Offer(Base):
    """With columns of other names, two composites and a hybrid that is written."""

    __tablename__ = "offers"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column("offer_name")
    price: Mapped[Price | None] = composite(
        mapped_column("p_amount", nullable=True), mapped_column("p_currency", nullable=True)
    )
    total: Mapped[Sum | None] = composite(
        mapped_column("t_amount", Integer, nullable=True),
        mapped_column("t_tax", Integer, nullable=True),
    )
    first: Mapped[int | None]
    last: Mapped[int | None]

    @hybrid_property
    def span(self) -> str:
        return f"{self.first}-{self.last}"

    @span.inplace.bulk_dml
    @classmethod
    def _set_span(cls, mapping: MutableMapping[str, Any], value: Any) -> None:
        first, last = value.split("-")
        mapping.update(first=int(first), last=int(last))


class Job(Base):
    """Its columns are named as limits and arguments of calls are."""

    __tablename__ = "jobs"
    id: Mapped[int] = mapped_column(primary_key=True)
    timeout: Mapped[int | None]
    batch: Mapped[int | None]
    seconds: Mapped[int | None]
    statement: Mapped[int | None]
    values: Mapped[int | None]
    named: Mapped[int | None]
    self: Mapped[int | None]
    rows: Mapped[int | None]
    target: Mapped[int | None]


NAMES = [column.key for column in Job.__table__.columns if column.key != "id"]
OFFERS: Any = Offer.__table__


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def database(module_url: str) -> AsyncIterator[Database]:
    async with Database.from_url(module_url, environment="testing") as database:
        async with database.engine.begin() as connection:
            await connection.run_sync(Base.metadata.create_all)
        yield database


@pytest_asyncio.fixture(loop_scope="module")
async def emptied(database: Database) -> Database:
    await database.writer.execute(text("TRUNCATE offers, jobs RESTART IDENTITY"))
    return database


async def written(database: Database) -> list[Any]:
    columns = [column for column in OFFERS.columns if column.key != "id"]
    return [tuple(row) for row in await database.reader.all(select(*columns).order_by(OFFERS.c.id))]


OFFERED: dict[str, dict[str, Any]] = {
    "dataclass": {"name": "a", "price": Price(5, 978)},
    "half": {"name": "a", "price": Price(5, None)},
    "other_class": {"name": "a", "total": Sum(1, 2)},
    "both": {"total": Sum(1, 2), "name": "a", "price": Price(5, 978)},
    "hybrid": {"name": "a", "span": "3-4"},
    "parts": {"name": "a", "first": 1},
}


@pytest.mark.parametrize("name", OFFERED)
async def test_what_stands_for_several_columns_is_written_as_by_a_session(
    emptied: Database, name: str
) -> None:
    values, writer = OFFERED[name], emptied.writer
    async with AsyncSession(emptied.engine) as session:
        await session.execute(insert(Offer), [values])
        await session.commit()
    await writer.execute(query(insert(Offer)), values)
    await writer.execute(insert(Offer), **values)
    await writer.execute_many(insert(Offer), [values, values])
    assert (await writer.one(insert(Offer).returning(Offer), values)).name == "a"
    assert await writer.copy_in(Offer, [values, values]) == 2

    rows = await written(emptied)
    assert rows == [rows[0]] * 8


async def test_a_composite_is_updated_and_taken_away(emptied: Database) -> None:
    writer = emptied.writer
    await writer.execute(insert(Offer), name="a", price=None, total=Sum(1, 2))
    change = query(update(Offer).where(Offer.id == bindparam("number")))
    for price in (Price(7, 8), None, Price(None, 9)):
        await writer.execute(change, number=1, price=price)
        amounts = (None, None) if price is None else (price.amount, price.currency)
        assert await written(emptied) == [("a", *amounts, 1, 2, None, None)]


async def test_a_composite_of_another_class_is_refused(emptied: Database) -> None:
    for wrong in (5, (5, 978), Sum(1, 2)):
        for write in (
            lambda v: emptied.writer.execute(insert(Offer), name="a", price=v),
            lambda v: emptied.writer.execute_many(insert(Offer), [{"name": "a", "price": v}]),
            lambda v: emptied.writer.copy_in(Offer, [{"name": "a", "price": v}]),
        ):
            with pytest.raises(ParameterError, match=r"\bprice\b.*\bPrice\b"):
                await write(wrong)
    assert await written(emptied) == []


@pytest.mark.parametrize("statement", [insert(Offer), update(Offer).where(Offer.id == 1)])
async def test_one_parameter_for_a_composite_of_values_is_refused(
    emptied: Database, statement: Any
) -> None:
    with pytest.raises(ParameterError, match="unknown: price"):  # SQLAlchemy has dropped it
        await emptied.writer.execute(statement.values(price=bindparam("price")), price=Price(1, 2))


@pytest.mark.parametrize("name", [*NAMES, "timeout_", "yield_per"])
async def test_no_name_of_a_column_or_parameter_is_taken_for_something_else(
    emptied: Database, name: str
) -> None:
    reader = emptied.reader
    echo = text(f"SELECT CAST(:{name} AS int) AS found")
    assert await reader.scalar(echo, **{name: 7}) == 7
    assert await reader.with_timeout(5).scalar(query(echo), **{name: 7}) == 7
    assert (
        await reader.exists(select(Job.id).where(Job.id == bindparam(name)), **{name: 7}) is False
    )
    async with reader.stream(echo, **{name: 7}).yield_per(1) as rows:
        assert [row.found async for row in rows] == [7]
    if name not in NAMES:
        return
    row = await emptied.writer.one(insert(Job).returning(Job.id, getattr(Job, name)), **{name: 7})
    assert row[1] == 7
    change = query(update(Job).where(Job.id == bindparam("number")))
    assert await emptied.writer.execute(change, **{"number": row.id, name: 8}) == 1
    assert await reader.scalar(select(getattr(Job, name)).where(Job.id == row.id)) == 8


async def test_a_misspelt_name_is_refused_and_nothing_is_written(emptied: Database) -> None:
    writer, wrong = emptied.writer, {"name": "a", "fisrt": 1}
    renamed = {"offer_name": "a"}
    by_number = update(Offer).where(Offer.id == bindparam("number"))
    core = {"offer_name": "a", "fisrt": 1}
    for statement, values, unknown in (
        (insert(Offer), wrong, "fisrt"),
        (insert(Offer), renamed, "offer_name"),
        (insert(Offer).returning(Offer.id), wrong, "fisrt"),
        (insert(OFFERS), core, "fisrt"),
        (insert(OFFERS), {"name": "a"}, "name"),
        (by_number, {"number": 1, "fisrt": 1}, "fisrt"),
        (update(OFFERS).where(OFFERS.c.id == bindparam("number")), {"number": 1, "x": 1}, "x"),
        (insert(Offer).values(name=bindparam("n")), {"n": "a", "first": 1}, "first"),
    ):
        for asked in (statement, query(statement)):
            with pytest.raises(ParameterError, match=f"unknown: {unknown}"):
                await writer.execute(asked, values)
            with pytest.raises(ParameterError, match=f"unknown: {unknown}"):
                await writer.execute_many(asked, [values])
    for wrong_row in (wrong, renamed):
        with pytest.raises(ParameterError, match="unknown"):
            await writer.copy_in(Offer, [wrong_row])
    with pytest.raises(ParameterError, match="missing parameters: number"):
        await writer.execute(by_number, name="a")
    assert await written(emptied) == []


async def test_limits_are_refused_where_they_mean_nothing(emptied: Database) -> None:
    with pytest.raises(ExpressError, match="takes no timeout"):
        emptied.reader.with_timeout(1).stream(select(Job))
    for count in (0, -1):
        with pytest.raises(ExpressError, match="rows above 0"):
            emptied.reader.stream(select(Job)).yield_per(count)
    with pytest.raises(ParameterError, match="unknown: timeout"):
        await emptied.reader.all(select(Offer), timeout=5)

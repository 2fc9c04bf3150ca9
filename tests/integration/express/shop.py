"""A table with every kind of default, and another one to write from."""

from collections.abc import Iterator
from itertools import count
from typing import Any

from sqlalchemy import JSON, ForeignKey, Sequence, String, func, insert, text
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from penstock import Database

_numbers: Iterator[int] = count(1)


def restart() -> None:
    """Let the numbers that Python makes begin anew."""
    global _numbers  # noqa: PLW0603 - a default is called without arguments of ours
    _numbers = count(1)


def next_number() -> int:
    return next(_numbers)


def slug_of(context: Any) -> str:
    return f"slug of {context.get_current_parameters().get('item_name')}"


def changed_slug_of(context: Any) -> str:
    return "changed to " + repr(context.get_current_parameters().get("price"))


class Base(DeclarativeBase):
    """What the tables belong to."""


class Item(Base):
    """Its columns are filled in from everywhere."""

    __tablename__ = "items"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column("item_name", String(50), unique=True)
    price: Mapped[int | None]
    state: Mapped[str | None] = mapped_column(default="new", onupdate="changed")
    number: Mapped[int | None] = mapped_column(default=next_number, onupdate=next_number)
    slug: Mapped[str | None] = mapped_column(default=slug_of, onupdate=changed_slug_of)
    length: Mapped[int | None] = mapped_column(
        default=func.length("four"), onupdate=func.length("seven")
    )
    ticket: Mapped[int | None] = mapped_column(Sequence("tickets"))
    colour: Mapped[str | None] = mapped_column(server_default=text("'red'"))
    extra: Mapped[Any | None] = mapped_column(JSON)


class Stock(Base):
    """So many pieces of an item."""

    __tablename__ = "stocks"
    item_id: Mapped[int] = mapped_column(ForeignKey("items.id"), primary_key=True)
    place: Mapped[str] = mapped_column(primary_key=True)
    pieces: Mapped[int]


async def fill(database: Database) -> None:
    """Write four items and some stock, after all that was there."""
    restart()
    async with database.write() as session:
        await session.execute(text("TRUNCATE items, stocks RESTART IDENTITY"))
        await session.execute(text("ALTER SEQUENCE tickets RESTART"))
        for number in range(1, 5):
            values = {"name": f"item {number}", "price": 10 * number, "extra": {"a": "b"}}
            await session.execute(insert(Item).values(**values))
        rows = [
            {"item_id": n, "place": place, "pieces": n * size}
            for n in (1, 2)
            for place, size in (("here", 1), ("there", 4))
        ]
        await session.execute(insert(Stock), rows)

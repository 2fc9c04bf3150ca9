"""What the HttpArena peers serve: its profiles async-db and crud, on its table.

The rules: https://github.com/MDA2AV/HttpArena, ``site/content/docs/test-profiles/h1/isolated``.
"""

import json
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any

from fastapi import Response
from fastapi.responses import JSONResponse
from pydantic import BaseModel
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

ITEMS = 100_000
CATEGORIES = (
    "auto",
    "books",
    "clothing",
    "electronics",
    "garden",
    "home",
    "office",
    "sports",
    "tools",
    "toys",
)
NEW_TAGS = ["new"]
"""The tags of an item that was created here, whose other values the rules leave open too."""
CACHED_FOR = 0.2
"""Seconds for which an item may be answered from the cache."""


class Model(DeclarativeBase):
    """The registry of the table."""


class Item(Model):
    """A row; nothing but its id has an index."""

    __tablename__ = "items"
    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    name: Mapped[str]
    category: Mapped[str]
    price: Mapped[int]
    quantity: Mapped[int]
    active: Mapped[bool]
    tags: Mapped[list[str]] = mapped_column(JSONB)
    rating_score: Mapped[int]
    rating_count: Mapped[int]


COLUMNS = tuple(Item.__table__.columns)


class NewItem(BaseModel):
    """An item to be."""

    id: int
    name: str
    category: str
    price: int
    quantity: int


class Change(BaseModel):
    """What an item is changed to."""

    name: str
    price: int
    quantity: int


def item_of(row: Iterable[Any]) -> dict[str, Any]:
    """Return an item as every peer answers it.

    Args:
        row: Its columns in the table's order, its tags decoded or as text.
    """
    item_id, name, category, price, quantity, active, tags, score, count = row
    return {
        "id": item_id,
        "name": name,
        "category": category,
        "price": price,
        "quantity": quantity,
        "active": active,
        "tags": json.loads(tags) if isinstance(tags, str) else tags,
        "rating": {"score": score, "count": count},
    }


def clamped(limit: int) -> int:
    """Return how many items are answered at most: 1 to 50."""
    return min(max(limit, 1), 50)


def found(rows: Sequence[Iterable[Any]]) -> JSONResponse:
    """Answer what async-db has found."""
    return JSONResponse({"items": [item_of(row) for row in rows], "count": len(rows)})


def listed(rows: Sequence[Iterable[Any]], page: int, limit: int) -> JSONResponse:
    """Answer a page of crud."""
    items = [item_of(row) for row in rows]
    return JSONResponse({"items": items, "total": len(items), "page": page, "limit": limit})


def one(row: Iterable[Any] | None, status: int = 200) -> Response:
    """Answer one item, or that there is none."""
    return Response(status_code=404) if row is None else JSONResponse(item_of(row), status)


class Cache:
    """Items as they were answered, each for a fixed time."""

    def __init__(self) -> None:
        self._bodies: dict[int, tuple[float, bytes]] = {}

    async def answer(
        self, item_id: int, read: Callable[[], Awaitable[Iterable[Any] | None]]
    ) -> Response:
        """Answer an item out of the cache, else as it is read, and say which."""
        until, body = self._bodies.get(item_id, (0.0, b""))
        now = time.monotonic()
        if now < until:
            return Response(body, media_type="application/json", headers={"X-Cache": "HIT"})
        response = one(await read())
        if response.status_code == 200:
            response.headers["X-Cache"] = "MISS"
            self._bodies[item_id] = now + CACHED_FOR, bytes(response.body)
        return response

    def forget(self, item_id: int) -> None:
        """Have an item read anew."""
        self._bodies.pop(item_id, None)

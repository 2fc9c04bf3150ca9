"""HttpArena's profiles as its FastAPI entry writes them: ``asyncpg.Pool``, dicts, ``JSONResponse``.

The entry (https://github.com/MDA2AV/HttpArena, ``frameworks/fastapi``) has async-db; crud is
written in the same way. Its middlewares, for gzip and a header, have no part in either peer.
"""

import json

import asyncpg
from benchmarks.peers.asyncpg_pools import pool_of_app
from benchmarks.peers.httparena.items import (
    NEW_TAGS,
    Cache,
    Change,
    NewItem,
    clamped,
    found,
    listed,
    one,
)
from fastapi import FastAPI, Query, Response

COLUMNS = "id, name, category, price, quantity, active, tags, rating_score, rating_count"
IN_RANGE = f"SELECT {COLUMNS} FROM items WHERE price BETWEEN $1 AND $2 LIMIT $3"  # noqa: S608 - constants
PAGE = f"SELECT {COLUMNS} FROM items WHERE category = $1 ORDER BY id LIMIT $2 OFFSET $3"  # noqa: S608 - constants
BY_ID = f"SELECT {COLUMNS} FROM items WHERE id = $1"  # noqa: S608 - constants
UPSERT = f"""
    INSERT INTO items ({COLUMNS}) VALUES ($1, $2, $3, $4, $5, true, $6, 0, 0)
    ON CONFLICT (id) DO UPDATE
        SET name = excluded.name, price = excluded.price, quantity = excluded.quantity
    RETURNING {COLUMNS}
"""  # noqa: S608 - constants
UPDATE = f"""
    UPDATE items SET name = $2, price = $3, quantity = $4 WHERE id = $1 RETURNING {COLUMNS}
"""  # noqa: S608 - constants
TAGS = json.dumps(NEW_TAGS)


class Connection(asyncpg.Connection):  # type: ignore[misc]  # it has no types
    """Is not reset when it is released, as in the entry."""

    __slots__ = ()

    def get_reset_query(self) -> str:
        """Return nothing that would be sent."""
        return ""


cache = Cache()
app = FastAPI(lifespan=pool_of_app(connection_class=Connection))


@app.get("/async-db")
async def async_db(
    least: int = Query(10, alias="min"), most: int = Query(50, alias="max"), limit: int = 50
) -> Response:
    """Read what costs as much."""
    return found(await app.state.pool.fetch(IN_RANGE, least, most, clamped(limit)))


@app.get("/crud/items")
async def list_items(category: str = "electronics", page: int = 1, limit: int = 10) -> Response:
    """Read a page of a category."""
    limit = clamped(limit)
    rows = await app.state.pool.fetch(PAGE, category, limit, (page - 1) * limit)
    return listed(rows, page, limit)


@app.get("/crud/items/{item_id}")
async def get_item(item_id: int) -> Response:
    """Read one item."""
    return await cache.answer(item_id, lambda: app.state.pool.fetchrow(BY_ID, item_id))


@app.post("/crud/items")
async def create_item(item: NewItem) -> Response:
    """Write one item, over one that has its id."""
    values = (item.id, item.name, item.category, item.price, item.quantity, TAGS)
    return one(await app.state.pool.fetchrow(UPSERT, *values), 201)


@app.put("/crud/items/{item_id}")
async def update_item(item_id: int, change: Change) -> Response:
    """Change one item."""
    values = (change.name, change.price, change.quantity)
    row = await app.state.pool.fetchrow(UPDATE, item_id, *values)
    cache.forget(item_id)
    return one(row)

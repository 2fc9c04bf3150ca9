"""HttpArena's profiles by Penstock's express lane."""

from benchmarks.peers.httparena.items import (
    COLUMNS,
    NEW_TAGS,
    Cache,
    Change,
    Item,
    NewItem,
    clamped,
    found,
    listed,
    one,
)
from fastapi import FastAPI, Query, Response
from sqlalchemy import bindparam, select, update
from sqlalchemy.dialects.postgresql import insert

from penstock import Database, query
from penstock.fastapi import Reader, Writer, install

new_values = insert(Item).values(
    id=bindparam("id"),
    name=bindparam("name"),
    category=bindparam("category"),
    price=bindparam("price"),
    quantity=bindparam("quantity"),
    active=True,
    tags=NEW_TAGS,
    rating_score=0,
    rating_count=0,
)
replaced = {name: new_values.excluded[name] for name in ("name", "price", "quantity")}
in_range = query(
    select(*COLUMNS)
    .where(Item.price.between(bindparam("least"), bindparam("most")))
    .limit(bindparam("limit"))
)
page_of_category = query(
    select(*COLUMNS)
    .where(Item.category == bindparam("category"))
    .order_by(Item.id)
    .limit(bindparam("limit"))
    .offset(bindparam("offset"))
)
item_by_id = query(select(*COLUMNS).where(Item.id == bindparam("item_id")))
new_item = query(
    new_values.on_conflict_do_update(index_elements=["id"], set_=replaced).returning(*COLUMNS)
)
changed_item = query(
    update(Item)
    .where(Item.id == bindparam("item_id"))
    .values(name=bindparam("name"), price=bindparam("price"), quantity=bindparam("quantity"))
    .returning(*COLUMNS)
)

cache = Cache()
app = FastAPI()
install(app, Database.from_environment())


@app.get("/async-db")
async def async_db(
    reader: Reader,
    least: int = Query(10, alias="min"),
    most: int = Query(50, alias="max"),
    limit: int = 50,
) -> Response:
    """Read what costs as much."""
    return found(await reader.all(in_range, least=least, most=most, limit=clamped(limit)))


@app.get("/crud/items")
async def list_items(
    reader: Reader, category: str = "electronics", page: int = 1, limit: int = 10
) -> Response:
    """Read a page of a category."""
    limit = clamped(limit)
    rows = await reader.all(
        page_of_category, category=category, limit=limit, offset=(page - 1) * limit
    )
    return listed(rows, page, limit)


@app.get("/crud/items/{item_id}")
async def get_item(item_id: int, reader: Reader) -> Response:
    """Read one item."""
    return await cache.answer(item_id, lambda: reader.one_or_none(item_by_id, item_id=item_id))


@app.post("/crud/items")
async def create_item(item: NewItem, writer: Writer) -> Response:
    """Write one item, over one that has its id."""
    return one(await writer.one(new_item, item.model_dump()), 201)


@app.put("/crud/items/{item_id}")
async def update_item(item_id: int, change: Change, writer: Writer) -> Response:
    """Change one item."""
    row = await writer.one_or_none(changed_item, item_id=item_id, **change.model_dump())
    cache.forget(item_id)
    return one(row)

"""Statements that write, each with the values of its parameters."""

from typing import Any

from sqlalchemy import (
    Integer,
    bindparam,
    delete,
    func,
    insert,
    literal,
    select,
    text,
    update,
)
from sqlalchemy.dialects.postgresql import insert as upsert
from tests.integration.express.reads import dear
from tests.integration.express.shop import Item, Stock

table: Any = Item.__table__
stock: Any = Stock.__table__
named: dict[str, Any] = {"name": bindparam("n"), "price": bindparam("p")}

merged = upsert(Item).values(**named)
WRITES: dict[str, tuple[Any, dict[str, Any]]] = {
    "insert": (insert(Item).values(**named), {"n": "a", "p": 1}),
    "insert_core": (insert(table).values(item_name=bindparam("n")), {"n": "a"}),
    "insert_literal": (insert(Item).values(name="a", price=5), {}),
    "insert_open": (insert(Item), {"name": "a", "price": 2}),
    "insert_open_core": (insert(table), {"item_name": "a", "price": 2}),
    "insert_open_null": (insert(Item), {"name": "a", "state": None, "extra": None}),
    "insert_open_json": (insert(Item), {"name": "a", "extra": [1, None]}),
    "insert_null": (insert(Item).values(name="a", state=None, colour=None), {}),
    "insert_expression": (
        insert(Item).values(
            name=func.upper(bindparam("n")),
            price=select(func.max(Item.price) + 1).scalar_subquery(),
        ),
        {"n": "a"},
    ),
    "insert_many_values": (
        insert(Item).values([{"name": "a", "slug": "x"}, {"name": "b", "slug": "y"}]),
        {},
    ),
    "insert_many_values_core": (insert(table).values([{"item_name": "a"}, {"item_name": "b"}]), {}),
    "insert_many_returning": (
        insert(Item)
        .values([{"name": "a", "slug": "x"}, {"name": "b", "slug": "y"}])
        .returning(Item.id, Item.slug),
        {},
    ),
    "insert_returning": (
        insert(Item)
        .values(**named)
        .returning(Item.id, Item.name, Item.slug, Item.length, Item.colour),
        {"n": "a", "p": 1},
    ),
    "insert_returning_open": (insert(Item).returning(Item.id, Item.name), {"name": "a"}),
    "insert_from_select": (
        insert(stock).from_select(
            ["item_id", "place", "pieces"],
            select(Item.id, literal("new"), bindparam("p", type_=Integer)).where(Item.id > 2),
        ),
        {"p": 3},
    ),
    "insert_from_select_defaults": (
        insert(table).from_select(
            ["item_name"], select(table.c.item_name + "!").where(table.c.id == bindparam("i"))
        ),
        {"i": 1},
    ),
    "insert_default_values": (
        insert(Stock).values(item_id=1, place="x", pieces=1).returning(Stock.pieces),
        {},
    ),
    "insert_cte": (
        insert(stock).from_select(
            ["item_id", "place", "pieces"], select(dear.c.id, dear.c.name, literal(1))
        ),
        {"least": 25},
    ),
    "conflict_nothing": (merged.on_conflict_do_nothing(), {"n": "item 1", "p": 1}),
    "conflict_update": (
        merged.on_conflict_do_update(
            index_elements=[Item.name], set_={"price": merged.excluded.price + bindparam("more")}
        ).returning(Item.id, Item.price),
        {"n": "item 1", "p": 1, "more": 7},
    ),
    "conflict_where": (
        merged.on_conflict_do_update(
            index_elements=["item_name"], set_={"price": 0}, where=Item.price > bindparam("least")
        ),
        {"n": "item 1", "p": 1, "least": 99},
    ),
    "update": (
        update(Item).where(Item.id == bindparam("i")).values(price=bindparam("p")),
        {"i": 1, "p": 9},
    ),
    "update_expression": (
        update(Item).where(Item.id > bindparam("i")).values(price=Item.price + 1),
        {"i": 1},
    ),
    "update_attribute": (update(Item).where(Item.id == 1).values({Item.name: "renamed"}), {}),
    "update_name": (update(Item).where(Item.id == 1).values(name="renamed"), {}),
    "update_open": (
        update(Item).where(Item.id == bindparam("i")),
        {"i": 1, "price": 3},
    ),
    "update_open_core": (
        update(table).where(table.c.id == bindparam("i")),
        {"i": 1, "item_name": "x"},
    ),
    "update_returning": (
        update(Item).where(Item.id < 3).values(price=0).returning(Item.id, Item.state, Item.slug),
        {},
    ),
    "update_from": (
        update(Item)
        .where(Item.id == Stock.item_id, Stock.place == bindparam("pl"))
        .values(price=Stock.pieces),
        {"pl": "here"},
    ),
    "update_ordered": (
        update(table)
        .where(table.c.id == 1)
        .ordered_values((table.c.price, 1), (table.c.colour, "b")),
        {},
    ),
    "update_core": (update(table).where(table.c.id == bindparam("i")).values(price=1), {"i": 2}),
    "update_entity": (
        update(Item).where(Item.id == 1).values(price=1).returning(Item.id, Item.name),
        {},
    ),
    "update_none": (update(Item).where(Item.id == -1).values(price=1), {}),
    "update_same_name": (
        update(table).where(table.c.id == bindparam("price_")).values(price=bindparam("p")),
        {"price_": 1, "p": 4},
    ),
    "delete": (delete(Stock).where(Stock.item_id == bindparam("i")), {"i": 1}),
    "delete_returning": (
        delete(Stock).where(Stock.pieces > bindparam("p")).returning(Stock.item_id, Stock.place),
        {"p": 3},
    ),
    "delete_using": (delete(Stock).where(Stock.item_id == Item.id, Item.price > 15), {}),
    "delete_in": (delete(Stock).where(Stock.item_id.in_(bindparam("ids"))), {"ids": [1, 2]}),
    "text": (text("UPDATE items SET price = :p WHERE id < 3"), {"p": 5}),
    "text_returning": (text("DELETE FROM stocks WHERE item_id = :i RETURNING place"), {"i": 1}),
    "cte_of_a_write": (
        select(
            delete(Stock).where(Stock.item_id == bindparam("i")).returning(Stock.place).cte("gone")
        ),
        {"i": 1},
    ),
}
MANY: dict[str, tuple[Any, list[dict[str, Any]]]] = {
    "insert": (insert(Item), [{"name": "a", "price": 1}, {"name": "b", "price": None}]),
    "insert_core": (insert(table), [{"item_name": "a"}, {"item_name": "b"}]),
    "insert_null_for_default": (
        insert(Item),
        [{"name": "a", "state": None}, {"name": "b", "state": "x"}],
    ),
    "insert_null_for_json": (insert(Item), [{"name": "a", "extra": None}]),
    "insert_json": (insert(Item), [{"name": "a", "extra": {"x": 1}}]),
    "insert_named": (insert(Item).values(**named), [{"n": "a", "p": 1}, {"n": "b", "p": 2}]),
    "update": (
        update(table).where(table.c.id == bindparam("i")).values(price=bindparam("p")),
        [{"i": 1, "p": 5}, {"i": 2, "p": 6}],
    ),
    "delete": (delete(stock).where(stock.c.item_id == bindparam("i")), [{"i": 1}, {"i": 2}]),
    "conflict": (merged.on_conflict_do_nothing(), [{"n": "item 1", "p": 1}, {"n": "z", "p": 1}]),
}

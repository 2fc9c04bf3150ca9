"""Statements that read, each with the values of its parameters."""

from typing import Any

from sqlalchemy import (
    JSON,
    Integer,
    String,
    bindparam,
    case,
    cast,
    column,
    exists,
    func,
    literal,
    literal_column,
    null,
    or_,
    select,
    text,
    true,
    tuple_,
    union,
    union_all,
    values,
)
from sqlalchemy.dialects.postgresql import ARRAY, aggregate_order_by, array, distinct_on
from tests.integration.express.shop import Item, Stock

table: Any = Item.__table__
stock: Any = Stock.__table__
ids = select(Item.id).order_by(Item.id)
dear = select(Item.id, Item.name).where(Item.price > bindparam("least")).cte("dear")
tree = select(literal(1).label("n")).cte("tree", recursive=True)
tree = tree.union_all(select(tree.c.n + 1).where(tree.c.n < bindparam("depth")))
per_item = (
    select(func.sum(Stock.pieces).label("sum")).where(Stock.item_id == Item.id).lateral("per_item")
)
series = func.generate_series(1, bindparam("end")).table_valued("n", name="series").render_derived()
pairs = values(column("a", Integer), column("b", String), name="pairs").data([(1, "x"), (2, "y")])

READS: dict[str, tuple[Any, dict[str, Any]]] = {
    "join": (select(Item.name, Stock.pieces).join(Stock).order_by(Stock.item_id, Stock.place), {}),
    "outer_join": (
        select(Item.name, Stock.pieces)
        .outerjoin(Stock, Stock.item_id == Item.id)
        .order_by(Item.id, Stock.place),
        {},
    ),
    "cte": (select(dear).order_by(dear.c.id), {"least": 15}),
    "cte_recursive": (select(tree.c.n), {"depth": 4}),
    "aggregate": (
        select(
            Stock.place, func.sum(Stock.pieces), func.count().label("count"), func.max(Stock.pieces)
        )
        .group_by(Stock.place)
        .having(func.sum(Stock.pieces) > bindparam("least"))
        .order_by(Stock.place),
        {"least": 1},
    ),
    "aggregate_filter": (
        select(
            func.array_agg(aggregate_order_by(Item.id, Item.id.desc())).filter(
                Item.id > bindparam("id")
            )
        ),
        {"id": 1},
    ),
    "window": (
        select(
            Item.id, func.row_number().over(partition_by=Item.colour, order_by=Item.id.desc())
        ).order_by(Item.id),
        {},
    ),
    "correlated": (
        select(
            Item.id, select(func.count()).where(Stock.item_id == Item.id).scalar_subquery()
        ).order_by(Item.id),
        {},
    ),
    "exists": (
        ids.where(exists().where(Stock.item_id == Item.id, Stock.pieces > bindparam("p"))),
        {"p": 5},
    ),
    "lateral": (select(Item.id, per_item.c.sum).join(per_item, true()).order_by(Item.id), {}),
    "in_subquery": (ids.where(Item.id.in_(select(Stock.item_id))), {}),
    "in_some": (ids.where(Item.id.in_(bindparam("ids", expanding=True))), {"ids": [1, 3]}),
    "in_tuple": (ids.where(Item.id.in_(bindparam("ids"))), {"ids": (1, 3)}),
    "in_generator": (ids.where(Item.id.in_(bindparam("ids"))), {"ids": {2}}),
    "in_none": (ids.where(Item.id.in_(bindparam("ids"))), {"ids": []}),
    "not_in_none": (ids.where(Item.id.not_in(bindparam("ids"))), {"ids": []}),
    "in_pairs": (
        ids.where(tuple_(Item.id, Item.name).in_(bindparam("ids"))),
        {"ids": [(1, "item 1"), (2, "no")]},
    ),
    "in_twice": (
        ids.where(or_(Item.id.in_(bindparam("ids")), Item.price.in_(bindparam("prices")))),
        {"ids": [1], "prices": [20, 30, 40]},
    ),
    "in_same_twice": (
        ids.where(or_(Item.id.in_(bindparam("ids")), Item.price.in_(bindparam("ids")))),
        {"ids": [1, 20]},
    ),
    "in_literal": (ids.where(Item.id.in_([1, 2])), {}),
    "in_and_literal": (
        ids.where(Item.id.in_(bindparam("ids")), Item.name != "no"),
        {"ids": [1, 2]},
    ),
    "any_array": (
        ids.where(Item.id == func.any(bindparam("ids", type_=ARRAY(Integer)))),
        {"ids": [1, 2]},
    ),
    "limit": (ids.limit(bindparam("limit")).offset(bindparam("offset")), {"limit": 2, "offset": 1}),
    "limit_literal": (ids.limit(2).offset(1), {}),
    "fetch": (ids.fetch(2), {}),
    "literals": (
        select(
            literal(1),
            literal("x"),
            literal(None),
            null(),
            true(),
            literal(1.5),
            literal([1, 2], ARRAY(Integer)),
        ),
        {},
    ),
    "literal_execute": (ids.where(Item.id == bindparam("id", literal_execute=True)), {"id": 2}),
    "literal_column": (
        select(literal_column("1 + 1").label("two"), literal_column("'x'", String)),
        {},
    ),
    "text": (text("SELECT id, item_name, price FROM items WHERE id > :id ORDER BY id"), {"id": 1}),
    "text_columns": (
        text("SELECT item_name, id FROM items WHERE id > :id ORDER BY id").columns(
            item_name=String, id=Integer
        ),
        {"id": 1},
    ),
    "text_by_position": (
        text("SELECT item_name, id FROM items WHERE id > :id ORDER BY id").columns(
            table.c.item_name, table.c.id
        ),
        {"id": 1},
    ),
    "text_typed": (text("SELECT :x AS x").bindparams(bindparam("x", type_=Integer)), {"x": 5}),
    "text_colon": (text(r"SELECT '\:x' AS x, id::text FROM items WHERE id = :id"), {"id": 1}),
    "text_expanding": (
        text("SELECT id FROM items WHERE id IN :ids ORDER BY id").bindparams(
            bindparam("ids", expanding=True)
        ),
        {"ids": [1, 2]},
    ),
    "text_percent": (text("SELECT 7 % 4 AS rest, 'a%' LIKE '%'"), {}),
    "text_within": (ids.where(text("price > :least")), {"least": 15}),
    "table_valued": (select(series.c.n), {"end": 3}),
    "table_valued_ordinality": (
        select(
            func.unnest(array([4, 5]))
            .table_valued("v", with_ordinality="o", name="u")
            .render_derived()
        ),
        {},
    ),
    "column_valued": (
        select(func.unnest(bindparam("xs", type_=ARRAY(Integer))).column_valued("x")),
        {"xs": [1, None]},
    ),
    "json_each": (
        select(func.json_each_text(literal({"a": "b"}, JSON)).table_valued("key", "value")),
        {},
    ),
    "values": (select(pairs).order_by(pairs.c.a), {}),
    "values_join": (
        select(Item.name, pairs.c.b).join(pairs, pairs.c.a == Item.id).order_by(Item.id),
        {},
    ),
    "distinct_on": (
        select(Stock.place, Stock.item_id)
        .ext(distinct_on(Stock.place))
        .order_by(Stock.place, Stock.item_id),
        {},
    ),
    "union": (union(select(Item.id), select(Stock.item_id)).order_by("id"), {}),
    "union_parameters": (
        union_all(
            ids.where(Item.id == bindparam("a")).order_by(None),
            select(Stock.item_id).where(Stock.item_id == bindparam("b")),
        ),
        {"a": 1, "b": 2},
    ),
    "case": (
        select(case((Item.id > bindparam("id"), "big"), else_="small")).order_by(Item.id),
        {"id": 2},
    ),
    "cast": (
        select(cast(Item.id, String), cast(bindparam("x"), Integer)).order_by(Item.id),
        {"x": 4},
    ),
    "same_name_twice": (
        ids.where(or_(Item.id == bindparam("x"), Item.price == bindparam("x"))),
        {"x": 20},
    ),
    "optional": (ids.where(Item.id > bindparam("id", 2)), {}),
    "optional_given": (ids.where(Item.id > bindparam("id", 2)), {"id": 1}),
    "optional_none": (select(bindparam("x", None, type_=Integer)), {}),
    "callable": (ids.where(Item.id > bindparam("after", callable_=lambda: 2)), {}),
    "callable_given": (ids.where(Item.id > bindparam("after", callable_=lambda: 2)), {"after": 1}),
    "strange_name": (ids.where(Item.id == bindparam("a:b (c) d%")), {"a:b (c) d%": 2}),
    "keyword_name": (ids.where(Item.id == bindparam("statement")), {"statement": 2}),
    "json_path": (select(Item.extra["a"].as_string()).order_by(Item.id), {}),
    "no_rows": (ids.where(Item.id < 0), {}),
    "whole_table": (select(table).order_by(table.c.id), {}),
    "boolean_is": (ids.where(Item.price.is_(None)), {}),
    "like": (ids.where(Item.name.contains(bindparam("part"), autoescape=False)), {"part": "2"}),
    "interval": (select(func.now() - func.now()), {}),
}

"""A table for each kind of column, and everything that is written into it and asked of it."""

import math
from collections.abc import Iterable
from functools import cached_property
from typing import Any

from sqlalchemy import (
    Column,
    Integer,
    Table,
    Text,
    bindparam,
    cast,
    delete,
    insert,
    select,
)
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import registry
from tests.integration.express.batches import at_once
from tests.integration.express.column_kind import Kind

from penstock import Database, query


class Sample:
    """A table with one column of a kind, and everything that is asked of it.

    Args:
        kind: Of its column.
        mappers: Where its table and class belong.
    """

    def __init__(self, kind: Kind, mappers: registry) -> None:
        self.kind = kind
        self.table = table = Table(
            f"t_{kind.name}",
            mappers.metadata,
            Column("id", Integer, primary_key=True, autoincrement=False),
            Column("value", kind.type),
        )
        self.entity: Any = type(kind.name, (), {})
        mappers.map_imperatively(self.entity, table)
        self.add = insert(table).values(id=bindparam("row"), value=bindparam("wanted"))

    @cached_property
    def asked(self) -> dict[str, Any]:
        number, value = self.table.c
        wanted: Any = bindparam("wanted")
        rows = select(self.table).order_by(number)
        return {
            "rows": rows,
            "literal": select(number, cast(value, Text)).order_by(number),
            "equal": rows.where(value == wanted),
            "in_list": rows.where(value.in_(bindparam("wanted", expanding=True))),
            "echo": select(bindparam("wanted", type_=value.type).label(self.table.name)),
        }

    @cached_property
    def prepared(self) -> dict[str, Any]:
        return {name: query(statement) for name, statement in self.asked.items()}

    @cached_property
    def prepared_add(self) -> Any:
        return query(self.add)


def samples_of(kinds: Iterable[Kind], mappers: registry) -> list[Sample]:
    """Return a table for each kind."""
    return [Sample(kind, mappers) for kind in kinds]


async def write(database: Database, sample: Sample, way: str, rows: list[dict[str, Any]]) -> None:
    """Write rows by one of the ways."""
    if way == "express":
        for row in rows:
            values = {"row": row["id"], "wanted": row["value"]}
            await database.writer.execute(sample.prepared_add, values)
    elif way == "express_many":
        await database.writer.execute_many(insert(sample.table), rows)
    elif way == "copy":
        assert await database.writer.copy_in(sample.table, rows) == len(rows)
    else:
        await write_by_session(database, sample, way, rows)


async def write_by_session(
    database: Database, sample: Sample, way: str, rows: list[dict[str, Any]]
) -> None:
    async with database.write() as session:
        if way == "orm":
            for row in rows:
                instance = sample.entity()
                vars(instance)
                instance.id, instance.value = row["id"], row["value"]
                session.add(instance)
        elif way == "session_many":
            await session.execute(insert(sample.table), rows)
        else:
            for row in rows:
                await session.execute(sample.add, {"row": row["id"], "wanted": row["value"]})


async def told(asking: Any) -> Any:
    """Return what was answered, or which error."""
    try:
        return [tuple(row) for row in await asking]
    except SQLAlchemyError as error:
        return type(error), getattr(getattr(error, "orig", None), "sqlstate", str(error)[:200])


async def ask_session(database: Database, statement: Any, values: dict[str, Any]) -> Any:
    async def ask() -> Any:
        async with database.read() as session:
            return (await session.execute(statement, values)).all()

    return await told(ask())


async def ask_express(database: Database, asked: Any, values: dict[str, Any]) -> Any:
    return await told(database.reader.all(asked, values))


def assert_same(one: Any, other: Any) -> None:
    """Hold two values against each other, and their types all the way down."""
    assert type(one) is type(other), (one, other)
    if isinstance(one, list | tuple):
        assert len(one) == len(other), (one, other)
        for a, b in zip(one, other, strict=True):
            assert_same(a, b)
    elif isinstance(one, dict):
        assert_same(list(one.items()), list(other.items()))
    else:
        assert one == other or (math.isnan(one) and math.isnan(other)), (one, other)


async def check(database: Database, sample: Sample, values: list[Any]) -> set[str]:
    """Write values in every way, read them in every way, and hold all that comes together.

    Args:
        database: Where the table is.
        sample: The table.
        values: What is written; at most one of them None.

    Returns:
        Which questions the server refused, to a session and in the express lane alike.
    """
    kind = sample.kind
    stored: dict[str, Any] = {}
    for way in kind.ways:
        await database.writer.execute(delete(sample.table))
        rows = [{"id": number, "value": value} for number, value in enumerate(values)]
        await write(database, sample, way, rows)
        by_session = await ask_session(database, sample.asked["rows"], {})
        assert_same(await ask_express(database, sample.prepared["rows"], {}), by_session)
        stored[way] = by_session, await ask_session(database, sample.asked["literal"], {})
    for way in kind.ways:
        assert_same((way, stored[way]), (way, stored["session"]))
    refused: set[str] = set()
    asked = [("in_list", values), ("in_list", values[1:]), ("in_list", [])]
    for name, wanted in [*asked, *((n, v) for n in ("equal", "echo") for v in values)]:
        by_session = await ask_session(database, sample.asked[name], {"wanted": wanted})
        if isinstance(by_session, tuple):
            refused.add(name)
        assert_same(
            await ask_express(database, sample.prepared[name], {"wanted": wanted}), by_session
        )
        assert_same(await ask_express(database, sample.asked[name], {"wanted": wanted}), by_session)
    for name in ("equal", "echo"):
        await _check_together(database, sample, name, values)
    for value in values[1:]:
        statement = select(sample.entity.id).where(sample.entity.value == value)
        by_session = await ask_session(database, statement, {})
        assert_same(await ask_express(database, query(statement), {}), by_session)
        assert_same(await ask_express(database, statement, {}), by_session)
    return refused


async def _check_together(database: Database, sample: Sample, name: str, values: list[Any]) -> None:
    """Ask for several values at once, as requests that leave together do."""
    asked, many = sample.prepared[name], values * 3
    alone = [await ask_express(database, asked, {"wanted": value}) for value in many]
    together = await at_once(ask_express(database, asked, {"wanted": value}) for value in many)
    assert_same(together, alone)

"""For each kind of column, classes that are mapped in each of the ways that load it."""

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple, Self

from sqlalchemy import Column, ForeignKey, Integer, String, Table, event
from sqlalchemy.orm import composite, deferred, query_expression, registry, relationship
from tests.integration.express.column_kind import Kind

from penstock import Query, query


class Pair(NamedTuple):
    """A composite value of a key and the value that is looked at."""

    number: Any
    value: Any

    def __composite_values__(self) -> tuple[Any, Any]:
        return self.number, self.value


class World:
    """Three tables, each with one column of a kind, and the classes that are mapped to them.

    Args:
        kind: Of the columns.
        mappers: Where the tables and classes belong.
    """

    def __init__(self, kind: Kind, mappers: registry) -> None:
        self.kind = kind
        self._mappers = mappers
        self._prepared: dict[str, Query[Any]] = {}
        self.parents = self._table("parent", Column("type", String))
        self.children = self._table(
            "child",
            Column("type", String),
            Column("parent_id", ForeignKey(self.parents.c.id)),
        )
        key: Column[Any] = Column("id", ForeignKey(self.parents.c.id), primary_key=True)
        self.further = Table(f"further_{kind.name}", mappers.metadata, key, self._more("more"))
        self.Parent = self._plain_parent()
        self.Child = self._child("Child", "select")
        self.EagerChild = self._child("EagerChild", "joined")
        self.SelectinChild = self._child("SelectinChild", "selectin")
        self.Listened = self._listened()
        self.Deferred = self._map(
            "Deferred",
            self.parents,
            value=deferred(self.parents.c.value),
            computed=query_expression(),
        )
        pair = composite(Pair, self.parents.c.id, self.parents.c.value)
        self.Composed = self._map("Composed", self.parents, pair=pair)
        self.Joined, self.JoinedSub = self._joined()
        self.Single, self.SingleSub = self._single()

    def rows(self, values: list[Any]) -> dict[Table, list[dict[str, Any]]]:
        """Return what is in each table: a parent, two children and what is further, a value."""
        numbered = list(enumerate(values, 1))
        return {
            self.parents: [
                {"id": n, "type": "sub" if n % 2 else "base", "value": v} for n, v in numbered
            ],
            self.children: [
                {"id": 10 * n + i, "parent_id": n, "type": ("base", "sub")[i], "value": v}
                for n, v in numbered
                for i in (0, 1)
            ],
            self.further: [{"id": n, "more": v} for n, v in numbered if n % 2],
        }

    def prepared(self, way: str, make: Callable[[Self], Any]) -> Query[Any]:
        """Return the query for one way to load, the same each time."""
        if way not in self._prepared:
            self._prepared[way] = query(make(self))
        return self._prepared[way]

    def _more(self, name: str) -> Column[Any]:
        return Column(name, self.kind.type)

    def _table(self, name: str, *columns: Column[Any]) -> Table:
        return Table(
            f"{name}_{self.kind.name}",
            self._mappers.metadata,
            Column("id", Integer, primary_key=True, autoincrement=False),
            *columns,
            self._more("value"),
        )

    def _map(
        self, name: str, table: Table | None, bases: tuple[type, ...] = (), **properties: Any
    ) -> Any:
        made = type(f"{name}_{self.kind.name}", bases, {})
        arguments = {key[1:]: properties.pop(key) for key in list(properties) if key[0] == "_"}
        self._mappers.map_imperatively(made, table, properties=properties, **arguments)
        return made

    def _plain_parent(self) -> Any:
        children = relationship(
            lambda: self.Child, order_by=self.children.c.id, viewonly=True, uselist=True
        )
        return self._map("Parent", self.parents, children=children)

    def _child(self, name: str, lazy: Any) -> Any:
        parent = relationship(lambda: self.Parent, lazy=lazy, viewonly=True)
        return self._map(name, self.children, parent=parent)

    def _listened(self) -> Any:
        listened = self._map("Listened", self.parents)

        @event.listens_for(listened, "load")
        def on_load(instance: Any, _: Any) -> None:
            instance.after_listeners = instance.value

        return listened

    def _joined(self) -> tuple[Any, Any]:
        column = self.parents.c.type
        base = self._map(
            "Joined", self.parents, _polymorphic_on=column, _polymorphic_identity="base"
        )
        sub = self._map(
            "JoinedSub", self.further, (base,), _inherits=base, _polymorphic_identity="sub"
        )
        return base, sub

    def _single(self) -> tuple[Any, Any]:
        column = self.children.c.type
        base = self._map(
            "Single", self.children, _polymorphic_on=column, _polymorphic_identity="base"
        )
        sub = self._map("SingleSub", None, (base,), _inherits=base, _polymorphic_identity="sub")
        return base, sub


def worlds_of(kinds: Iterable[Kind], mappers: registry) -> list[World]:
    """Return a world for each kind."""
    return [World(kind, mappers) for kind in kinds]

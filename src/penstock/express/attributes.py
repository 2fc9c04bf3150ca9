"""The names under which values are written: attributes of a mapped class, or columns of a table."""

from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from typing import Any, Self

from sqlalchemy import Insert
from sqlalchemy.orm import CompositeProperty, Mapper

from penstock.express.errors import ParameterError

__all__ = ["Attributes"]

_Spread = Callable[[dict[str, Any], Any], None]
"""Adds to a row's values what one value stands for."""


class Attributes:
    """What values can be given for.

    Args:
        table: The table that is written.
        mapper: Of the class that is written; None for a table alone.
        is_insert: Whether rows are added, for which a hybrid may have a ``bulk_dml()`` of its own.

    Attributes:
        columns: The keys of the columns by name.
        names: All that are known: those, composites, hybrids.
    """

    def __init__(self, table: Any, mapper: Mapper[Any] | None = None, *, is_insert: bool) -> None:
        self.columns: Mapping[str, str] = {column.key: column.key for column in table.columns}
        self._spread: dict[str, _Spread] = {}
        if mapper is not None:
            self.columns = _columns(mapper)
            self._spread = {c.key: partial(_spread_composite, c) for c in mapper.composites}
            if is_insert:
                self._spread |= _hybrids(mapper)
        self.names = frozenset({*self.columns, *self._spread})

    @classmethod
    def of(cls, statement: Any) -> Self:
        """Return those of an ``insert()`` or ``update()``."""
        mapper = getattr(statement.entity_description.get("entity"), "__mapper__", None)
        return cls(statement.table, mapper, is_insert=isinstance(statement, Insert))

    def spread(
        self, values: Mapping[str, Any], parameters: Collection[str] = ()
    ) -> Mapping[str, Any]:
        """Return values of which each is for one column, as a composite's is not.

        Args:
            values: By name.
            parameters: Names that stand for something else.

        Raises:
            ParameterError: A value is none of the composite's class.
        """
        found = self._spread.keys() & values.keys()
        found.difference_update(parameters)
        if not found:
            return values
        spread = dict(values)
        for name in found:
            self._spread[name](spread, spread.pop(name))
        return spread


def _columns(mapper: Mapper[Any]) -> dict[str, str]:
    return {
        attribute.key: attribute.columns[0].key
        for attribute in mapper.column_attrs
        if getattr(attribute.columns[0], "table", None) is mapper.local_table
    }


def _spread_composite(
    composite: CompositeProperty[Any], values: dict[str, Any], value: Any
) -> None:
    made = composite.composite_class
    parts: Sequence[Any] = [None] * len(composite.props)
    if isinstance(made, type) and not isinstance(value, made | None):
        raise ParameterError(f"{composite.key}: {type(value).__name__} is no {made.__name__}")
    if value is not None:
        parts = composite._composite_values_from_instance(value)  # noqa: SLF001 - as a session's UPDATE
    values.update(zip((prop.key for prop in composite.props), parts, strict=True))


def _hybrids(mapper: Mapper[Any]) -> dict[str, _Spread]:
    setters = {
        name: getattr(descriptor, "bulk_dml_setter", None)
        for name, descriptor in mapper.all_orm_descriptors.items()
    }
    return {
        name: partial(setter, mapper.class_)
        for name, setter in setters.items()
        if setter is not None
    }

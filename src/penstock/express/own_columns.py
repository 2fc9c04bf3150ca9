"""Rows by the columns of the very statement that was given, where one of its form was compiled."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Row, Table, TextClause
from sqlalchemy.orm import FromStatement, InstrumentedAttribute
from sqlalchemy.sql.dml import UpdateBase

__all__ = ["OwnColumns"]


class OwnColumns:
    """What rows are found by, of one statement for all of its form.

    Args:
        statement: The one that was compiled, by whose columns its rows are found.
    """

    def __init__(self, statement: Any) -> None:
        self._keys = _keys(statement)
        self.are_shared = all(_lasts(key) for key in self._keys)
        """Whether another statement of the form has the same ones, as those of a table are."""

    def found_by(self, statement: Any, results: list[Any]) -> list[Any]:
        """Return results that are found by the columns of another statement of the form, too.

        Args:
            statement: The other one.
            results: Of the one that was compiled.
        """
        if self.are_shared or not results or not isinstance(results[0], Row):
            return results
        first: Any = results[0]
        index = dict(first._key_to_index)  # noqa: SLF001 - what SQLAlchemy gives its rows, as below
        for own, known in zip(_keys(statement), self._keys, strict=True):
            if known in index:
                index[own] = index[known]
        return [Row(first._parent, None, index, row._data) for row in results]  # noqa: SLF001


def _keys(statement: Any) -> Sequence[Any]:
    """Return all objects by which a value may be asked for, in an order that the form decides."""
    if isinstance(statement, TextClause):
        return []
    if isinstance(statement, FromStatement):
        return [*statement._raw_columns, *_described(statement)]  # noqa: SLF001 - no public way to them, as below
    selected = list(statement._all_selected_columns)  # noqa: SLF001
    if isinstance(statement, UpdateBase):
        return [*selected, *statement._returning]  # noqa: SLF001
    return [*selected, *_described(statement)]


def _described(statement: Any) -> list[Any]:
    return [each["expr"] for each in getattr(statement, "column_descriptions", ())]


def _lasts(key: Any) -> bool:
    if isinstance(key, InstrumentedAttribute):
        parent: Any = key.parent
        return not parent.is_aliased_class
    return isinstance(key, type | Table) or isinstance(getattr(key, "table", None), Table)

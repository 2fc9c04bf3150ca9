"""Rows by the columns of the very statement that was given, where one of its form was compiled."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Row, Table
from sqlalchemy.orm import InstrumentedAttribute
from sqlalchemy.sql.dml import UpdateBase

__all__ = ["by_columns_of", "has_own_columns"]


def has_own_columns(statement: Any) -> bool:
    """Tell whether columns are made for one statement, as labels and those of an alias are."""
    return not all(_lasts(each) for each in _described(statement))


def by_columns_of(statement: Any, results: list[Any]) -> list[Any]:
    """Have rows found by the columns of a statement, too.

    Args:
        statement: As it was given.
        results: Of another one, of the same form.
    """
    if not results or not isinstance(results[0], Row):
        return results
    first: Any = results[0]
    own = {each["expr"]: number for number, each in enumerate(_described(statement))}
    index = {**first._key_to_index, **own}  # noqa: SLF001 - what SQLAlchemy gives its rows, as in the next line
    return [Row(first._parent, None, index, row._data) for row in results]  # noqa: SLF001


def _described(statement: Any) -> Sequence[Any]:
    name = (
        "returning_column_descriptions"
        if isinstance(statement, UpdateBase)
        else "column_descriptions"
    )
    described: Sequence[Any] = getattr(statement, name, ())
    return described


def _lasts(described: Any) -> bool:
    expression = described["expr"]
    if described.get("aliased"):
        return False
    if isinstance(expression, InstrumentedAttribute | type):
        return True
    return isinstance(getattr(expression, "table", None), Table)

"""Which statements write at most one row, whatever the values."""

from typing import Any

from sqlalchemy import Column, Insert, Table
from sqlalchemy.sql import operators
from sqlalchemy.sql.dml import Delete, Update
from sqlalchemy.sql.elements import BinaryExpression, BindParameter, BooleanClauseList

__all__ = ["is_of_one_row"]


def is_of_one_row(statement: Any) -> bool:
    """Return whether a statement writes at most one row.

    It is an INSERT of one row of values, or an UPDATE or DELETE whose WHERE gives a value to the
    whole primary key, or to a unique column.
    """
    if isinstance(statement, Insert):
        return not statement._multi_values and statement.select is None  # noqa: SLF001 - no public way to ask
    if not isinstance(statement, Update | Delete) or not isinstance(statement.table, Table):
        return False
    given = {
        column.key
        for criterion in statement._where_criteria  # noqa: SLF001 - as above
        for column in _columns_given(criterion, statement.table)
    }
    columns = statement.table.c
    key = statement.table.primary_key.columns.keys()
    return bool(key and given.issuperset(key)) or any(columns[name].unique for name in given)


def _columns_given(criterion: Any, table: Table) -> list[Column[Any]]:
    if isinstance(criterion, BooleanClauseList) and criterion.operator is operators.and_:
        return [column for part in criterion.clauses for column in _columns_given(part, table)]
    if not isinstance(criterion, BinaryExpression) or criterion.operator is not operators.eq:
        return []
    column: Any = criterion.left
    owner = getattr(column, "table", None)
    if owner is None or not owner.compare(table) or not isinstance(criterion.right, BindParameter):
        return []
    return [table.c[column.key]] if column.key in table.c else []

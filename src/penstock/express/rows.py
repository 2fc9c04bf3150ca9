"""What the driver's rows become: rows of columns, or instances of mapped classes."""

from collections.abc import Callable, Iterable, Sequence
from itertools import chain, pairwise
from typing import Any, Protocol

from sqlalchemy import (
    Boolean,
    Column,
    Date,
    DateTime,
    Delete,
    Enum,
    Insert,
    Integer,
    Interval,
    Numeric,
    Row,
    String,
    Table,
    TextClause,
    Time,
    TypeDecorator,
    Update,
    Uuid,
)
from sqlalchemy.engine.result import SimpleResultMetaData
from sqlalchemy.exc import MultipleResultsFound, NoResultFound
from sqlalchemy.orm import FromStatement, InstrumentedAttribute
from sqlalchemy.sql import operators
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.dml import UpdateBase
from sqlalchemy.sql.elements import BinaryExpression, BindParameter, BooleanClauseList
from typing_extensions import override

from penstock.drivers import sqlalchemy_internals as internals
from penstock.drivers.sql_text import SYNTAX
from penstock.drivers.sql_words import statements
from penstock.express.orm import Cursor, Description, EntityParts, Loading, Origin


class Shape(Protocol):
    """Makes results of the driver's rows."""

    cursor: Cursor
    """The columns of the driver's rows."""
    is_single: bool
    """Whether a result is one instance and no row."""
    is_collected: bool
    """Whether a result may take all of the driver's rows, so that none can be streamed."""
    takes_statements: bool
    """Whether further statements may be needed."""
    may_fail: bool
    """Whether code of the classes' own takes part, which may raise."""

    def results(
        self, records: Sequence[Sequence[Any]], statement: Any, origin: Origin | None = None
    ) -> list[Any]:
        """Return what the records become.

        Args:
            records: The driver's rows.
            statement: As it was given to the call, whose options instances keep.
            origin: As for :meth:`Loading.load`.
        """
        ...


class RowShape(Shape):
    """Rows of columns: SQLAlchemy's own, made straight of the driver's.

    Args:
        metadata: Where each column is.
        cursor: The columns.
    """

    is_single = is_collected = may_fail = takes_statements = False

    def __init__(self, metadata: Any, cursor: Cursor) -> None:
        self.cursor = cursor
        self._metadata = metadata
        self._processors: Any = cursor.processors
        self._key_to_index = internals.key_to_index(metadata)

    @override
    def results(
        self,
        records: Sequence[Sequence[Any]],
        statement: Any,
        origin: Origin | None = None,
    ) -> list[Any]:
        metadata, processors, index = self._metadata, self._processors, self._key_to_index
        return [Row(metadata, processors, index, record) for record in records]


class EntityShape(Shape):
    """Instances of mapped classes, or rows of them and of columns, without a session.

    Args:
        parts: What makes each part of a result.
        metadata: Where each part is.
        cursor: The columns.
        is_single: Whether the one part is the result.
    """

    is_collected = may_fail = takes_statements = False

    def __init__(
        self, parts: EntityParts, metadata: Any, cursor: Cursor, *, is_single: bool
    ) -> None:
        self.cursor = cursor
        self.is_single = is_single
        self._parts = parts
        self._metadata = metadata
        self._processors: Any = cursor.processors
        self._key_to_index = internals.key_to_index(metadata)

    @override
    def results(
        self,
        records: Sequence[Sequence[Any]],
        statement: Any,
        origin: Origin | None = None,
    ) -> list[Any]:
        if self._processors is not None:
            records = [Row(self._metadata, self._processors, {}, record) for record in records]
        if self.is_single:
            return self._parts.instances(records)
        metadata, index = self._metadata, self._key_to_index
        return [Row(metadata, None, index, parts) for parts in self._parts.tuples(records)]


class LoadedShape(Shape):
    """Whatever else a mapped class can be loaded as, by SQLAlchemy's own loader.

    Args:
        loading: SQLAlchemy's.
        cursor: The columns.
        takes_statements: Whether it may run others.
    """

    may_fail = True

    def __init__(self, loading: Loading, cursor: Cursor, *, takes_statements: bool) -> None:
        self.cursor = cursor
        self.takes_statements = takes_statements
        self.is_single = loading.is_single
        self.is_collected = loading.takes_all_rows
        self._loading = loading

    @override
    def results(
        self, records: Sequence[Sequence[Any]], statement: Any, origin: Origin | None = None
    ) -> list[Any]:
        return self._loading.load(records, statement, origin)


def expected_shape(
    statement: Any, compiled: SQLCompiler, compile_again: Callable[[], SQLCompiler]
) -> Shape:
    """Find out what the rows of a statement would become, without a server.

    Args:
        statement: As it was given.
        compiled: Its compiled form.
        compile_again: Returns another one, for the ORM remembers where it finds each column.
    """
    cursor = _expected(compiled)
    if not cursor.is_fixed:
        compiled = compile_again()
        cursor = _expected(compiled)
    return _shape_of(statement, compiled, cursor)


def _expected(compiled: SQLCompiler) -> Cursor:
    columns = internals.result_columns(compiled)
    description = [(column.name, None, None, None, None, None, None) for column in columns]
    return Cursor(compiled, description, converts=False)


def shape_of(statement: Any, compiled: SQLCompiler, description: Description) -> Shape:
    """Find out what the rows of a statement become.

    Args:
        statement: As it was given.
        compiled: Its compiled form.
        description: Its columns, as the server names them.
    """
    return _shape_of(statement, compiled, Cursor(compiled, description))


def _shape_of(statement: Any, compiled: SQLCompiler, cursor: Cursor) -> Shape:
    loading = Loading.of(statement, compiled, cursor)
    if loading is None:
        return RowShape(cursor.metadata, cursor)
    metadata = SimpleResultMetaData(loading.labels, loading.extra)
    if loading.are_all_columns_in_order():
        return RowShape(metadata, cursor)
    takes_statements = loading.takes_statements()
    parts = None if takes_statements else EntityParts.of(loading)
    if parts is None:
        return LoadedShape(loading, cursor, takes_statements=takes_statements)
    return EntityShape(parts, metadata, cursor, is_single=loading.is_single)


_CONSTANTS = (Boolean, Date, DateTime, Enum, Integer, Interval, Numeric, String, Time, Uuid)
"""Types whose values, as the driver has them, cannot be changed."""


def may_share(sql: str, types: Iterable[Any]) -> bool:
    """Return whether callers who give a statement equal values may have the same records.

    What is called might give each of them another value, and one that can be changed, such as an
    array, has to be each caller's own. Looked for in the text, a call is found in whatever part of
    the statement has made it: a mapped expression, an option, a hint.

    Args:
        sql: The statement.
        types: Of its columns.
    """
    return all(map(_is_constant, types)) and not _calls(sql)


def _is_constant(kind: Any) -> bool:
    while isinstance(kind, TypeDecorator):
        kind = kind.impl
    return isinstance(kind, _CONSTANTS)


def _calls(sql: str) -> bool:
    words = chain.from_iterable(statements(sql))
    return any(
        after == "(" and _is_name(before) and before not in SYNTAX
        for before, after in pairwise(words)
    )


def _is_name(word: str) -> bool:
    return word[0] == '"' or word.isidentifier()


class ColumnRebinder:
    """Lets rows be read by the columns of any statement of one form.

    Args:
        statement: The one that was compiled, by whose columns its rows can be read.
    """

    def __init__(self, statement: Any) -> None:
        self._keys = _keys(statement)
        self.are_shared = all(_lasts(key) for key in self._keys)
        """Whether another statement of the form has the same ones, as those of a table are."""

    def rebind(self, statement: Any, results: list[Any]) -> list[Any]:
        """Return results that can be read by the columns of another statement of the form, too.

        Args:
            statement: The other one.
            results: Of the one that was compiled.
        """
        if self.are_shared or not results or not isinstance(results[0], Row):
            return results
        first: Any = results[0]
        index = dict(internals.key_to_index(first))
        for own, known in zip(_keys(statement), self._keys, strict=True):
            if known in index:
                index[own] = index[known]
        return internals.rows_with_keys(results, index)


def _keys(statement: Any) -> Sequence[Any]:
    """Return all objects by which a value may be asked for, in an order that the form decides."""
    if isinstance(statement, TextClause):
        return []
    if isinstance(statement, FromStatement):
        return [*internals.raw_columns(statement), *_described(statement)]
    selected = list(internals.selected_columns(statement))
    if isinstance(statement, UpdateBase):
        return [*selected, *internals.returned_columns(statement)]
    return [*selected, *_described(statement)]


def _described(statement: Any) -> list[Any]:
    return [each["expr"] for each in getattr(statement, "column_descriptions", ())]


def _lasts(key: Any) -> bool:
    if isinstance(key, InstrumentedAttribute):
        parent: Any = key.parent
        return not parent.is_aliased_class
    return isinstance(key, type | Table) or isinstance(getattr(key, "table", None), Table)


def one(results: Sequence[Any]) -> Any:
    """Return the only result.

    Raises:
        NoResultFound: There is none.
        MultipleResultsFound: There is more than one.
    """
    if len(results) == 1:
        return results[0]
    if results:
        raise MultipleResultsFound(f"One row was expected, and there are {len(results)}")
    raise NoResultFound("One row was expected, and there is none")


def one_or_none(results: Sequence[Any]) -> Any:
    """Return the only result, or None.

    Raises:
        MultipleResultsFound: There is more than one.
    """
    return one(results) if results else None


def first(results: Sequence[Any]) -> Any:
    """Return the first result, or None."""
    return results[0] if results else None


def scalar(results: Sequence[Any]) -> Any:
    """Return the first value of the first result, or None; an instance is a value by itself."""
    found = first(results)
    return found[0] if isinstance(found, Row) else found


def all_(results: Sequence[Any]) -> Any:
    """Return all results."""
    return results


EXTRACTS_OF_ONE = frozenset({one, one_or_none})
"""Those that raise where there are several results."""


def is_of_one_row(statement: Any) -> bool:
    """Return whether a statement writes at most one row.

    It is an INSERT of one row of values, or an UPDATE or DELETE whose WHERE gives a value to the
    whole primary key, or to a unique column.
    """
    if isinstance(statement, Insert):
        return not internals.all_row_values(statement) and statement.select is None
    if not isinstance(statement, Update | Delete) or not isinstance(statement.table, Table):
        return False
    given = {
        column.key
        for criterion in internals.criteria(statement)
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

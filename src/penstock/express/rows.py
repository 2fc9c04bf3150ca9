"""What the driver's rows become: rows of columns, or instances of mapped classes."""

from collections.abc import Callable, Sequence
from typing import Any, Protocol

from sqlalchemy import Row
from sqlalchemy.engine.result import SimpleResultMetaData
from sqlalchemy.exc import MultipleResultsFound, NoResultFound
from sqlalchemy.sql.compiler import SQLCompiler
from typing_extensions import override

from penstock.drivers import sqlalchemy_internals as internals
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

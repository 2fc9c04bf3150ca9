"""What the driver's rows become: rows of columns, or instances of mapped classes."""

from collections.abc import Sequence
from typing import Any, Protocol

from sqlalchemy import Row
from sqlalchemy.engine.result import SimpleResultMetaData
from sqlalchemy.sql.compiler import SQLCompiler

from penstock.express.cursor import Cursor, Description
from penstock.express.entities import EntityParts
from penstock.express.loading import Loading

__all__ = ["Shape", "shape_of"]


class Shape(Protocol):
    """Makes results of the driver's rows."""

    cursor: Cursor
    """The columns of the driver's rows."""
    is_single: bool
    """Whether a result is one instance and no row."""
    is_collected: bool
    """Whether a result may take several of the driver's rows, so that none can be streamed."""
    may_fail: bool
    """Whether code of the classes' own takes part, which may raise."""

    def results(self, records: Sequence[Sequence[Any]], statement: Any) -> list[Any]:
        """Return what the records become.

        Args:
            records: The driver's rows.
            statement: As it was given to the call, whose options instances keep.
        """
        ...


class RowShape:
    """Rows of columns: SQLAlchemy's own, made straight of the driver's.

    Args:
        metadata: Where each column is.
        cursor: The columns.
    """

    is_single = is_collected = may_fail = False

    def __init__(self, metadata: Any, cursor: Cursor) -> None:
        self.cursor = cursor
        self._metadata = metadata
        self._processors: Any = cursor.processors
        self._key_to_index = metadata._key_to_index  # noqa: SLF001 - what SQLAlchemy gives its rows

    def results(self, records: Sequence[Sequence[Any]], statement: Any) -> list[Any]:  # noqa: ARG002 - there are no options
        """As the protocol says."""
        metadata, processors, index = self._metadata, self._processors, self._key_to_index
        return [Row(metadata, processors, index, record) for record in records]


class EntityShape:
    """Instances of mapped classes, or rows of them and of columns, without a session.

    Args:
        parts: What makes each part of a result.
        metadata: Where each part is.
        cursor: The columns.
        is_single: Whether the one part is the result.
    """

    is_collected = may_fail = False

    def __init__(
        self, parts: EntityParts, metadata: Any, cursor: Cursor, *, is_single: bool
    ) -> None:
        self.cursor = cursor
        self.is_single = is_single
        self._parts = parts
        self._metadata = metadata
        self._processors: Any = cursor.processors
        self._key_to_index = metadata._key_to_index  # noqa: SLF001 - as above

    def results(self, records: Sequence[Sequence[Any]], statement: Any) -> list[Any]:  # noqa: ARG002 - there are no options
        """As the protocol says."""
        if self._processors is not None:
            records = [Row(self._metadata, self._processors, {}, record) for record in records]
        if self.is_single:
            return self._parts.instances(records)
        metadata, index = self._metadata, self._key_to_index
        return [Row(metadata, None, index, parts) for parts in self._parts.tuples(records)]


class LoadedShape:
    """Whatever else a mapped class can be loaded as, by SQLAlchemy's own loader.

    Args:
        loading: SQLAlchemy's.
        cursor: The columns.
    """

    may_fail = True

    def __init__(self, loading: Loading, cursor: Cursor) -> None:
        self.cursor = cursor
        self.is_single = loading.is_single
        self.is_collected = loading.is_collected
        self._loading = loading

    def results(self, records: Sequence[Sequence[Any]], statement: Any) -> list[Any]:
        """As the protocol says."""
        return self._loading.load(records, statement)


def shape_of(
    statement: Any, compiled: SQLCompiler, description: Description, *, converts: bool = True
) -> Shape:
    """Find out what the rows of a statement become.

    Args:
        statement: As it was given.
        compiled: Its compiled form.
        description: Its columns, as the server names them.
        converts: As for :class:`Cursor`.

    Raises:
        QueryRefused: Only a session can load it.
    """
    cursor = Cursor(compiled, description, converts=converts)
    loading = Loading.of(statement, compiled, cursor)
    if loading is None:
        return RowShape(cursor.metadata, cursor)
    loading.refuse_further_statements()
    metadata = SimpleResultMetaData(loading.labels, loading.extra)
    if loading.are_all_columns_in_order():
        return RowShape(metadata, cursor)
    parts = EntityParts.of(loading)
    if parts is None:
        return LoadedShape(loading, cursor)
    return EntityShape(parts, metadata, cursor, is_single=loading.is_single)

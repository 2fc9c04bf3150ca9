"""What SQLAlchemy would know of a result whose rows come straight from the driver."""

from collections.abc import Iterable, Sequence
from typing import Any

from sqlalchemy.engine.cursor import CursorResultMetaData
from sqlalchemy.engine.result import IteratorResult
from sqlalchemy.sql.compiler import SQLCompiler

__all__ = ["Cursor", "Description"]

Description = Sequence[tuple[Any, ...]]
"""The columns as PEP 249's ``cursor.description`` has them."""


class Cursor:
    """The columns of a statement's result, by SQLAlchemy's own rules.

    Args:
        compiled: The statement.
        description: Its columns, as the server names them.
        converts: Whether their values will be converted; False where only names matter.

    Attributes:
        metadata: Where each column is, by name and by object.
        names: As the server has them.
        is_fixed: Whether the statement itself says what its columns are; if not, as with
            ``SELECT *``, they are what the tables have at the moment.
        processors: What converts each of the driver's values; None where none has to be.
    """

    def __init__(
        self, compiled: SQLCompiler, description: Description, *, converts: bool = True
    ) -> None:
        self._context = _Context(compiled, converts)
        parent: Any = _Parent(self._context)
        self.metadata = CursorResultMetaData(parent, description)
        processors = self.metadata._processors  # noqa: SLF001 - no public way to them
        self.processors = processors if any(processors) else None
        self.width = len(processors)
        self.names = tuple(column[0] for column in description)
        self.is_fixed = self.metadata._safe_for_cache  # noqa: SLF001 - as SQLAlchemy's own cache asks

    def result(self, rows: Iterable[Sequence[Any]] = ()) -> Any:
        """Return a result over the driver's rows, which converts their values."""
        result: Any = IteratorResult(self.metadata, iter(rows))
        result.context = self._context  # the ORM's loader asks whether rows come from a cursor
        return result


class _Parent:
    def __init__(self, context: "_Context") -> None:
        self.context = context


class _Context:
    """What the metadata asks of an execution."""

    _is_server_side = False
    _translate_colname = None
    root_connection = None

    def __init__(self, compiled: SQLCompiler, converts: bool) -> None:
        self.compiled = compiled
        self.dialect = compiled.dialect
        self._converts = converts
        self.result_column_struct = (
            compiled._result_columns,  # noqa: SLF001 - as SQLAlchemy's own execution, in all five lines
            compiled._ordered_columns,  # noqa: SLF001
            compiled._textual_ordered_columns,  # noqa: SLF001
            compiled._ad_hoc_textual,  # noqa: SLF001
            compiled._loose_column_name_matching,  # noqa: SLF001
        )

    def get_result_processor(self, kind: Any, _name: str, coltype: Any) -> Any:
        return kind._cached_result_processor(self.dialect, coltype) if self._converts else None  # noqa: SLF001 - as above

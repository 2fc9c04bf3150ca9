"""Rows on their way into a table, in bulk."""

from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable, Mapping, Sequence
from typing import Any, Self

from sqlalchemy import ColumnDefault, Table, inspect
from sqlalchemy.engine import Dialect
from sqlalchemy.exc import NoInspectionAvailable
from sqlalchemy.orm import Mapper

from penstock.drivers.effects import Effect
from penstock.express.attributes import Attributes
from penstock.express.defaults import OtherValues
from penstock.express.errors import ExpressError, ParameterError
from penstock.express.failures import not_converted
from penstock.express.plan import discriminator
from penstock.express.turns import Turns

__all__ = ["Copying", "RowsFailed"]


class RowsFailed(Exception):  # noqa: N818 - it says what happened
    """Where the rows come from something failed, which says nothing of the connection.

    Args:
        error: What was raised there.
    """

    def __init__(self, error: Exception) -> None:
        super().__init__(str(error))
        self.error = error


class Copying:
    """Rows, and the table into which they go.

    Args:
        table: The table.
        names: What each column's values are given under, by the column's key.
        rows: The values by name.
        added: What a session would add to them, by the column's key, where it is not given.
        spread: Makes of a row's values such as are each for one column.

    Attributes:
        columns: The keys of the columns that get a value, in order.
        taken: The number of the record that is being sent; 0 while the next is being made.
    """

    effects = Effect.NONE

    def __init__(
        self,
        table: Table,
        names: Mapping[str, str],
        rows: AsyncIterator[Mapping[str, Any]],
        added: Mapping[str, Any],
        spread: Callable[[Mapping[str, Any]], Mapping[str, Any]],
    ) -> None:
        self.table = table
        self._names = names
        self._rows = rows
        self._spread = spread
        self._refuse_expressions(names)
        self._defaults: dict[str, Any] = {
            column.key: column.default
            for column in table.columns
            if column.key not in names
            and column.default is not None
            and (column.default.is_scalar or column.default.is_callable)
        }
        self._defaults |= {
            key: ColumnDefault(value) for key, value in added.items() if key not in names
        }
        self.columns: Sequence[str] = [*names, *self._defaults]
        self._refuse_conversions()
        self.taken = 0

    def _refuse_expressions(self, names: Mapping[str, str]) -> None:
        missing = [
            column.key
            for column in self.table.columns
            if column.key not in names
            and column.default is not None
            and not (column.default.is_scalar or column.default.is_callable)
        ]
        if missing:
            raise ExpressError(
                f"COPY computes no default= of {', '.join(missing)}: give the values, or make it a "
                "server_default="
            )

    def _refuse_conversions(self) -> None:
        types = {key: self.table.c[key].type for key in self.columns}
        if converted := [key for key, kind in types.items() if kind._has_bind_expression]:  # noqa: SLF001 - as SQLAlchemy's own compiler asks
            raise ExpressError(
                f"COPY computes nothing, and the bind_expression() of {', '.join(converted)} is "
                "for the server: write the rows by execute_many()"
            )

    @classmethod
    async def of(
        cls, target: Any, rows: Iterable[Mapping[str, Any]] | AsyncIterable[Mapping[str, Any]]
    ) -> Self | None:
        """Look at the first row for the columns that are given; None where there is no row.

        Raises:
            ExpressError: The target is no table.
            ParameterError: The first row names what is no column.
        """
        table, mapper = _table(target)
        attributes = Attributes(table, mapper, is_insert=True)
        given = _rows(rows)
        first = await anext(given, None)
        if first is None:
            return None
        if unknown := sorted(first.keys() - attributes.names):
            raise ParameterError(
                f"unknown: {', '.join(unknown)}. {table} takes "
                f"{', '.join(sorted(attributes.names))}"
            )
        names = {attributes.columns[name]: name for name in attributes.spread(first)}
        return cls(table, names, _again(first, given), discriminator(mapper), attributes.spread)

    async def rows(self) -> AsyncIterator[dict[str, Any]]:
        """Return the values of each row by the keys of their columns.

        Raises:
            ParameterError: A row has other names than the first.
            RowsFailed: There was none to be had.
        """
        names = set(self._names.values())
        number, turns = 0, Turns()
        async for given in self._rows:
            number += 1
            row = self._spread(given)
            if row.keys() != names:
                raise ParameterError(
                    f"row {number} has {', '.join(sorted(row)) or 'no values'}, and the first row "
                    f"{', '.join(sorted(names))}: all need the same; nothing is written"
                )
            values = {key: row[name] for key, name in self._names.items()}
            for key, default in self._defaults.items():
                values[key] = (
                    default.arg(OtherValues(values)) if default.is_callable else default.arg
                )
            yield values
            if turns.are_due():  # a socket that takes all lets nobody else run
                await turns.take()

    async def records(self, dialect: Dialect) -> AsyncIterator[tuple[Any, ...]]:
        """Return each row as the driver has its values, in the order of the columns."""
        processors = [
            (key, self.table.c[key].type._cached_bind_processor(dialect))  # noqa: SLF001 - as SQLAlchemy's own compiler
            for key in self.columns
        ]
        number = 0
        async for values in self.rows():
            number += 1
            try:
                record = tuple(
                    [
                        values[key] if convert is None else convert(values[key])
                        for key, convert in processors
                    ]
                )
            except Exception as error:
                sql = f"COPY {self.table} FROM STDIN"
                raise not_converted(error, sql, values) from error
            self.taken = number
            yield record
            self.taken = 0


def _table(target: Any) -> tuple[Table, Mapper[Any] | None]:
    """Return the table, and the mapper of a mapped class."""
    if isinstance(target, Table):
        return target, None
    try:
        mapper = inspect(target).mapper
    except (AttributeError, NoInspectionAvailable):
        raise ExpressError(f"copy_in() takes a mapped class or a Table, not {target!r}") from None
    if len(mapper.tables) > 1:
        raise ExpressError(f"{target!r} is stored in several tables: copy into each by itself")
    return mapper.local_table, mapper


async def _rows(
    rows: Iterable[Mapping[str, Any]] | AsyncIterable[Mapping[str, Any]],
) -> AsyncIterator[Mapping[str, Any]]:
    if isinstance(rows, AsyncIterable):
        async for row in rows:
            yield row
    else:
        for row in rows:
            yield row


async def _again(
    first: Mapping[str, Any], others: AsyncIterator[Mapping[str, Any]]
) -> AsyncIterator[Mapping[str, Any]]:
    yield first
    try:
        async for row in others:
            yield row
    except Exception as error:
        raise RowsFailed(error) from error

"""Writing in the express lane: one statement, many rows, or rows in bulk."""

from collections.abc import (
    AsyncIterable,
    AsyncIterator,
    Callable,
    Coroutine,
    Iterable,
    Mapping,
    Sequence,
)
from typing import Any, Self

from sqlalchemy import ColumnDefault, Insert, Table, inspect
from sqlalchemy.engine import Dialect
from sqlalchemy.exc import NoInspectionAvailable
from sqlalchemy.orm import Mapper

from penstock.drivers import sqlalchemy_internals as internals
from penstock.drivers.effects import Effect
from penstock.express.compiled import Attributes, OtherValues, discriminator
from penstock.express.errors import ExpressError, ParameterError, not_converted
from penstock.express.lane import EventLoopYield, Extract, Lane, yielding
from penstock.express.query import Call, Query, Statement, as_query
from penstock.express.reader import Executor, Values

_NONE = object()


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
        if converted := [key for key, kind in types.items() if internals.has_bind_expression(kind)]:
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
        first: Any = await anext(given, _NONE)
        if first is _NONE:
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
        number, loop_yield = 0, EventLoopYield()
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
            if loop_yield.is_due():  # a socket that takes everything leaves no turn to other tasks
                await loop_yield.now()

    async def records(self, dialect: Dialect) -> AsyncIterator[tuple[Any, ...]]:
        """Return each row as the driver has its values, in the order of the columns."""
        processors = [
            (key, internals.bind_converter(self.table.c[key].type, dialect)) for key in self.columns
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
    number = 0
    if isinstance(rows, AsyncIterable):
        async for row in rows:
            number += 1
            yield row if row.__class__ is dict else _named(row, number)
    else:
        for row in rows:
            number += 1
            yield row if row.__class__ is dict else _named(row, number)


def _named(row: Any, number: int) -> Mapping[str, Any]:
    if not isinstance(row, Mapping):
        raise ParameterError(
            f"row {number} is of {type(row).__name__}: copy_in() takes each row as values by name, "
            "such as a dict; nothing is written"
        )
    return row


async def _again(
    first: Mapping[str, Any], others: AsyncIterator[Mapping[str, Any]]
) -> AsyncIterator[Mapping[str, Any]]:
    yield first
    try:
        async for row in others:
            yield row
    except Exception as error:
        raise RowsFailed(error) from error


class Writer(Executor[Lane]):
    """Runs statements that write, each in one transaction and one round trip.

    Nothing is ever repeated. What was sent without an answer is :class:`CommitOutcomeUnknown`.
    ``one``, ``all`` and the others return what the statement's RETURNING gives; an ``insert()``
    takes a list of rows, as one transaction.
    """

    def _run(self, call: Call, extract: Extract) -> Coroutine[Any, Any, Any]:
        statement = call.query.statement
        if call.query.writes and not internals.returned_columns(statement):
            raise ExpressError(
                f"It returns nothing: add returning(), or use execute(). {call.query!r}"
            )
        return self.lane.write(call, extract)

    def _call_of_rows(self, statement: Any, rows: list[Any], named: dict[str, Any]) -> Call:
        call = self._call(statement, None, {})
        written = call.query.statement
        if named or not (isinstance(written, Insert) and internals.returned_columns(written)):
            raise ParameterError(
                "A list of rows, without other values, is for an insert() with returning(), and "
                f"for execute_many(). {call.query!r}"
            )
        call.rows = rows
        return call

    async def execute(
        self,
        statement: Query[Any] | Statement,
        values: Values = None,
        /,
        **named: Any,
    ) -> int:
        """Run a statement and return how many rows it wrote.

        An ``insert(User)`` or ``update(User)`` without values sets the attributes that are named.

        Args:
            statement: A prepared query, or a statement of SQLAlchemy's.
            values: Of its named parameters, as a mapping.
            **named: The same as keywords; they take precedence.
        """
        call = self._call(statement, values, named)
        if call.rows is not None:
            raise ExpressError(f"A list of rows is for all(), or execute_many(). {call.query!r}")
        return await self._within(self._execute(call))

    async def _execute(self, call: Call) -> int:
        call.settings = await self._settings()
        return await self.lane.execute(call)

    async def execute_many(
        self,
        statement: Query[Any] | Statement,
        rows: Iterable[Mapping[str, Any]],
    ) -> None:
        """Run a statement once for each row, in one transaction: all of them, or none.

        It returns nothing, and what a ``returning()`` of the statement gives is left unread:
        ``all(insert(User).returning(...), rows)`` returns that.

        Args:
            statement: Such as ``insert(User)``.
            rows: The values for each; all with the same names.

        Raises:
            ParameterError: A row's names do not fit; nothing is written.
        """
        await self._within(self._execute_many(as_query(statement), rows))

    async def _execute_many(self, query: Query[Any], rows: Iterable[Mapping[str, Any]]) -> None:
        given = [row async for row in yielding(rows)]
        await self.lane.execute_many(query, given, await self._settings())

    async def copy_in(
        self,
        target: Any,
        rows: Iterable[Mapping[str, Any]] | AsyncIterable[Mapping[str, Any]],
    ) -> int:
        """Write rows in bulk by PostgreSQL's COPY, in one transaction, and return how many.

        The rows are taken as they are sent, so that a generator of a million fits into memory.

        Args:
            target: A mapped class or a table.
            rows: The values by attribute, or by column of a table; all with the same names.
                What ``default=`` makes is added.

        Raises:
            ParameterError: A row's names do not fit; nothing is written.
        """
        return await self._within(self._copy(target, rows))

    async def _copy(self, target: Any, rows: Any) -> int:
        copying = await Copying.of(target, rows)
        if copying is None:
            return 0
        try:
            return await self.lane.copy(copying, await self._settings())
        except RowsFailed as failed:
            raise failed.error from failed.error.__cause__

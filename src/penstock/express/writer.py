"""Writing in the express lane."""

from collections.abc import AsyncIterable, Coroutine, Iterable, Mapping
from typing import Any

from sqlalchemy import Insert

from penstock.express.asking import Asking, Values
from penstock.express.copying import Copying, RowsFailed
from penstock.express.errors import ExpressError, ParameterError
from penstock.express.lanes import Call, Lane, Pick
from penstock.express.query import Query, Statement, as_query
from penstock.express.turns import in_turns

__all__ = ["Writer"]


class Writer(Asking[Lane]):
    """Runs statements that write, each as a transaction of its own in one round trip.

    Nothing is ever repeated. What was sent without an answer is :class:`CommitOutcomeUnknown`.
    ``one``, ``all`` and the others return what the statement's RETURNING gives; an ``insert()``
    takes a list of rows, as one transaction.
    """

    def _run(self, call: Call, pick: Pick) -> Coroutine[Any, Any, Any]:
        statement = call.query.statement
        if call.query.writes and not statement._returning:  # noqa: SLF001 - no public way to ask
            raise ExpressError(
                f"It returns nothing: add returning(), or use execute(). {call.query!r}"
            )
        return self.lane.write(call, pick)

    def _call_of_rows(self, statement: Any, rows: list[Any], named: dict[str, Any]) -> Call:
        call = self._call(statement, None, {})
        written = call.query.statement
        if named or not (isinstance(written, Insert) and written._returning):  # noqa: SLF001 - as above
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

        Args:
            statement: Such as ``insert(User)``.
            rows: The values for each; all with the same names.

        Raises:
            ParameterError: A row's names do not fit; nothing is written.
        """
        await self._within(self._execute_many(as_query(statement), rows))

    async def _execute_many(self, query: Query[Any], rows: Iterable[Mapping[str, Any]]) -> None:
        given = [row async for row in in_turns(rows)]
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

"""The two ways to run a statement: on the driver's connection, or through SQLAlchemy."""

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, Protocol

from sqlalchemy import Table
from sqlalchemy.engine import Dialect
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlalchemy.sql.elements import BindParameter

from penstock.context import Settings
from penstock.express.query import Query

__all__ = ["Batches", "Call", "Copy", "Lane", "OpenLane", "Pick", "ReadingLane"]

Batches = AsyncIterator[list[Any]]
"""Results, batch by batch."""
Pick = Callable[[list[Any]], Any]
"""Takes what was asked for out of all results."""


class Call:
    """One use of a query.

    Args:
        query: What is to be run.
        values: Of its named parameters.
        adhoc: The statement for which the query stands, and its bound values; None where the query
            itself was asked for.

    Attributes:
        settings: Names and values of server settings that hold for this call alone; ``role`` is
            the role.
        rows: The values for each of several runs; None for one run, with ``values``.
        is_heard: Whether the listeners to ``do_orm_execute`` were asked.
    """

    __slots__ = ("adhoc", "is_heard", "query", "rows", "settings", "values")

    def __init__(
        self,
        query: Query[Any],
        values: Mapping[str, Any],
        adhoc: tuple[Any, Sequence[BindParameter[Any]]] | None = None,
    ) -> None:
        self.query = query
        self.values = values
        self.adhoc = adhoc
        self.settings: Settings = ()
        self.rows: Sequence[Mapping[str, Any]] | None = None
        self.is_heard = False

    @property
    def statement(self) -> Any:
        """What is to be run, as it was given."""
        return self.query.statement if self.adhoc is None else self.adhoc[0]


class Copy(Protocol):
    """Rows on their way into a table, in bulk."""

    table: Table
    columns: Sequence[str]
    """The keys of the columns that the rows have values for."""
    taken: int
    """The number of the record that is being sent; 0 while the next is being made."""

    def rows(self) -> AsyncIterator[dict[str, Any]]:
        """Return the values of each row by the keys of their columns."""
        ...

    def records(self, dialect: Dialect) -> AsyncIterator[tuple[Any, ...]]:
        """Return each row as the driver has its values, in the order of the columns."""
        ...


class ReadingLane(Protocol):
    """A way to run statements that only read."""

    async def read(self, call: Call, pick: Pick) -> Any:
        """Run a statement as a transaction of its own, and return what is wanted of its results."""
        ...

    def stream(self, call: Call, batch: int) -> AbstractAsyncContextManager[Batches]:
        """Give the results as the server makes them, ``batch`` rows at a time."""
        ...

    def snapshot(self, settings: Settings = ()) -> "AbstractAsyncContextManager[ReadingLane]":
        """Give a lane whose statements all see the database as it was at the first of them."""
        ...


class OpenLane(ReadingLane, Protocol):
    """A way to run statements that only read in one open transaction, on one connection."""

    async def read_apart(self, call: Call, pick: Pick) -> Any:
        """Read in that transaction, and leave nothing there, not even a failure."""
        ...


class Lane(ReadingLane, Protocol):
    """A way to run statements on one database."""

    def reading(self, call: Call) -> AbstractAsyncContextManager[OpenLane]:
        """Give a lane in a transaction that only reads.

        Args:
            call: What is run there first.
        """
        ...

    def snapshot(self, settings: Settings = ()) -> AbstractAsyncContextManager[OpenLane]:
        """Give a lane whose statements all see the database as it was at the first of them."""
        ...

    async def read_within(self, connection: AsyncConnection, call: Call, pick: Pick) -> Any:
        """Read on a connection that the caller holds, within the transaction that is open there.

        The statement sees what the transaction has written. It leaves nothing there, not even a
        failure of its own.
        """
        ...

    async def write(self, call: Call, pick: Pick) -> Any:
        """Run a statement as a transaction of its own, and return what is wanted of the same."""
        ...

    async def execute(self, call: Call) -> int:
        """Run a statement as a transaction of its own, and return how many rows it wrote."""
        ...

    async def execute_many(
        self, query: Query[Any], rows: Sequence[Mapping[str, Any]], settings: Settings = ()
    ) -> None:
        """Run a statement once for each row, all of them as one transaction."""
        ...

    async def copy(self, copy: Copy, settings: Settings = ()) -> int:
        """Write rows in bulk, as one transaction, and return how many."""
        ...

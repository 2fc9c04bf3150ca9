"""For the tests of those who use Penstock: work that is undone, and a pool that looks exhausted."""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

from sqlalchemy import event

from penstock.database import Database
from penstock.pool import PoolTimeout


@asynccontextmanager
async def rollback_after(database: Database) -> AsyncIterator[Database]:
    """Undo at its end whatever is written to ``database`` within the block.

    Every session of the block, in requests or outside, works in a savepoint of one transaction on
    one connection. A commit releases the savepoint, so that the code under test sees its own work,
    constraints and all; at the end the transaction is rolled back. Deferred constraints are not
    checked. What runs at once, in several tasks, works one after the other: a session from its
    first statement to its end.

    Args:
        database: Open, and not in use by anybody else.

    Yields:
        The same database.
    """
    async with database.engine.connect() as connection:
        transaction = await connection.begin()
        with database.sessions_on(connection):
            try:
                yield database
            finally:
                await transaction.rollback()


@contextmanager
def simulate_exhausted(database: Database) -> Iterator[None]:
    """Let every attempt to check out a connection within the block fail as if all were checked out.

    It fails at once, without the wait of ``pool_timeout``, with the error that the pool raises.

    Args:
        database: Whose pool should look exhausted, also within :func:`rollback_after`.
    """

    def refuse(*_: object) -> None:
        raise PoolTimeout("The pool is exhausted, as this test asked for.")

    engine = database.engine.sync_engine
    event.listen(engine, "checkout", refuse)
    try:
        with database.sessions_from(None):
            yield
    finally:
        event.remove(engine, "checkout", refuse)

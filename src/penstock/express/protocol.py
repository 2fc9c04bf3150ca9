"""What is said to the server, by asyncpg, on a connection that is checked out already.

Each is given asyncpg's connection, the plan, the SQL and its values.
"""

from collections.abc import Coroutine, Sequence
from typing import Any

from asyncpg.exceptions import DataError, InternalClientError
from sqlalchemy.engine import Dialect

from penstock.drivers import asyncpg
from penstock.express.compiled import Plan
from penstock.express.errors import ExpressError
from penstock.express.lane import Copy
from penstock.express.rows import Shape


class Answer:
    """Records and their shape, where the next answer to the same statement may have another.

    Args:
        shape: What makes results of them.
        records: asyncpg's.
    """

    def __init__(self, shape: Shape, records: Sequence[Any]) -> None:
        self.shape = shape
        self.records = records


def results(plan: Plan, answer: Any, statement: Any) -> list[Any]:
    """Return the results that an answer to :func:`fetch` holds.

    Args:
        plan: What was run.
        answer: What :func:`fetch` returned.
        statement: As it was given to the call.
    """
    shape, records = answered(plan, answer)
    return shape.results(records, statement)


def answered(plan: Plan, answer: Any) -> tuple[Shape, Sequence[Any]]:
    """Return the records that an answer to :func:`fetch` holds, and their shape."""
    if answer.__class__ is Answer:
        return answer.shape, answer.records
    return plan.shape, answer  # type: ignore[return-value]  # learnt by fetch()


def fetch(driver: Any, plan: Plan, sql: str, arguments: Sequence[Any]) -> Coroutine[Any, Any, Any]:
    """Run a statement and return its records.

    Where what asyncpg knows is outdated, it raises; ``Connections`` sends the statement again.
    """
    if plan.is_fixed:
        return asyncpg.fetch(driver, sql, arguments)
    return _fetch_and_look(driver, plan, sql, arguments)


async def _fetch_and_look(driver: Any, plan: Plan, sql: str, arguments: Sequence[Any]) -> Answer:
    shape: Shape = plan.shape or await learn(driver, plan, sql, ())
    records = await asyncpg.fetch_in_any_shape(driver, sql, arguments)
    if records and tuple(records[0].keys()) != shape.cursor.names:
        # The table has changed, and asyncpg has prepared the statement anew. Where it keeps none,
        # this asks the server again, which goes on waiting for a statement until it is given one.
        shape = await learn(driver, plan, sql, ())
        await driver.execute("SELECT")
    return Answer(shape, records)


async def execute(driver: Any, _: Plan, sql: str, arguments: Sequence[Any]) -> str:
    """Run a statement and return the command's tag."""
    return await asyncpg.execute(driver, sql, arguments)


async def execute_many(driver: Any, _: Plan, sql: str, arguments: Sequence[Any]) -> None:
    """Run a statement for each of several rows of values, as one transaction."""
    await asyncpg.execute_many(driver, sql, arguments)


async def fetch_many(driver: Any, plan: Plan, sql: str, arguments: Sequence[Any]) -> Answer:
    """Do the same and return what each of them returns, in their order."""
    shape = plan.shape or await learn(driver, plan, sql, ())
    return Answer(shape, await asyncpg.fetch_many(driver, sql, arguments))


async def copy(dialect: Dialect, driver: Any, rows: Copy, _: str, __: Sequence[Any]) -> Any:
    """Write rows by COPY and return the command's tag."""
    table = rows.table
    try:
        return await driver.copy_records_to_table(
            table.name,
            schema_name=table.schema,
            columns=[table.c[key].name for key in rows.columns],
            records=rows.records(dialect),
        )
    except InternalClientError as error:
        if "no binary format" not in str(error):
            raise
        raise ExpressError(
            f"COPY into {table}: asyncpg has {error}; write the rows by execute_many()"
        ) from error
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        if not rows.taken:
            raise  # from where the rows come, and not from what became of one
        raise DataError(f"invalid input in row {rows.taken}: {error}") from error


async def learn(driver: Any, plan: Plan, sql: str, _: Sequence[Any]) -> Shape:
    """Have the server describe a statement's columns, and return what becomes of them."""
    return plan.learn(asyncpg.attributes(await asyncpg.prepare(driver, sql)))


async def open_cursor(driver: Any, _: Plan, sql: str, arguments: Sequence[Any]) -> Any:
    """Open a cursor of the server's, within a transaction."""
    return await asyncpg.open_cursor(driver, sql, arguments)


async def fetch_more(_: Any, cursor: Any, __: str, count: Sequence[int]) -> Any:
    """Return the next records of a cursor, so many as the one value says."""
    return await cursor.fetch(*count)

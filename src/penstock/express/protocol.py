"""What is said to the server, by asyncpg, on a connection that is checked out already.

Each is given asyncpg's connection, the plan, the SQL and its values.
"""

from collections.abc import Coroutine, Sequence
from typing import Any

from asyncpg.exceptions import DataError
from sqlalchemy.engine import Dialect

from penstock.express.compiled import Plan
from penstock.express.lane import Copy
from penstock.express.rows import Shape

__all__ = [
    "Answer",
    "answered",
    "copy",
    "execute",
    "execute_many",
    "fetch",
    "fetch_many",
    "fetch_more",
    "learn",
    "learn_types",
    "open_cursor",
    "prepared_of",
    "results",
]


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


def prepared_of(driver: Any, sql: str) -> Any:
    """Return a statement that can be run as it is, in one go and as a transaction of its own.

    The driver's own ways prepare an outdated one anew by themselves, and leave behind the settings
    that were sent ahead.

    Returns:
        asyncpg's state of it; None where it is not prepared (it is kept up to a length and for a
        time, and behind a pooler not at all), within a transaction, or where somebody logs the
        driver's queries.
    """
    if driver._query_loggers or driver._top_xact is not None:  # noqa: SLF001 - asyncpg's, as what follows
        return None
    record_class = driver._protocol.get_record_class()  # noqa: SLF001
    return driver._stmt_cache.get((sql, record_class, False))  # noqa: SLF001


def fetch(driver: Any, plan: Plan, sql: str, arguments: Sequence[Any]) -> Coroutine[Any, Any, Any]:
    """Run a statement and return its records.

    Where what asyncpg knows is outdated, it says so; ``Connections`` sends the statement again.
    """
    if plan.is_fixed:
        # What fetch() does, four coroutines less where the statement is prepared already; written
        # out, for each read pays for a call.
        protocol = driver._protocol  # noqa: SLF001 - as above
        prepared = driver._stmt_cache.get((sql, protocol.get_record_class(), False))  # noqa: SLF001
        if prepared is None or driver._query_loggers:  # noqa: SLF001
            return driver._execute(sql, arguments, 0, None)  # type: ignore[no-any-return]  # noqa: SLF001
        return protocol.bind_execute(prepared, arguments, "", 0, False, None)  # type: ignore[no-any-return]
    return _fetch_and_look(driver, plan, sql, arguments)


async def _fetch(driver: Any, sql: str, arguments: Sequence[Any]) -> Any:
    prepared = prepared_of(driver, sql)
    if prepared is None:
        return await driver._execute(sql, arguments, 0, None)  # noqa: SLF001 - as above
    return await driver._protocol.bind_execute(prepared, arguments, "", 0, False, None)  # noqa: SLF001 - as above


async def _fetch_and_look(driver: Any, plan: Plan, sql: str, arguments: Sequence[Any]) -> Answer:
    shape: Shape = plan.shape or await learn(driver, plan, sql, ())
    records = await _fetch(driver, sql, arguments)
    if records and tuple(records[0].keys()) != shape.cursor.names:
        # The table has changed, and asyncpg has prepared the statement anew. Where it keeps none,
        # this asks the server again, which goes on waiting for a statement until it is given one.
        shape = await learn(driver, plan, sql, ())
        await driver.execute("SELECT")
    return Answer(shape, records)


async def execute(driver: Any, _: Plan, sql: str, arguments: Sequence[Any]) -> Any:
    """Run a statement and return the command's tag."""
    # Not execute(), which without arguments takes several statements at once.
    prepared = prepared_of(driver, sql)
    if prepared is None:
        _, status, _ = await driver._execute(sql, arguments, 0, None, return_status=True)  # noqa: SLF001 - as above
    else:
        protocol = driver._protocol  # noqa: SLF001 - as above
        _, status, _ = await protocol.bind_execute(prepared, arguments, "", 0, True, None)
    return status.decode()


async def execute_many(driver: Any, _: Plan, sql: str, arguments: Sequence[Any]) -> Any:
    """Run a statement for each of several rows of values, as one transaction."""
    prepared = prepared_of(driver, sql)
    if prepared is None:
        return await driver.executemany(sql, arguments)
    return await driver._protocol.bind_execute_many(prepared, arguments, "", None, False)  # noqa: SLF001 - as above


async def fetch_many(driver: Any, plan: Plan, sql: str, arguments: Sequence[Any]) -> Answer:
    """Do the same and return what each of them returns, in their order."""
    shape = plan.shape or await learn(driver, plan, sql, ())
    prepared = prepared_of(driver, sql)
    if prepared is None:
        return Answer(shape, await driver.fetchmany(sql, arguments))
    protocol = driver._protocol  # noqa: SLF001 - as above
    return Answer(shape, await protocol.bind_execute_many(prepared, arguments, "", None, True))


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
    except (ArithmeticError, TypeError, ValueError) as error:
        if not rows.taken:
            raise  # from where the rows come, and not from what became of one
        raise DataError(f"invalid input in row {rows.taken}: {error}") from error


async def learn_types(driver: Any, sql: str) -> Any:
    """Prepare a statement in asyncpg's cache, from where the statement itself takes it."""
    return await driver._get_statement(sql, None)  # noqa: SLF001 - prepare() would not cache it


async def learn(driver: Any, plan: Plan, sql: str, _: Sequence[Any]) -> Shape:
    """Have the server describe a statement's columns, and return what becomes of them."""
    prepared = await learn_types(driver, sql)
    return plan.learn(prepared._get_attributes() or ())  # noqa: SLF001 - as above


async def open_cursor(driver: Any, _: Plan, sql: str, arguments: Sequence[Any]) -> Any:
    """Open a cursor of the server's, within a transaction."""
    if driver._stmt_cache.get_max_size():  # noqa: SLF001 - asyncpg tells nobody else
        return await driver.cursor(sql, *arguments)
    # Where it keeps no statements, behind a pooler, cursor() would leave a named one there.
    return await (await driver.prepare(sql)).cursor(*arguments)


async def fetch_more(_: Any, cursor: Any, __: str, count: Sequence[int]) -> Any:
    """Return the next records of a cursor, so many as the one value says."""
    return await cursor.fetch(*count)

"""asyncpg: what the pool and the express lane do on its connection, past its public methods."""

import contextlib
from collections.abc import Callable, Coroutine, Sequence
from itertools import accumulate, islice, pairwise
from typing import Any

from asyncpg import Connection
from asyncpg.exceptions import InternalClientError
from sqlalchemy.dialects.postgresql.asyncpg import AsyncAdapt_asyncpg_connection
from sqlalchemy.util import await_
from typing_extensions import override

from penstock.drivers.asyncpg_connection import AsyncpgConnection
from penstock.drivers.driver import FOLLOWED, LASTING, Driver, Prepared, never
from penstock.drivers.effects import Effect
from penstock.drivers.followed_statements import text_on
from penstock.drivers.pipelining import Pipeline
from penstock.drivers.row_counter import RowCounter

SET_READ_ONLY = "SET default_transaction_read_only = on"
FREE = "RESET default_transaction_read_only"
"""To what the connection began with: a role may be kept read-only by its own settings."""

RESET = (
    "CLOSE ALL;SET SESSION AUTHORIZATION DEFAULT;RESET ROLE;RESET ALL;UNLISTEN *;"
    "SELECT pg_advisory_unlock_all();DISCARD TEMP;DISCARD SEQUENCES"
)
"""What DISCARD ALL does, but for the driver's own prepared statements, which stay."""

STATEMENTS = 20
"""Statements prepared on a connection that replaces another: those it used most recently."""


class Asyncpg(Driver):
    """asyncpg: pinged in one round trip; it has the server cancel a query by itself."""

    can_recover = True
    can_set_read_only = True
    is_pipelined = True
    resets_pipelined = True

    @override
    def owns(self, connection: Any) -> bool:
        return isinstance(connection, AsyncAdapt_asyncpg_connection) and isinstance(
            connection._connection, Connection
        )

    @override
    def adapt(self, connection: Any) -> Any:
        if type(connection) is AsyncAdapt_asyncpg_connection and self.owns(connection):
            return AsyncpgConnection.of(connection)
        return connection

    @override
    def trace(self, connection: Any) -> Any:
        if isinstance(connection, AsyncpgConnection):
            return connection
        return super().trace(connection)

    @override
    def expose(self, connection: Any) -> None:
        if isinstance(connection, AsyncpgConnection):
            connection.expose()

    def take_effects(self, connection: Any) -> Effect:
        """Return what the lease may have left, and begin anew.

        A driver's connection that was given out but ran no query has left nothing.
        """
        effects = super().take_effects(connection)
        if effects & Effect.DRIVER:
            queries: int = connection._connection._protocol.queries_count
            return effects | Effect.SESSION if queries > connection.queries_before else effects
        return effects

    @override
    def is_closed(self, connection: Any) -> Callable[[], bool]:
        return connection._connection._transport.is_closing  # type: ignore[no-any-return]  # untyped

    @override
    def is_standby(self, connection: Any) -> bool:
        settings = connection._connection.get_settings()
        return getattr(settings, "in_hot_standby", "off") == "on"

    @override
    def fileno(self, connection: Any) -> int | None:
        number: int = connection._connection._transport.get_extra_info("socket").fileno()
        return number

    @override
    def sees_off(self, connection: Any) -> int | None:
        return None

    @override
    def ping(self, dialect: Any, connection: Any) -> bool:
        return super().ping(dialect, _OneRoundTrip(connection))

    @override
    def recover(self, connection: Any) -> bool:
        driver = connection._connection
        if not driver._protocol._is_cancelling():
            Pipeline.of(driver._transport).end_batch()
        # Before it sends anything it waits until the server has acknowledged the cancellation. A
        # ROLLBACK without a transaction would be a warning in the server's log.
        with contextlib.suppress(Exception):
            await_(driver.execute("SELECT"))
        if driver.is_in_transaction():
            await_(driver.execute("ROLLBACK"))
        driver._top_xact = None  # or the next BEGIN would be a SAVEPOINT
        connection._transaction = None  # the adapter's, of the same transaction
        if isinstance(connection, AsyncpgConnection):
            connection.forget_options()
        return not (driver.is_closed() or driver.is_in_transaction())

    @override
    def reset(self, connection: Any) -> bool:
        driver = connection._connection
        _forget_listeners(driver)
        await_(driver.execute(RESET))
        return "SELECT 0" in await_(driver.execute(LASTING))

    @override
    def followed_settings(self, connection: Any) -> tuple[str | None, ...]:
        reported = connection._connection.get_settings()
        return tuple(getattr(reported, name, None) for name in FOLLOWED)

    @override
    def is_shared(self, connection: Any) -> bool:
        return isinstance(connection, AsyncpgConnection) and connection.is_shared

    @override
    def reset_pipelined(self, connection: Any) -> None:
        driver = connection._connection
        _forget_listeners(driver)
        Pipeline.of(driver._transport).send_query(RESET, leaves_idle=True)

    @override
    def server_pid(self, connection: Any) -> int | None:
        pid: int = connection._connection.get_server_pid()
        return pid

    @override
    def is_in_transaction(self, connection: Any) -> bool:
        in_transaction: bool = connection._connection.is_in_transaction()
        return in_transaction

    @override
    def is_cancelling(self, connection: Any) -> bool:
        is_cancelling: bool = connection._connection._protocol._is_cancelling()
        return is_cancelling

    def statements(self, connection: Any) -> list[Prepared]:
        """Return those of sessions, and those that the driver has prepared by itself."""
        is_ours = isinstance(connection, AsyncpgConnection)
        texts = connection.recently_prepared() if is_ours else []
        driver = connection._connection
        own = reversed(list(driver._stmt_cache.iter_statements()))
        suffix = text_on(driver, "")
        queries = [state.query.removesuffix(suffix) for state in islice(own, STATEMENTS)]
        return [
            *(Prepared(text, for_sessions=True) for text in texts[:STATEMENTS]),
            *(Prepared(query, for_sessions=False) for query in queries),
        ]

    @override
    def prepare(self, dialect: Any, connection: Any, statements: list[Prepared]) -> None:
        for statement in reversed(statements):
            if statement.for_sessions:
                asof = dialect._invalidate_schema_cache_asof  # as its cursor asks
                await_(AsyncAdapt_asyncpg_connection._prepare(connection, statement.text, asof))
            else:
                # prepare() would not cache it
                await_(connection._connection._get_statement(statement.text, None))

    @override
    def set_read_only(
        self, connection: Any, *, to_reading: bool, ignores_error: Callable[[], bool] = never
    ) -> None:
        statement = SET_READ_ONLY if to_reading else FREE
        Pipeline.of(connection._connection._transport).send_query(statement, ignores_error)


def _forget_listeners(driver: Any) -> None:
    """Forget the functions that were given to ``add_listener()``: RESET has the server UNLISTEN."""
    driver._listeners.clear()
    driver._log_listeners.clear()


class _OneRoundTrip:
    """An asyncpg connection whose ``ping`` is one simple query instead of a transaction of three.

    Behind PgBouncer it is one transaction, in every pool mode.
    """

    def __init__(self, connection: Any) -> None:
        self._adapted = connection

    def __getattr__(self, name: str) -> Any:
        return getattr(self._adapted, name)

    def ping(self) -> None:
        try:
            await_(self._adapted._connection.execute("SELECT"))
        except Exception as error:
            self._adapted._handle_exception(error)
            raise


def is_read_only(driver: Any) -> bool:
    """Return whether the server last said that the connection is kept read-only to reading.

    Args:
        driver: asyncpg's connection. Servers before PostgreSQL 14 do not say.
    """
    return getattr(driver._protocol.get_settings(), "default_transaction_read_only", "on") == "on"


def prepared_of(driver: Any, sql: str) -> Any:
    """Return a statement that can be run as it is, in one go and in one transaction.

    The driver's own ways prepare an outdated one anew by themselves, and leave behind the settings
    that were sent in front.

    Args:
        driver: asyncpg's connection.
        sql: The statement.

    Returns:
        asyncpg's state of it; None where it is not prepared (it is kept up to a length and for a
        time, and behind a pooler not at all), within a transaction, or where a listener logs the
        driver's queries.
    """
    if driver._query_loggers or driver._top_xact is not None:
        return None
    return _kept(driver, sql)


def fetch(driver: Any, sql: str, arguments: Sequence[Any]) -> Coroutine[Any, Any, Any]:
    """Run a statement and return its records.

    It does what ``fetch()`` does, with four coroutines less where the statement is prepared.

    Args:
        driver: asyncpg's connection.
        sql: The statement.
        arguments: Its values.
    """
    protocol = driver._protocol
    prepared = driver._stmt_cache.get((text_on(driver, sql), protocol.get_record_class(), False))
    if prepared is None or driver._query_loggers:
        return driver._execute(sql, arguments, 0, None)  # type: ignore[no-any-return]  # untyped
    return protocol.bind_execute(prepared, arguments, "", 0, False, None)  # type: ignore[no-any-return]  # untyped


async def fetch_in_any_shape(driver: Any, sql: str, arguments: Sequence[Any]) -> Any:
    """Run a statement whose columns may have changed, and return its records.

    Args:
        driver: asyncpg's connection.
        sql: The statement.
        arguments: Its values.
    """
    return await _run(driver, sql, arguments, return_status=False)


def _run(driver: Any, sql: str, arguments: Sequence[Any], *, return_status: bool) -> Any:
    prepared = prepared_of(driver, sql)
    if prepared is None:
        return driver._execute(sql, arguments, 0, None, return_status=return_status)
    return driver._protocol.bind_execute(prepared, arguments, "", 0, return_status, None)


async def execute(driver: Any, sql: str, arguments: Sequence[Any]) -> str:
    """Run a statement and return the command's tag.

    ``execute()`` itself takes several statements at once where there are no values.

    Args:
        driver: asyncpg's connection.
        sql: The statement.
        arguments: Its values.
    """
    _, status, _ = await _run(driver, sql, arguments, return_status=True)
    return status.decode()  # type: ignore[no-any-return]  # untyped


async def execute_many(driver: Any, sql: str, arguments: Sequence[Any]) -> None:
    """Run a statement for each of several rows of values, as one transaction.

    Args:
        driver: asyncpg's connection.
        sql: The statement.
        arguments: The rows.
    """
    prepared = prepared_of(driver, sql)
    if prepared is None:
        await driver.executemany(sql, arguments)
    else:
        await driver._protocol.bind_execute_many(prepared, arguments, "", None, False)


async def fetch_many(driver: Any, sql: str, arguments: Sequence[Any]) -> Sequence[Any]:
    """Do the same and return what each of them returns, in their order.

    Args:
        driver: asyncpg's connection.
        sql: The statement.
        arguments: The rows.
    """
    prepared = prepared_of(driver, sql)
    if prepared is None:
        return await driver.fetchmany(sql, arguments)  # type: ignore[no-any-return]  # untyped
    return await driver._protocol.bind_execute_many(prepared, arguments, "", None, True)  # type: ignore[no-any-return]  # untyped


class StatementNotKept(Exception):  # noqa: N818 - it says what happened
    """The driver keeps a statement prepared only while it runs."""


async def fetch_each(
    driver: Any, sql: str, arguments: Sequence[Sequence[Any]], counter: RowCounter
) -> list[Sequence[Any]]:
    """Run a statement for each of several rows of values, in one round trip and one transaction.

    Args:
        driver: asyncpg's connection.
        sql: The statement.
        arguments: The rows.
        counter: Counts the rows of each answer.

    Returns:
        The records of each, in their order.

    Raises:
        StatementNotKept: It was not sent.
        asyncpg.InternalClientError: It was not sent this time, or its answers were not understood.
        asyncpg.PostgresError: One of them has failed, and nothing is known of the others.
    """
    prepared = _kept(driver, sql)
    if prepared is None:
        await driver._get_statement(sql, None)
        prepared = _kept(driver, sql)
    pipeline = Pipeline.of(driver._transport)
    if prepared is None:
        raise StatementNotKept
    if driver._query_loggers or pipeline.is_within_message:
        raise InternalClientError("the driver logs its queries, or receives a message")
    pipeline.row_counter = counter
    try:
        records = await driver._protocol.bind_execute_many(prepared, arguments, "", None, True)
    finally:
        pipeline.row_counter = None
    ends = list(accumulate(counter.counts, initial=0))
    if len(ends) != len(arguments) + 1 or ends[-1] != len(records):
        raise InternalClientError(f"{len(arguments)} answers of {ends[-1]} rows were counted")
    return [records[begin:end] for begin, end in pairwise(ends)]


def _kept(driver: Any, sql: str) -> Any:
    key = text_on(driver, sql), driver._protocol.get_record_class(), False
    return driver._stmt_cache.get(key)


async def prepare(driver: Any, sql: str) -> Any:
    """Prepare a statement in asyncpg's cache, which ``prepare()`` would not do.

    Args:
        driver: asyncpg's connection.
        sql: The statement, which is taken from the cache when it is run.

    Returns:
        asyncpg's state of it.
    """
    return await driver._get_statement(sql, None)


def attributes(prepared: Any) -> Sequence[Any]:
    """Return what the server says of the columns of a prepared statement."""
    return prepared._get_attributes() or ()


async def open_cursor(driver: Any, sql: str, arguments: Sequence[Any]) -> Any:
    """Open a cursor of the server's, within a transaction.

    Args:
        driver: asyncpg's connection.
        sql: The statement.
        arguments: Its values.
    """
    if driver._stmt_cache.get_max_size():
        return await driver.cursor(sql, *arguments)
    # Where it keeps no statements, behind a pooler, cursor() would leave a named one there.
    return await (await driver.prepare(sql)).cursor(*arguments)


def is_cancelling(driver: Any) -> bool:
    """Return whether the driver has the server cancel a statement."""
    return driver._protocol._is_cancelling()  # type: ignore[no-any-return]  # untyped


def lift_command_timeout(driver: Any, unlimited: Any = None) -> tuple[Any, Any]:
    """Have the driver limit no statement, until :func:`set_configuration` puts back what it had.

    Args:
        driver: asyncpg's connection.
        unlimited: The configuration without a limit, as an earlier call returned it.

    Returns:
        The configuration that it had, and the one that it has.
    """
    limited = driver._config
    driver._config = unlimited = unlimited or limited._replace(command_timeout=None)
    return limited, unlimited


def set_configuration(driver: Any, configuration: Any) -> None:
    """Give a connection the configuration that it had before.

    Args:
        driver: asyncpg's connection.
        configuration: As :func:`lift_command_timeout` returned it.
    """
    driver._config = configuration

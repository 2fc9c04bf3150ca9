"""Statements on asyncpg's own connection, in fewer steps than its public methods take."""

from collections.abc import Coroutine, Sequence
from typing import Any


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
    return driver._stmt_cache.get((sql, driver._protocol.get_record_class(), False))


def fetch(driver: Any, sql: str, arguments: Sequence[Any]) -> Coroutine[Any, Any, Any]:
    """Run a statement and return its records.

    It does what ``fetch()`` does, with four coroutines less where the statement is prepared.

    Args:
        driver: asyncpg's connection.
        sql: The statement.
        arguments: Its values.
    """
    protocol = driver._protocol
    prepared = driver._stmt_cache.get((sql, protocol.get_record_class(), False))
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

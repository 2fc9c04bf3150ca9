"""A context within an outer transaction, as in a test, where it has to be set and put back."""

from typing import Any

from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError

from penstock.context import Settings
from penstock.drivers.driver import without_values

__all__ = ["set_within"]


def set_within(connection: Connection, settings: Settings) -> Settings:
    """Set names and values until the transaction ends, and return what the values were.

    They are neither logged nor seen by listeners. Runs in a greenlet.

    Args:
        connection: In a transaction of PostgreSQL's.
        settings: Names and values; an empty value for what is not set.

    Raises:
        sqlalchemy.exc.DBAPIError: The server refuses; the error does not show the values.
    """
    is_numbered = connection.dialect.driver == "asyncpg"
    calls, values = [], list[str]()
    for name, value in settings:
        first = len(values) + 1
        marks = [f"${first + n}" if is_numbered else "%s" for n in range(3)]
        calls.append("current_setting({}, true), set_config({}, {}, true)".format(*marks))
        values += [name, name, value]
    try:
        row = _row(connection, f"SELECT {', '.join(calls)}", values)
    except DBAPIError as error:
        raise _without_values(error, settings) from None
    return tuple((name, row[2 * n] or "") for n, (name, _) in enumerate(settings))


def _without_values(error: DBAPIError, settings: Settings) -> DBAPIError:
    orig = error.orig
    assert orig is not None  # noqa: S101 - as it is the driver's
    orig.args = (without_values(str(orig), settings),)
    orig.__cause__ = None
    return error.__class__(error.statement, None, orig, hide_parameters=True)


def _row(connection: Connection, sql: str, values: list[str]) -> Any:
    adapter: Any = connection.connection.dbapi_connection
    base: Any = connection.dialect.loaded_dbapi.Error
    try:
        return adapter.fetch_row(sql, values)
    except base as error:
        raise DBAPIError.instance(
            sql, None, error, base, hide_parameters=True, dialect=connection.dialect
        ) from None

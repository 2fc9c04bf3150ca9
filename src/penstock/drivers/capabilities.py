"""What is known of the driver behind a dialect."""

from collections.abc import Callable
from functools import cache
from typing import Any

from sqlalchemy.dialects.mysql.aiomysql import AsyncAdapt_aiomysql_connection
from sqlalchemy.dialects.mysql.asyncmy import AsyncAdapt_asyncmy_connection
from sqlalchemy.dialects.sqlite.aiosqlite import AsyncAdapt_aiosqlite_connection
from typing_extensions import override

from penstock.drivers.asyncpg import Asyncpg
from penstock.drivers.driver import Driver, never, number_of, transport_of
from penstock.drivers.psycopg import Psycopg
from penstock.drivers.requirements import ASYNCPG, EXPRESS, PSYCOPG, is_met


class Aiosqlite(Driver):
    """aiosqlite: its thread goes on with a cancelled statement, and takes the rollback after it."""

    can_recover = True

    @override
    def owns(self, connection: Any) -> bool:
        return isinstance(connection, AsyncAdapt_aiosqlite_connection) and hasattr(
            type(connection.driver_connection), "in_transaction"
        )

    @override
    def recover(self, connection: Any) -> bool:
        driver = connection.driver_connection
        # Not interrupted: while a cursor is open, SQLite would interrupt the next statement, too.
        connection.rollback()
        return not driver.in_transaction

    @override
    def is_in_transaction(self, connection: Any) -> bool:
        return bool(connection.driver_connection.in_transaction)


_ADAPTERS = (AsyncAdapt_aiomysql_connection, AsyncAdapt_asyncmy_connection)


class Mysql(Driver):
    """aiomysql and asyncmy: they close a connection whose query is cancelled."""

    @override
    def owns(self, connection: Any) -> bool:
        return isinstance(connection, _ADAPTERS) and hasattr(
            connection.driver_connection, "get_transaction_status"
        )

    @override
    def is_closed(self, connection: Any) -> Callable[[], bool]:
        transport = transport_of(connection.driver_connection)
        return never if transport is None else transport.is_closing

    @override
    def fileno(self, connection: Any) -> int | None:
        transport = transport_of(connection.driver_connection)
        return None if transport is None else number_of(transport)

    @override
    def is_in_transaction(self, connection: Any) -> bool:
        return bool(connection.driver_connection.get_transaction_status())


_DRIVERS: dict[str, type[Driver]] = {
    "aiomysql": Mysql,
    "aiosqlite": Aiosqlite,
    "asyncmy": Mysql,
    "asyncpg": Asyncpg,
    "psycopg": Psycopg,
    "psycopg_async": Psycopg,
}


_REQUIREMENTS = {"asyncpg": ASYNCPG, "psycopg": PSYCOPG, "psycopg_async": PSYCOPG}


def driver_of(dialect: Any) -> Driver:
    """Return what is known of the driver behind a dialect.

    Args:
        dialect: SQLAlchemy's, or what stands for it in a pool without an engine.

    Returns:
        What is known of any driver, where the installed version lacks what Penstock relies on.
    """
    return _kind_of(getattr(dialect, "driver", ""))()


@cache
def _kind_of(name: str) -> type[Driver]:
    without = "it is used like an unknown driver, with more round trips"
    if is_met(name.removesuffix("_async"), _REQUIREMENTS.get(name, ()), without):
        return _DRIVERS.get(name, Driver)
    return Driver


def runs_express(dialect: Any) -> bool:
    """Return whether the express lane runs on a dialect's driver, or has to run in sessions.

    Args:
        dialect: SQLAlchemy's.
    """
    return driver_of(dialect).is_pipelined and _has_internals()


@cache
def _has_internals() -> bool:
    return is_met("sqlalchemy", EXPRESS, "the express lane runs in sessions")

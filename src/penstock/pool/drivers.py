"""What the pool has to know of each driver: whether a connection lives, and how one is saved."""

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice
from typing import Any

from sqlalchemy.util import await_

from penstock.pool.ahead import send_ahead

__all__ = ["Driver", "driver_of"]

CONFINE = "SET default_transaction_read_only = on"
FREE = "RESET default_transaction_read_only"
"""To what the connection began with: a role may be confined by its own settings."""

STATEMENTS = 20
"""Statements prepared on a connection that replaces another: those it used most recently."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """A statement that a connection has prepared.

    Args:
        text: Its SQL.
        for_sessions: Whether SQLAlchemy keeps it, or the driver by itself.
    """

    text: str
    for_sessions: bool


def _never() -> bool:
    return False


class Driver:
    """Any driver: nothing is known but what SQLAlchemy's dialect can do."""

    can_mend = False
    """Whether a connection can be used again after its query was cancelled."""
    can_confine = False
    """Whether a connection can be confined to reading without a round trip."""

    def is_closed(self, connection: Any) -> Callable[[], bool]:  # noqa: ARG002 - others need it
        """Return what tells, without a round trip, whether the driver knows it to be closed.

        Args:
            connection: SQLAlchemy's adapter around the driver's connection.
        """
        return _never

    def fileno(self, connection: Any) -> int | None:  # noqa: ARG002 - others need it
        """Return the number of the connection's socket; None where it has none."""
        return None

    def sees_off(self, connection: Any) -> int | None:
        """Return the number of the socket whose end is to be awaited after the close.

        Returns:
            None where closing waits by itself until the server has hung up, or has no socket.
        """
        return None if self.is_closed(connection)() else self.fileno(connection)

    def ping(self, dialect: Any, connection: Any) -> bool:
        """Make one round trip; False where the connection is broken. Runs in a greenlet."""
        answer: bool = dialect._do_ping_w_event(connection)  # noqa: SLF001 - as the base pool calls
        return answer

    def mend(self, connection: Any) -> bool:  # noqa: ARG002 - others need it
        """Wait for the cancelled query to end and roll back; False where that failed."""
        return False

    def abandon(self, dialect: Any, connection: Any) -> None:
        """Drop the connection without waiting for anything."""
        dialect.do_terminate(connection)

    def statements(self, connection: Any) -> list["Prepared"]:  # noqa: ARG002 - others need it
        """Return the statements that the connection has prepared, the most recent first."""
        return []

    def prepare(self, dialect: Any, connection: Any, statements: list["Prepared"]) -> None:
        """Prepare statements, so that no request has to. Runs in a greenlet."""

    def confine(
        self, connection: Any, *, to_reading: bool, is_excused: Callable[[], bool] = _never
    ) -> None:
        """Have the server refuse whatever writes, outside a transaction, from now on; or not.

        Without a round trip. While it is confined, each statement is a transaction of its own.

        Args:
            connection: SQLAlchemy's adapter around the driver's connection, at rest.
            to_reading: False to lift it.
            is_excused: As :func:`~penstock.pool.ahead.send_ahead` has it.
        """
        raise NotImplementedError

    def settle(self, connection: Any) -> None:
        """Have the server end a statement that was begun and not gone on with, and its locks."""

    def is_confined(self, connection: Any) -> bool:
        """Tell whether the server last said that the connection is confined to reading."""
        raise NotImplementedError


class Asyncpg(Driver):
    """asyncpg: pinged in one round trip; it asks the server itself to cancel a query."""

    can_mend = True
    can_confine = True

    def is_closed(self, connection: Any) -> Callable[[], bool]:
        """As the base class says."""
        return connection.driver_connection._transport.is_closing  # type: ignore[no-any-return]  # noqa: SLF001 - untyped, and no other way to it

    def fileno(self, connection: Any) -> int | None:
        """As the base class says."""
        return _number_of(connection.driver_connection._transport)  # noqa: SLF001 - as above

    def sees_off(self, connection: Any) -> int | None:  # noqa: ARG002 - its close waits by itself
        """As the base class says."""
        return None

    def ping(self, dialect: Any, connection: Any) -> bool:
        """As the base class says."""
        return super().ping(dialect, _OneRoundTrip(connection))

    def mend(self, connection: Any) -> bool:
        """As the base class says."""
        driver = connection.driver_connection
        # Before it sends anything it waits until the server has acknowledged the cancellation. A
        # ROLLBACK without a transaction would be a warning in the server's log.
        with contextlib.suppress(Exception):
            await_(driver.execute("SELECT"))
        if driver.is_in_transaction():
            await_(driver.execute("ROLLBACK"))
        driver._top_xact = None  # noqa: SLF001 - or the next BEGIN would be a SAVEPOINT
        connection._transaction = None  # noqa: SLF001 - the adapter's, of the same transaction
        return not (driver.is_closed() or driver.is_in_transaction())

    def statements(self, connection: Any) -> list["Prepared"]:
        """As the base class says: those of sessions, and those of who uses the driver itself."""
        cache = connection._prepared_statement_cache  # noqa: SLF001 - of which each use is counted
        uses = sorted(cache._data.items(), key=lambda item: -item[1][2][0]) if cache else []  # noqa: SLF001 - as above
        own = reversed(list(connection.driver_connection._stmt_cache.iter_statements()))  # noqa: SLF001 - the least recent first
        return [
            *(Prepared(text, for_sessions=True) for text, _ in uses[:STATEMENTS]),
            *(Prepared(state.query, for_sessions=False) for state in islice(own, STATEMENTS)),
        ]

    def prepare(self, dialect: Any, connection: Any, statements: list["Prepared"]) -> None:
        """As the base class says."""
        for statement in reversed(statements):
            if statement.for_sessions:
                asof = dialect._invalidate_schema_cache_asof  # noqa: SLF001 - as its cursor asks
                await_(connection._prepare(statement.text, asof))  # noqa: SLF001 - fills its cache
            else:
                await_(connection.driver_connection._get_statement(statement.text, None))  # noqa: SLF001 - prepare() would not cache it

    def confine(
        self, connection: Any, *, to_reading: bool, is_excused: Callable[[], bool] = _never
    ) -> None:
        """As the base class says."""
        statement = CONFINE if to_reading else FREE
        send_ahead(connection.driver_connection._transport, statement, is_excused)  # noqa: SLF001 - as above
        connection.autocommit = to_reading

    def settle(self, connection: Any) -> None:
        """As the base class says: asyncpg prepares, and then finds that it cannot send a value."""
        send_ahead(connection.driver_connection._transport, "", _never)  # noqa: SLF001 - as above

    def is_confined(self, connection: Any) -> bool:
        """As the base class says: servers tell since PostgreSQL 14."""
        settings = connection.driver_connection.get_settings()
        return getattr(settings, "default_transaction_read_only", "on") == "on"


class Psycopg(Driver):
    """psycopg: it cancels the server's query itself, and waits for that, when it is cancelled."""

    can_mend = True

    def is_closed(self, connection: Any) -> Callable[[], bool]:
        """As the base class says."""
        driver = connection.driver_connection
        return lambda: driver.closed

    def fileno(self, connection: Any) -> int | None:
        """As the base class says."""
        return connection.driver_connection.fileno()  # type: ignore[no-any-return]  # untyped

    def mend(self, connection: Any) -> bool:
        """As the base class says."""
        connection.rollback()
        driver = connection.driver_connection
        return not driver.closed and driver.info.transaction_status == 0  # libpq's PQTRANS_IDLE

    def abandon(self, dialect: Any, connection: Any) -> None:  # noqa: ARG002 - it waits for a lock
        """As the base class says."""
        connection.driver_connection.pgconn.finish()


class Aiosqlite(Driver):
    """aiosqlite: its thread goes on with a cancelled statement, and takes the rollback after it."""

    can_mend = True

    def mend(self, connection: Any) -> bool:
        """As the base class says."""
        driver = connection.driver_connection
        # Not interrupted: while a cursor is open, SQLite would interrupt the next statement, too.
        connection.rollback()
        return not driver.in_transaction


class Mysql(Driver):
    """aiomysql and asyncmy: they close a connection whose query is cancelled."""

    def is_closed(self, connection: Any) -> Callable[[], bool]:
        """As the base class says."""
        transport = self._transport(connection)
        return _never if transport is None else transport.is_closing

    def fileno(self, connection: Any) -> int | None:
        """As the base class says."""
        transport = self._transport(connection)
        return None if transport is None else _number_of(transport)

    @staticmethod
    def _transport(connection: Any) -> Any:
        driver = connection.driver_connection
        if (writer := getattr(driver, "_writer", None)) is not None:  # aiomysql
            return writer.transport
        return getattr(driver, "_transport", None)  # asyncmy


class _OneRoundTrip:
    """An asyncpg connection whose ``ping`` is one simple query instead of a transaction of three.

    Behind PgBouncer it is a transaction of its own, in every pool mode.
    """

    def __init__(self, connection: Any) -> None:
        self._adapted = connection

    def __getattr__(self, name: str) -> Any:
        return getattr(self._adapted, name)

    def ping(self) -> None:
        try:
            await_(self._adapted.driver_connection.execute("SELECT"))
        except Exception as error:
            self._adapted._handle_exception(error)  # noqa: SLF001 - its translation of errors
            raise


_DRIVERS: dict[str, type[Driver]] = {
    "aiomysql": Mysql,
    "aiosqlite": Aiosqlite,
    "asyncmy": Mysql,
    "asyncpg": Asyncpg,
    "psycopg": Psycopg,
    "psycopg_async": Psycopg,
}


def driver_of(dialect: Any) -> Driver:
    """Return what is known of the driver behind a dialect."""
    return _DRIVERS.get(getattr(dialect, "driver", ""), Driver)()


def _number_of(transport: Any) -> int:
    number: int = transport.get_extra_info("socket").fileno()
    return number

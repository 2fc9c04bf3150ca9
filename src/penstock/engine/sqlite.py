"""What the settings become for SQLite, and what every connection to it begins with."""

from typing import Any

from sqlalchemy import URL, Connection, Engine, event
from sqlalchemy.engine.interfaces import DBAPIConnection, Dialect
from sqlalchemy.pool import ConnectionPoolEntry

from penstock.engine.connector import connect_failed
from penstock.settings import DatabaseSettings

__all__ = ["is_one_connection", "prepare_sqlite", "sqlite_arguments"]

# sqlite.org/foreignkeys.html: off unless each connection asks; sqlite.org/wal.html: readers and
# the one writer do not block each other, and the file remembers it.
PRAGMAS = ("PRAGMA foreign_keys=ON", "PRAGMA journal_mode=WAL")


def is_one_connection(url: URL) -> bool:
    """Tell whether a database lives in its connection, and is gone when that is replaced.

    Args:
        url: Of an SQLite database.

    Returns:
        True in memory, unless the connections of the process share it (sqlite.org/inmemorydb.html).
    """
    name = url.database or ":memory:"
    is_uri = name.startswith("file:")
    in_memory = name in {":memory:", "file::memory:"} or url.query.get("mode") == "memory"
    return in_memory and not (is_uri and url.query.get("cache") == "shared")


def sqlite_arguments(settings: DatabaseSettings) -> dict[str, Any]:
    """Return the arguments of ``aiosqlite.connect``.

    Args:
        settings: Of an SQLite database; ``command_timeout`` bounds the wait for another
            writer's lock, which is what SQLite calls its busy timeout.
    """
    return {
        "timeout": settings.command_timeout,
        "cached_statements": settings.statement_cache_size,
    }


def prepare_sqlite(engine: Engine, settings: DatabaseSettings) -> None:
    """Let each new connection begin with the pragmas, a failed one say so, and savepoints nest.

    Args:
        engine: An engine on aiosqlite that has not connected yet.
        settings: Named in the error.
    """

    @event.listens_for(engine, "do_connect")
    def open_connection(
        dialect: Dialect, _entry: ConnectionPoolEntry, args: list[Any], arguments: dict[str, Any]
    ) -> DBAPIConnection:
        try:
            return dialect.connect(*args, **arguments)
        except Exception as error:
            raise connect_failed(settings, error) from error

    @event.listens_for(engine, "connect")
    def begin(connection: DBAPIConnection, _entry: ConnectionPoolEntry) -> None:
        cursor = connection.cursor()
        for pragma in PRAGMAS:
            cursor.execute(pragma)
        cursor.close()

    @event.listens_for(engine, "savepoint")
    def begin_before(connection: Connection, _name: str) -> None:
        # Python begins a transaction in front of what writes alone. Without one, the outermost
        # savepoint is a transaction itself, and its release a COMMIT.
        driver: Any = connection.connection.driver_connection
        if not driver.in_transaction:
            connection.exec_driver_sql("BEGIN")

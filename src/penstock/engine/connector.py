"""Opening a connection of each driver: in time, or with an error that says why not."""

import asyncio
import importlib
from collections.abc import Awaitable, Callable
from itertools import cycle
from typing import Any

from sqlalchemy import URL, Connection, Engine, event, make_url
from sqlalchemy.engine.interfaces import DBAPIConnection, Dialect
from sqlalchemy.pool import ConnectionPoolEntry

from penstock.base_error import SettingsError
from penstock.engine.connect_arguments import (
    asyncpg_arguments,
    equip_aiomysql,
    equip_asyncmy,
    equip_asyncpg,
    equip_psycopg,
    mysql_arguments,
    psycopg_arguments,
    without_client_check,
)
from penstock.pool.errors import ConnectFailed, FailureReason, clear_traceback, reason_of
from penstock.settings import DatabaseSettings, Driver

DEFAULT_PORTS = {"postgresql": 5432, "mysql": 3306, "mariadb": 3306}


def address_of(settings: DatabaseSettings) -> str:
    """Name a database's host, port and name.

    Args:
        settings: Whose URL is looked at.

    Returns:
        Such as ``database app at db.internal:5432``, or ``the file app.db`` for SQLite.
    """
    url = make_url(settings.url.get_secret_value())
    if url.get_backend_name() == "sqlite":
        return f"the file {url.database or ':memory:'}"
    hosts = ", ".join(_written(host, port) for host, port in hosts_of(url))
    return f"database {url.database} at {hosts}" if url.database else hosts


def identity_of(settings: DatabaseSettings) -> str:
    """Return what tells one service's database from another's: its name and URL, no password."""
    url = make_url(settings.url.get_secret_value())
    return f"{settings.application_name} {url.render_as_string(hide_password=True)}"


def hosts_of(url: URL) -> list[tuple[str, int | None]]:
    """Tell which hosts a network driver tries, in their order.

    Args:
        url: As the engine has it. Its parameters outrank what stands in front of them.

    Returns:
        Each host's name and port; of a Unix socket its path and None.
    """
    socket = url.query.get("unix_socket")
    hosts = _each(socket or url.query.get("host") or url.host or "localhost")
    ports = _each(url.query.get("port") or str(url.port or DEFAULT_PORTS[url.get_backend_name()]))
    return [_split(host, port) for host, port in zip(hosts, cycle(ports), strict=False)]


def _each(named: str | tuple[str, ...]) -> list[str]:
    return named.split(",") if isinstance(named, str) else list(named)


def _split(host: str, port: str) -> tuple[str, int | None]:
    if host.startswith("/"):
        return host, None
    if host.count(":") == 1:  # more are an IPv6 address
        host, _, port = host.partition(":")
    return host, int(port) if port.isdecimal() else None


def _written(host: str, port: int | None) -> str:
    if port is None:
        return host
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _as_it_is(_: dict[str, Any], __: Exception) -> None:
    return None


class Connector:
    """Opens connections for SQLAlchemy, whose dialects call it instead of the driver.

    Args:
        settings: With the limit, and what the connections are to be equipped with.
        connect: The driver's own connect.
        equip: Sets on a new connection what no argument of ``connect`` can.
        discard: Closes a connection that could not be equipped, without waiting.
        simplify: Given the arguments and the error of a connect that failed, returns other ones
            which the server may understand; None where it cannot help.
    """

    def __init__(
        self,
        settings: DatabaseSettings,
        *,
        connect: Callable[..., Awaitable[Any]],
        equip: Callable[[Any, DatabaseSettings], None],
        discard: Callable[[Any], None],
        simplify: Callable[[dict[str, Any], Exception], dict[str, Any] | None] = _as_it_is,
    ) -> None:
        self._settings = settings
        self._connect = connect
        self._equip = equip
        self._discard = discard
        self._simplify = simplify

    async def __call__(self, *args: Any, **arguments: Any) -> Any:
        """Open one connection with the driver's arguments.

        Returns:
            The driver's connection.

        Raises:
            ConnectFailed: It took longer than ``connect_timeout``, or failed.
        """
        limit = asyncio.timeout(self._settings.connect_timeout)
        try:
            async with limit:
                return self._equipped(await self._connected(args, arguments))
        except Exception as error:
            clear_traceback(error)
            raise connect_failed(self._settings, error, timed_out=limit.expired()) from error
        except BaseException as error:
            clear_traceback(error)
            raise

    async def _connected(self, args: tuple[Any, ...], arguments: dict[str, Any]) -> Any:
        try:
            return await self._connect(*args, **arguments)
        except Exception as error:
            simpler = self._simplify(arguments, error)
            if simpler is None:
                raise
            clear_traceback(error)
        return await self._connect(*args, **simpler)

    def _equipped(self, connection: Any) -> Any:
        try:
            self._equip(connection, self._settings)
        except Exception:
            self._discard(connection)
            raise
        return connection


def connect_failed(
    settings: DatabaseSettings, error: Exception, *, timed_out: bool = False
) -> ConnectFailed:
    """Put a driver's error into the words that all drivers share.

    Args:
        settings: Of the database that was to be reached.
        error: What the driver raised.
        timed_out: Whether ``connect_timeout`` had passed.

    Returns:
        The error to raise from the driver's.
    """
    attempt = f"{settings.driver} opened no connection to {address_of(settings)}"
    if timed_out:
        limit = f"within connect_timeout={settings.connect_timeout:g} s"
        why = "no answer in time (pool_timeout is another limit, on waiting for the pool)"
        return ConnectFailed(f"{attempt} {limit}: {why}", FailureReason.TIMEOUT)
    cause = " ".join(f"{type(error).__name__}: {error}".split())
    if "unsupported startup parameter" in cause:  # PgBouncer's words, SQLSTATE 08P01
        cause += " (a pooler is in between, which the setting proxy should name)"
    return ConnectFailed(f"{attempt}: {cause}", reason_of(error))


# sqlite.org/foreignkeys.html: off unless each connection asks; sqlite.org/wal.html: readers and
# the one writer do not block each other, and the file remembers it.
PRAGMAS = ("PRAGMA foreign_keys=ON", "PRAGMA journal_mode=WAL")


def is_one_connection(url: URL) -> bool:
    """Return whether a database lives in its connection, and is gone when that is replaced.

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
    """Have new connections begin with the pragmas, or fail with an error, and savepoints nest.

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


EXTRAS: dict[Driver, str] = {
    "asyncmy": "mysql",
    "aiomysql": "mysql",
    "aiosqlite": "sqlite",
    "psycopg": "psycopg",
}


def connect_arguments(
    settings: DatabaseSettings, creator: Callable[[], Awaitable[Any]] | None = None
) -> dict[str, Any]:
    """Return what SQLAlchemy passes to the dialect for each new connection.

    Args:
        settings: Of any database.
        creator: Opens a connection in the place of the driver; None for the driver itself.

    Raises:
        SettingsError: The driver is not installed, or cannot do what a setting asks for.
    """
    module = _imported(settings.driver)
    create = None if creator is None else _without_arguments(creator)
    match settings.driver:
        case "asyncpg":
            opened = Connector(
                settings,
                connect=create or module.connect,
                equip=equip_asyncpg,
                discard=lambda connection: connection.terminate(),
                simplify=without_client_check,
            )
            return {**asyncpg_arguments(settings), "async_creator_fn": opened}
        case "psycopg":
            opened = Connector(
                settings,
                connect=create or module.AsyncConnection.connect,
                equip=equip_psycopg,
                discard=lambda connection: connection.pgconn.finish(),
                simplify=without_client_check,
            )
            return {**psycopg_arguments(settings), "async_creator_fn": opened}
        case "asyncmy" | "aiomysql":
            opened = Connector(
                settings,
                connect=create or module.connect,
                equip=equip_asyncmy if settings.driver == "asyncmy" else equip_aiomysql,
                discard=lambda connection: connection.close(),
            )
            return {**mysql_arguments(settings), "async_creator_fn": opened}
        case "aiosqlite":
            if create is not None:
                raise SettingsError("async_creator: SQLite has no connections to create")
            return sqlite_arguments(settings)


def _without_arguments(creator: Callable[[], Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
    def create(*_: Any, **__: Any) -> Awaitable[Any]:
        return creator()

    return create


def _imported(driver: Driver) -> Any:
    try:
        return importlib.import_module(driver)
    except ModuleNotFoundError as error:
        wanted = f"penstock[{EXTRAS[driver]}]" if driver in EXTRAS else driver
        raise SettingsError(
            f"url: its driver {driver} is not installed: pip install '{wanted}'"
        ) from error

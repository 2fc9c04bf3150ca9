"""Opening a connection of each driver: in time, or with an error that says why not.

And what is set on a new connection, and learnt of the first.
"""

import asyncio
import logging
import re
import socket
import sys
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any, TypeVar

from sqlalchemy import URL, Connection, Engine, event
from sqlalchemy.engine.interfaces import DBAPIConnection, Dialect
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlalchemy.pool import ConnectionPoolEntry
from sqlalchemy.util import await_

from penstock.base_error import PenstockError, SettingsError
from penstock.credentials.cache import CredentialCache
from penstock.credentials.provider import Credentials, CredentialsFailed
from penstock.drivers.capabilities import driver_of
from penstock.drivers.driver import TransactionTrace, transport_of
from penstock.engine.address import address_of
from penstock.engine.pooler import (
    Pooler,
    check_settings,
    close_at_once,
    find_pooler,
    pooler_finding,
    share_server,
)
from penstock.findings import Finding
from penstock.pool import PenstockPool
from penstock.pool.errors import ConnectFailed, FailureReason, clear_traceback, reason_of
from penstock.settings import DatabaseSettings, TlsMode

_logger = logging.getLogger("penstock.engine")

Answer = TypeVar("Answer")


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
        credentials: Whose user and password each connection has; None for the URL's.
    """

    def __init__(
        self,
        settings: DatabaseSettings,
        *,
        connect: Callable[..., Awaitable[Any]],
        equip: Callable[[Any, DatabaseSettings], None],
        discard: Callable[[Any], None],
        simplify: Callable[[dict[str, Any], Exception], dict[str, Any] | None] = _as_it_is,
        credentials: CredentialCache | None = None,
    ) -> None:
        self._settings = settings
        self._connect = connect
        self._equip = equip
        self._discard = discard
        self._simplify = simplify
        self._credentials = credentials

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
                return self._equipped(await self._logged_in(args, arguments, limit))
        except CredentialsFailed as error:
            clear_traceback(error)
            raise without_credentials(self._settings, error) from error.__cause__
        except Exception as error:
            clear_traceback(error)
            raise connect_failed(self._settings, error, timed_out=limit.expired()) from error
        except BaseException as error:
            clear_traceback(error)
            raise

    async def _logged_in(
        self, args: tuple[Any, ...], arguments: dict[str, Any], limit: asyncio.Timeout
    ) -> Any:
        if self._credentials is None:
            return await self._connected(args, arguments)
        used = await self._credentials.get(_half_of(limit))
        try:
            return await self._connected(args, self._with(arguments, used))
        except Exception as error:
            if reason_of(error) is not FailureReason.AUTHENTICATION:
                raise
            renewed = await self._credentials.renew(used, _half_of(limit))
            if renewed is None:
                raise
            clear_traceback(error)
        return await self._connected(args, self._with(arguments, renewed))

    def _with(self, arguments: dict[str, Any], credentials: Credentials) -> dict[str, Any]:
        password = credentials.password.get_secret_value()
        if self._settings.driver in {"aiomysql", "asyncmy"}:
            password = as_mysql_sends(password)
        user = {} if credentials.user is None else {"user": credentials.user}
        return {**arguments, **user, "password": password}

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


def _half_of(limit: asyncio.Timeout) -> float:
    """Return how long to wait for credentials: as long again is left to connect."""
    end = limit.when()
    assert end is not None  # noqa: S101 - connect_timeout is a number
    return (end - asyncio.get_running_loop().time()) / 2


def as_mysql_sends(password: str) -> str:
    """Return a password as MySQL's drivers are given it.

    Both encode it as Latin-1, the server compares UTF-8; and a character beyond Latin-1 would end
    up in the text of a UnicodeEncodeError.

    Args:
        password: As it was chosen.
    """
    return password.encode().decode("latin-1")


def without_credentials(settings: DatabaseSettings, error: CredentialsFailed) -> ConnectFailed:
    """Return the error of a connection for which there were no credentials.

    Args:
        settings: What was to be connected to.
        error: Names the provider, and says why.
    """
    attempt = f"{settings.driver} opened no connection to {address_of(settings)}"
    return ConnectFailed(f"{attempt}: {error}", FailureReason.CREDENTIALS)


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
    if refused := _UNSUPPORTED.search(cause):
        cause += f" ({_startup_remedy(settings, refused[1])})"
    return ConnectFailed(f"{attempt}: {cause}", reason_of(error))


_UNSUPPORTED = re.compile(r"unsupported startup parameter(?: in options)?: (\w+)")
"""PgBouncer's words, with SQLSTATE 08P01."""


def _startup_remedy(settings: DatabaseSettings, parameter: str) -> str:
    if not settings.poolers:
        return "a pooler is in between, which the setting proxy should name"
    setting = {
        "jit": "jit",
        "default_transaction_isolation": "isolation_level",
    }.get(parameter, "server_settings")
    if parameter == "options":
        setting, parameter = "server_settings, isolation_level or jit", "..."
    elif parameter in settings.server_settings:
        setting = "server_settings"
    return f"{setting} asks for it: leave that out, and ALTER ROLE ... SET {parameter}"


# Once a connection has been silent for tcp_keepalive, four probes 15 s apart: a server that
# answers none of them for a minute is gone. A restart or a failover is usually over sooner.
INTERVAL = 15
PROBES = 4

# Seconds that data which was sent may go unacknowledged; Linux alone would retry for about a
# quarter of an hour (tcp(7), tcp_retries2). The same minute as the probes', and the same as the
# default of command_timeout. Where it is set it also ends the probing: Linux closes a connection
# that has been silent for longer than it and has left one probe unanswered.
USER_TIMEOUT = 60


def keep_alive(connected: socket.socket, idle: int) -> None:
    """Switch keepalive on for a connected socket; a Unix socket is left as it is.

    Args:
        connected: The driver's socket, or uvloop's stand-in for it.
        idle: Seconds of silence before the first probe.

    Raises:
        OSError: The socket was closed meanwhile.
    """
    if connected.family not in {socket.AF_INET, socket.AF_INET6}:
        return
    connected.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in _tcp_options(idle).items():
        connected.setsockopt(socket.IPPROTO_TCP, option, value)


def libpq_keepalive(idle: int) -> Mapping[str, int]:
    """Return the same as parameters of libpq, which ignores them on a Unix socket.

    Args:
        idle: Seconds of silence before the first probe.

    Returns:
        Parameters by name, as in PostgreSQL's "Parameter Key Words".
    """
    return {
        "keepalives": 1,
        "keepalives_idle": idle,
        "keepalives_interval": INTERVAL,
        "keepalives_count": PROBES,
        "tcp_user_timeout": USER_TIMEOUT * 1000,
    }


def _tcp_options(idle: int) -> Mapping[int, int]:
    if sys.platform == "darwin":
        return {
            socket.TCP_KEEPALIVE: idle,
            socket.TCP_KEEPINTVL: INTERVAL,
            socket.TCP_KEEPCNT: PROBES,
        }
    options = {
        socket.TCP_KEEPIDLE: idle,
        socket.TCP_KEEPINTVL: INTERVAL,
        socket.TCP_KEEPCNT: PROBES,
    }
    if sys.platform == "linux":
        options[socket.TCP_USER_TIMEOUT] = USER_TIMEOUT * 1000
    return options


def equip_psycopg(connection: Any, settings: DatabaseSettings) -> None:
    """Set on a new psycopg connection what no argument of it can."""
    if settings.statement_cache_size:
        connection.prepared_max = settings.statement_cache_size
    # PostgreSQL's statement_timeout does not bound a COMMIT, nor a pooler's wait for a server.
    connection.command_timeout = settings.command_timeout
    connection.statement_limit = settings.command_timeout if settings.poolers else None


def equip_transport(connection: Any, settings: DatabaseSettings) -> None:
    """Switch keepalive on for an asyncpg or asyncmy connection, which no argument does."""
    keep_alive(transport_of(connection).get_extra_info("socket"), settings.tcp_keepalive)


def equip_aiomysql(connection: Any, settings: DatabaseSettings) -> None:
    """Set on a new aiomysql connection what no argument of it can, and refuse one in the clear.

    Raises:
        ConnectionError: TLS was required and the server has none, which aiomysql accepts.
    """
    transport = transport_of(connection)
    optional = {None, TlsMode.DISABLE, TlsMode.PREFER}
    if settings.tls not in optional and transport.get_extra_info("ssl_object") is None:
        raise ConnectionError(f"tls={settings.tls}, but the server does not support SSL")
    keep_alive(transport.get_extra_info("socket"), settings.tcp_keepalive)


def _listen_first(engine: Engine, listener: Callable[..., None]) -> None:
    """Have a listener see the arguments of a connect in front of what connects by them.

    SQLAlchemy passes over ``insert=True`` for this event.
    """
    others = list(engine.dialect.dispatch.do_connect)
    for other in others:
        event.remove(engine, "do_connect", other)
    for each in (listener, *others):
        event.listen(engine, "do_connect", each)


class ReadOnlyConnections:
    """Whether connections may be kept read-only by a setting of their server session.

    They may on asyncpg, with a :class:`PenstockPool`, and where each connection has a server
    session to itself: a pooler would give a session that is kept read-only to a client that writes.
    The first connection shows whether a pooler is in between, and the settings are checked against
    what it is.

    Args:
        engine: Not connected yet.
        settings: Its database's; a ``proxy`` that pools rules it out.

    Attributes:
        are_possible: Whether they may; False before the first connection is open.
        pooler: What was found in between; None for nothing, or before the first connection.
    """

    def __init__(self, engine: AsyncEngine, settings: DatabaseSettings) -> None:
        self.are_possible = False
        self.pooler: Pooler | None = None
        self._settings = settings
        self._open_other: Callable[[], Any] | None = None
        is_pooled = settings.driver == "asyncpg" and isinstance(engine.pool, PenstockPool)
        self._may_be_possible = is_pooled and not settings.poolers
        if settings.driver in ("asyncpg", "psycopg"):
            # Before SQLAlchemy's own questions, which a statement pooler refuses.
            _listen_first(engine.sync_engine, self._keep_arguments)
            event.listen(engine.sync_engine, "first_connect", self._look, insert=True)
            event.listen(engine.sync_engine, "connect", self._mark)
        self._driver = driver_of(engine.dialect)
        self._marks_shared = is_pooled and self._driver.is_pipelined

    @property
    def finding(self) -> Finding | None:
        """What does not suit the pooler in between; None where all does, or there is none."""
        return pooler_finding(self.pooler, self._settings)

    @property
    def shares_server(self) -> bool:
        """Whether each transaction is known to get another's server connection, and its state."""
        return self.pooler is not None and self.pooler.pool_mode == "transaction"

    def check_keeps_state(self) -> None:
        """Check that what a connection sets in its session stays there for its next transaction.

        Raises:
            PenstockError: A pooler gives the server's session to others.
        """
        if self.shares_server:
            raise PenstockError(
                "keep_state=True: the pooler in between (pool_mode=transaction) gives the "
                "server connection to other clients after each transaction; use a database "
                "of its own whose URL leads past the pooler"
            )

    def _keep_arguments(self, dialect: Dialect, _: Any, args: Any, arguments: Any) -> None:
        if self._open_other is None:
            self._open_other = partial(dialect.connect, *args, **arguments)

    def _mark(self, connection: Any, _: Any) -> None:
        if self._marks_shared:
            connection.is_shared = not self.are_possible
        if isinstance(connection, TransactionTrace):
            connection.refuses_state = self.shares_server
            if self.pooler is not None:
                connection.followed_at_first = self._driver.followed_settings(connection)

    def _look(self, connection: Any, _: Any) -> None:
        settings, opened = self._settings, connection.driver_connection
        pooler = await_(_looked(find_pooler(opened, settings), settings))
        if pooler is not None:
            if pooler.pool_mode is None and self._is_shared(connection):
                pooler = replace(pooler, pool_mode="transaction")
            await_(_looked(check_settings(opened, pooler, settings), settings))
        self.pooler, self._open_other = pooler, None
        self.are_possible = self._may_be_possible and self.pooler is None
        if pooler is not None:
            _logger.info("The connections lead through %s.", pooler)
        if (finding := self.finding) is not None:
            _logger.warning("%s", finding)

    def _is_shared(self, connection: Any) -> bool:
        if self._open_other is None:
            return False
        try:
            other = self._open_other()
        except Exception as error:  # noqa: BLE001 - there may be room for one connection only
            _logger.debug("The pool mode is not known: %s", error)
            return False
        try:
            drivers = connection.driver_connection, other.driver_connection
            return await_(_in_time(share_server(*drivers, self._settings)))
        finally:
            close_at_once(other.driver_connection, self._settings)


async def _looked(answer: Awaitable[Answer], settings: DatabaseSettings) -> Answer:
    """Wait for ``connect_timeout``: the pooler may have no server connection to answer by."""
    limit = asyncio.timeout(settings.connect_timeout)
    try:
        async with limit:
            return await answer
    except SettingsError:
        raise
    except Exception as error:
        raise connect_failed(settings, error, timed_out=limit.expired()) from error


async def _in_time(answer: Awaitable[bool]) -> bool:
    # In session mode the other one waits where there is a server connection for one client only.
    try:
        async with asyncio.timeout(_LONGEST_COMPARISON):
            return await answer
    except Exception as error:  # noqa: BLE001 - such as that the pooler understands no PREPARE
        _logger.debug("The pool mode is not known: %s", error)
        return False


_LONGEST_COMPARISON = 1.0
"""Seconds."""


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

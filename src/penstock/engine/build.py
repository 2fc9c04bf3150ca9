"""From settings to an engine, and the numbers of its pool."""

import math
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Self, TypedDict

from sqlalchemy import URL, event, make_url
from sqlalchemy.engine import Dialect
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.pool import NullPool, QueuePool

from penstock.base_error import SettingsError
from penstock.credentials import CredentialsProvider, ServerCredentials, file_credentials
from penstock.credentials.cache import CredentialCache, CredentialSource
from penstock.drivers.capabilities import driver_of
from penstock.drivers.sqlalchemy_internals import max_overflow
from penstock.engine.address import server_of
from penstock.engine.connect_arguments import connect_arguments
from penstock.engine.connector import is_one_connection, prepare_sqlite
from penstock.engine.standby import Accepts
from penstock.engine.timeouts import explain_timeouts
from penstock.pool import PenstockPool, PoolSnapshot
from penstock.pool.errors import clear_traceback
from penstock.settings import DatabaseSettings
from penstock.telemetry.statement_watch import record_statements

_HAVE_A_SETTING = {
    "application_name": "application_name",
    "async_creator_fn": "async_creator",
    "command_timeout": "command_timeout",
    "connect_timeout": "connect_timeout",
    "prepared_statement_cache_size": "statement_cache_size",
    "statement_cache_size": "statement_cache_size",
    "timeout": "connect_timeout",
}
"""Names in ``connect_args``, and what is to be used in their place."""


class EngineKeywords(TypedDict, total=False):
    """The arguments of :class:`EngineOptions` as keywords, for editors and type checkers."""

    json_serializer: Callable[[Any], str] | None
    json_deserializer: Callable[[str], Any] | None
    connect_args: Mapping[str, Any]
    execution_options: Mapping[str, Any]
    async_creator: Callable[[], Awaitable[Any]] | None
    credentials: CredentialsProvider | ServerCredentials | None


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineOptions:
    """What ``create_async_engine`` takes as well, by its names there.

    Args:
        json_serializer: Makes the text of a JSON value; None for ``json.dumps``.
        json_deserializer: Makes a JSON value of its text; None for ``json.loads``.
        connect_args: Further arguments of the driver's ``connect``. Its ``server_settings`` are
            added to those of the settings.
        execution_options: For every statement, such as ``schema_translate_map``. With any, the
            express lane runs by sessions.
        async_creator: Opens a connection of the driver, in the place of its ``connect``, without
            arguments: neither the URL nor the settings of the connection reach it.
        credentials: Brings user and password of new connections, in the place of the URL's.

    Raises:
        SettingsError: An argument is something else, or has a setting.
    """

    json_serializer: Callable[[Any], str] | None = None
    json_deserializer: Callable[[str], Any] | None = None
    connect_args: Mapping[str, Any] = field(default_factory=dict, repr=False)
    execution_options: Mapping[str, Any] = field(default_factory=dict)
    async_creator: Callable[[], Awaitable[Any]] | None = None
    credentials: CredentialsProvider | ServerCredentials | CredentialSource | None = field(
        default=None, repr=False
    )

    def __post_init__(self) -> None:
        for name in ("json_serializer", "json_deserializer", "async_creator"):
            value = getattr(self, name)
            if value is not None and not callable(value):
                raise SettingsError(f"{name}: a function is accepted, not {_kind(value)}")
        self._check_credentials()
        for name in ("connect_args", "execution_options"):
            value = getattr(self, name)
            if not isinstance(value, Mapping):
                raise SettingsError(f"{name}: values by name are accepted, not {_kind(value)}")
        for name in self.connect_args:
            if name in _HAVE_A_SETTING:
                raise SettingsError(
                    f"connect_args: its {name} has an argument: {_HAVE_A_SETTING[name]}"
                )
        if "isolation_level" in self.execution_options:
            raise SettingsError("execution_options: its isolation_level is a setting")

    def _check_credentials(self) -> None:
        given = self.credentials
        if given is not None and self.async_creator is not None:
            raise SettingsError("credentials: an async_creator logs in by itself")
        is_provider = callable(given) or isinstance(given, ServerCredentials | CredentialSource)
        if given is not None and not is_provider:
            raise SettingsError(f"credentials: a function is accepted, not {_kind(given)}")

    @classmethod
    def among(cls, given: Mapping[str, Any]) -> tuple[Self, dict[str, Any]]:
        """Take the options from among the arguments of a database.

        Args:
            given: The options, and settings.

        Returns:
            The options, and the rest.
        """
        names = {each.name for each in fields(cls)}
        own = {name: value for name, value in given.items() if name in names}
        return cls(**own), {name: value for name, value in given.items() if name not in names}

    def of_engine(self) -> dict[str, Any]:
        """Return the arguments of ``create_async_engine``."""
        given = {
            "json_serializer": self.json_serializer,
            "json_deserializer": self.json_deserializer,
            "execution_options": dict(self.execution_options),
        }
        return {name: value for name, value in given.items() if value}

    def of_connect(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """Return the arguments of the driver's ``connect``.

        Args:
            arguments: What the settings have become.
        """
        merged = {**arguments, **self.connect_args}
        if "server_settings" in self.connect_args:
            ours = arguments.get("server_settings", {})
            merged["server_settings"] = {**ours, **self.connect_args["server_settings"]}
        return merged


def _kind(value: object) -> str:
    return type(value).__name__


MARGIN = 5.0
"""Seconds by which the pool waits longer for a connection than the driver may take: the driver's
limit is exact and its error says more; and what SQLAlchemy asks of a new connection adds to it."""

PING_AFTER = 0.5
"""Seconds after its last use for which a connection is checked out without a ping under
``pool_pre_ping``; HikariCP's default, com.zaxxer.hikari.aliveBypassWindowMs."""

_NO_OPTIONS = EngineOptions()

# SQLAlchemy's StaticPool hands out the one connection to all at once, so that one request's
# rollback undoes what another has written, acknowledged or not. This hands out it to one at a
# time, and nothing but its own end replaces it: a ping that a busy event loop answers late would
# empty the database.
ONE_CONNECTION: Mapping[str, Any] = {
    "pool_size": 1,
    "max_overflow": 0,
    "pool_recycle": -1,
    "min_idle": 0,
    "keepalive": 0,
    "idle_before_ping": math.inf,
    "reclaim_leaks": False,
}


class _Unpooled(NullPool):
    """Opens a connection for each caller; where that fails, the password is in no frame."""

    def _do_get(self) -> Any:
        try:
            return super()._do_get()
        except BaseException as error:
            clear_traceback(error)
            raise


def build_engine(
    settings: DatabaseSettings,
    options: EngineOptions = _NO_OPTIONS,
    *,
    accepts: Accepts | None = None,
) -> AsyncEngine:
    """Make the engine that the settings describe; nothing is connected yet.

    Args:
        settings: Of one database. ``docs/engine.md`` says what each becomes for each driver.
        options: What is given in Python alone.
        accepts: Looks at each connection of asyncpg's to the server that writes; None for any.

    Returns:
        An engine whose failures to connect are ``ConnectFailed``.

    Raises:
        SettingsError: The driver is not installed, or cannot do what a setting asks for.
    """
    source = credential_source(settings, options)
    credentials = None if source is None else source.cache_of(server_of(settings))
    arguments = options.of_connect(
        connect_arguments(settings, options.async_creator, credentials, accepts)
    )
    url = make_url(settings.url.get_secret_value())
    engine = create_async_engine(
        url,
        connect_args=arguments,
        echo=settings.echo,
        hide_parameters=not settings.shows_values,
        **_pool(settings, url),
        **_isolation(settings),
        **options.of_engine(),
    )
    if engine.dialect.name == "postgresql" and not settings.keeps_connections:
        _adapt_connections(engine)
    explain_timeouts(engine.sync_engine, settings)
    if settings.driver == "aiosqlite":
        prepare_sqlite(engine.sync_engine, settings)
    if isinstance(engine.pool, PenstockPool):
        if settings.leak_after is not None:
            record_statements(engine.sync_engine)
        if credentials is not None:
            engine.pool.limit_age(_age_limit(credentials))
    return engine


def credential_source(
    settings: DatabaseSettings, options: EngineOptions
) -> CredentialSource | None:
    """Return where a database's credentials come from, for all of its engines; None for the URL.

    Args:
        settings: With a ``credentials_file``, or not.
        options: With ``credentials``, or not.

    Raises:
        SettingsError: There are both, or it is SQLite.
    """
    if isinstance(options.credentials, CredentialSource):
        return options.credentials
    provider, path = options.credentials, settings.credentials_file
    if provider is not None and path is not None:
        raise SettingsError("credentials, credentials_file: one of them is accepted")
    if path is not None:
        provider = file_credentials(path)
    if provider is None:
        return None
    if settings.driver == "aiosqlite":
        raise SettingsError("credentials: SQLite has no server to log in to: leave it out")
    return CredentialSource(provider, settings.connect_timeout / 2)


def _age_limit(credentials: CredentialCache) -> Callable[[], float]:
    return lambda: credentials.max_age


def _adapt_connections(engine: AsyncEngine) -> None:
    """Have transactions begin on connections that are not kept as they do on those of a pool."""

    @event.listens_for(engine.sync_engine, "do_connect")
    def connect(dialect: Dialect, _: object, arguments: Any, options: Any) -> Any:
        try:
            connection = driver_of(dialect).adapt(dialect.connect(*arguments, **options))
        finally:
            del arguments, options  # with the password, which the frames of a failure would keep
        if hasattr(connection, "is_shared"):
            # Its close would overtake the answer to a ROLLBACK: a pooler would drop the server's.
            connection.is_shared = True
        return connection


def _isolation(settings: DatabaseSettings) -> dict[str, Any]:
    # PostgreSQL gets it at a connection's start: for the express lane as well.
    is_mysql = settings.driver in ("asyncmy", "aiomysql")
    level = settings.isolation_level
    return {"isolation_level": level.value} if is_mysql and level is not None else {}


def _pool(settings: DatabaseSettings, url: URL) -> dict[str, Any]:
    if settings.driver == "aiosqlite" and is_one_connection(url):
        return {**_queue(settings), **ONE_CONNECTION}
    return _queue(settings) if settings.keeps_connections else {"poolclass": _Unpooled}


def _queue(settings: DatabaseSettings) -> dict[str, Any]:
    return {
        "poolclass": PenstockPool,
        # The one used last is warm: its server process, its socket and what the caches hold of it.
        "pool_use_lifo": True,
        "connect_timeout": _longest_connect(settings) + MARGIN,
        "connect_retry": _connect_retry(settings),
        "pool_size": settings.pool_size,
        "max_overflow": settings.max_overflow,
        "pool_timeout": settings.pool_timeout,
        "pool_recycle": settings.pool_recycle,
        "min_idle": settings.min_idle,
        "max_waiting": settings.max_waiting,
        "codel_target": settings.codel_target,
        "codel_interval": settings.codel_interval,
        "overflow_idle": settings.overflow_idle,
        "keepalive": settings.keepalive,
        "idle_before_ping": _idle_before_ping(settings),
        "leak_after": settings.leak_after,
        "reclaim_leaks": settings.reclaim_leaks,
        "nested_checkout": settings.nested_checkout,
    }


def _idle_before_ping(settings: DatabaseSettings) -> float:
    if settings.pool_pre_ping:
        return min(PING_AFTER, settings.idle_before_ping)
    return settings.idle_before_ping


def _connect_retry(settings: DatabaseSettings) -> float | None:
    is_held = settings.is_clustered or settings.hold_writes == 0
    return settings.hold_writes if is_held else None


def _longest_connect(settings: DatabaseSettings) -> float:
    # A file is opened at once, but its first pragma may have to wait for another's lock.
    return settings.command_timeout if settings.driver == "aiosqlite" else settings.connect_timeout


def pool_snapshot(engine: AsyncEngine) -> PoolSnapshot:
    """Read the numbers of an engine's pool.

    Args:
        engine: Any engine, not only one from ``build_engine``.

    Returns:
        The numbers at this moment. All are 0 where the pool keeps no count, as in serverless
        (``NullPool``).
    """
    pool = engine.pool
    if isinstance(pool, PenstockPool):
        return pool.snapshot()
    if not isinstance(pool, QueuePool):
        return PoolSnapshot(size=0, limit=0, checked_in=0, checked_out=0, overflow=0)
    size = pool.size()
    return PoolSnapshot(
        size=size,
        limit=size + max_overflow(pool),
        checked_in=pool.checkedin(),
        checked_out=pool.checkedout(),
        # A pool that has not opened all of its connections counts the missing ones as negative.
        overflow=max(0, pool.overflow()),
    )

"""From settings to an engine."""

import math
from collections.abc import Mapping
from typing import Any

from sqlalchemy import URL, event, make_url
from sqlalchemy.engine import Dialect
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.pool import NullPool

from penstock.drivers.capabilities import driver_of
from penstock.engine.driver import connect_arguments
from penstock.engine.options import EngineOptions
from penstock.engine.sqlite import is_one_connection, prepare_sqlite
from penstock.engine.statements import note_statements
from penstock.engine.timeouts import explain_timeouts
from penstock.pool import PenstockPool
from penstock.pool.failure import let_go
from penstock.settings import DatabaseSettings

__all__ = ["build_engine"]

MARGIN = 5.0
"""Seconds by which the pool waits longer for a connection than the driver may take: the driver's
limit is exact and its error says more; and what SQLAlchemy asks of a new connection adds to it."""

TRUSTED_FOR = 0.5
"""Seconds after its last use for which a connection is lent without a ping under
``pool_pre_ping``; HikariCP's default, com.zaxxer.hikari.aliveBypassWindowMs."""

_NO_OPTIONS = EngineOptions()

# SQLAlchemy's StaticPool lends the one connection to all at once, so that one request's rollback
# undoes what another has written, acknowledged or not. This lends it to one at a time, and nothing
# but its own end replaces it: a ping that a busy event loop answers late would empty the database.
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
            let_go(error)
            raise


def build_engine(settings: DatabaseSettings, options: EngineOptions = _NO_OPTIONS) -> AsyncEngine:
    """Make the engine that the settings describe; nothing is connected yet.

    Args:
        settings: Of one database. ``docs/engine.md`` says what each becomes for each driver.
        options: What is given in Python alone.

    Returns:
        An engine whose failures to connect are ``ConnectFailed``.

    Raises:
        SettingsError: The driver is not installed, or cannot do what a setting asks for.
    """
    arguments = options.of_connect(connect_arguments(settings, options.async_creator))
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
    if settings.leak_after is not None and isinstance(engine.pool, PenstockPool):
        note_statements(engine.sync_engine)
    return engine


def _adapt_connections(engine: AsyncEngine) -> None:
    """Have transactions begin on connections that are not kept as they do on those of a pool."""

    @event.listens_for(engine.sync_engine, "do_connect")
    def connect(dialect: Dialect, _: object, arguments: Any, options: Any) -> Any:
        try:
            connection = driver_of(dialect).adapt(dialect.connect(*arguments, **options))
        finally:
            del arguments, options  # with the password, which the frames of a failure would keep
        if hasattr(connection, "is_shared"):
            # Its close would overtake the answer to a ROLLBACK, and a pooler give up the server's.
            connection.is_shared = True
        return connection


def _isolation(settings: DatabaseSettings) -> dict[str, Any]:
    # To PostgreSQL it is told as a connection starts: for the express lane as well.
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
        return min(TRUSTED_FOR, settings.idle_before_ping)
    return settings.idle_before_ping


def _longest_connect(settings: DatabaseSettings) -> float:
    # A file is opened at once, but its first pragma may have to wait for another's lock.
    return settings.command_timeout if settings.driver == "aiosqlite" else settings.connect_timeout

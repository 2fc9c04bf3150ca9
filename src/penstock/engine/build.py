"""From settings to an engine."""

from typing import Any

from sqlalchemy import URL, make_url
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.pool import AsyncAdaptedQueuePool, NullPool

from penstock.engine.driver import connect_arguments
from penstock.engine.sqlite import is_one_connection, prepare_sqlite
from penstock.settings import DatabaseSettings, Environment

__all__ = ["build_engine"]


def build_engine(settings: DatabaseSettings) -> AsyncEngine:
    """Make the engine that the settings describe; nothing is connected yet.

    Args:
        settings: Of one database. ``docs/engine.md`` says what each becomes for each driver.

    Returns:
        An engine whose failures to connect are ``ConnectFailed``.

    Raises:
        SettingsError: The driver is not installed, or cannot do what a setting asks for.
    """
    arguments = connect_arguments(settings)
    url = make_url(settings.url.get_secret_value())
    engine = create_async_engine(
        url,
        connect_args=arguments,
        echo=settings.echo,
        # Values are people's data; only a developer's own terminal may show them.
        hide_parameters=settings.environment is not Environment.DEVELOPMENT,
        **_pool(settings, url),
    )
    if settings.driver == "aiosqlite":
        prepare_sqlite(engine.sync_engine, settings)
    return engine


def _pool(settings: DatabaseSettings, url: URL) -> dict[str, Any]:
    if settings.driver == "aiosqlite" and is_one_connection(url):
        return _one_connection(settings)
    if not settings.keeps_connections:
        return {"poolclass": NullPool}
    return {
        "poolclass": AsyncAdaptedQueuePool,
        "pool_size": settings.pool_size,
        "max_overflow": settings.max_overflow,
        "pool_timeout": settings.pool_timeout,
        "pool_recycle": settings.pool_recycle,
        "pool_pre_ping": settings.pool_pre_ping,
        "pool_use_lifo": False,
        "pool_reset_on_return": "rollback",
    }


def _one_connection(settings: DatabaseSettings) -> dict[str, Any]:
    """Lend the one connection to one borrower at a time, and never replace it.

    SQLAlchemy's ``StaticPool`` lends it to all at once, so that one request's rollback undoes
    what another has written, acknowledged or not.
    """
    return {
        "poolclass": AsyncAdaptedQueuePool,
        "pool_size": 1,
        "max_overflow": 0,
        "pool_timeout": settings.pool_timeout,
        "pool_reset_on_return": "rollback",
    }

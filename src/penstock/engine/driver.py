"""Which driver takes which arguments, and how its connections are opened."""

import importlib
from collections.abc import Awaitable, Callable
from typing import Any

from penstock.engine.connector import Connector
from penstock.engine.mysql import equip_aiomysql, equip_asyncmy, mysql_arguments
from penstock.engine.postgresql import (
    asyncpg_arguments,
    equip_asyncpg,
    equip_psycopg,
    psycopg_arguments,
    without_client_check,
)
from penstock.engine.sqlite import sqlite_arguments
from penstock.errors import SettingsError
from penstock.settings import DatabaseSettings, Driver

__all__ = ["connect_arguments"]

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

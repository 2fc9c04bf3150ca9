"""What is known of the driver behind a dialect."""

from typing import Any

from penstock.drivers.aiosqlite import Aiosqlite
from penstock.drivers.asyncpg import Asyncpg
from penstock.drivers.driver import Driver
from penstock.drivers.mysql import Mysql
from penstock.drivers.psycopg import Psycopg

__all__ = ["driver_of"]

_DRIVERS: dict[str, type[Driver]] = {
    "aiomysql": Mysql,
    "aiosqlite": Aiosqlite,
    "asyncmy": Mysql,
    "asyncpg": Asyncpg,
    "psycopg": Psycopg,
    "psycopg_async": Psycopg,
}


def driver_of(dialect: Any) -> Driver:
    """Return what is known of the driver behind a dialect.

    Args:
        dialect: SQLAlchemy's, or what stands for it in a pool without an engine.
    """
    return _DRIVERS.get(getattr(dialect, "driver", ""), Driver)()

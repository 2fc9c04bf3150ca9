"""Bringing a database to the schema that this version of the service needs."""

from pathlib import Path

from alembic import command
from alembic.config import Config
from sqlalchemy import Connection

from penstock.database import Database

__all__ = ["upgrade"]

_SCRIPTS = Path(__file__).parents[1] / "migrations"


async def upgrade(database: Database) -> None:
    """Create or migrate the users' table, by Alembic, in one transaction.

    Args:
        database: PostgreSQL or SQLite; a table that is up to date already stays as it is.

    Raises:
        ConnectFailed: The server cannot be reached.
        sqlalchemy.exc.DBAPIError: The server refused a statement; nothing was changed.
    """
    async with database.engine.begin() as connection:
        await connection.run_sync(_upgrade)


def _upgrade(connection: Connection) -> None:
    config = Config(attributes={"connection": connection})
    config.set_main_option("script_location", str(_SCRIPTS).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    command.upgrade(config, "head")

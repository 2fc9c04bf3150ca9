"""A database that the demo may fill, and how a worker finds it."""

import json
import os
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError

from penstock.base_error import PenstockError, SettingsError
from penstock.database import Database
from penstock.pool import ConnectFailed
from penstock.settings import DatabaseSettings, Environment, settings_from_environment

_PREFIX = "DATABASE_"


@dataclass(frozen=True, slots=True)
class Storage:
    """A database that the demo may fill.

    Args:
        kind: What it is, for people.
        settings: How the demo itself connects.
        variables: The environment variables with which a worker connects; they hold passwords.
    """

    kind: str
    settings: DatabaseSettings
    variables: Mapping[str, str]


def without_database_variables() -> dict[str, str]:
    """Return the environment without the variables that penstock reads a database from."""
    return {
        name: value for name, value in os.environ.items() if not name.upper().startswith(_PREFIX)
    }


def sqlite_file(directory: Path) -> Storage:
    """Return an SQLite database in a directory, removed together with it."""
    url = f"sqlite+aiosqlite:///{directory / 'users.db'}"
    return Storage(
        kind="SQLite",
        settings=DatabaseSettings.of(url, echo=False),
        variables={**without_database_variables(), "DATABASE_URL": url},
    )


_SUPPORTED = ("asyncpg", "psycopg")


class OwnSchema:
    """A schema with a random name, and all that the demo writes to the server.

    The settings are those of the process's environment; a ``.env`` file is not read, because it
    rather belongs to a service than to the demo.

    Raises:
        SettingsError: ``DATABASE_URL`` is malformed or not PostgreSQL's, or another setting is
            wrong.
    """

    def __init__(self) -> None:
        self._settings = settings_from_environment(env_file=None)
        if self._settings.driver not in _SUPPORTED:
            raise SettingsError(
                f"DATABASE_URL: the demo keeps its users in a schema of its own, which "
                f"{self._settings.driver} has not; a postgresql URL is accepted. Without "
                "DATABASE_URL the demo starts a PostgreSQL itself."
            )
        self.name = f"penstock_demo_{secrets.token_hex(4)}"
        self._created = False

    async def start(self) -> Storage:
        """Create the schema.

        Raises:
            ConnectFailed: The server cannot be reached.
            PenstockError: It refused.
        """
        await self._execute(f"CREATE SCHEMA {self.name}", "could not be created")
        self._created = True
        server_settings = {**self._settings.server_settings, "search_path": self.name}
        update = {"server_settings": server_settings, "echo": False}
        return Storage(
            kind=f"PostgreSQL of DATABASE_URL, schema {self.name}",
            settings=self._settings.model_copy(update=update),
            variables={**os.environ, "DATABASE_SERVER_SETTINGS": json.dumps(server_settings)},
        )

    async def stop(self) -> None:
        """Drop the schema with everything in it, if it was created.

        Raises:
            PenstockError: It could not be dropped; the message names it.
        """
        if self._created:
            await self._execute(f"DROP SCHEMA {self.name} CASCADE", "could not be dropped")

    async def _execute(self, statement: str, failure: str) -> None:
        database = Database(_for_one_statement(self._settings))
        try:
            async with database.write() as session:
                await session.execute(text(statement))
        except ConnectFailed:
            raise
        except SQLAlchemyError as error:
            reason = getattr(error, "orig", None) or error
            raise PenstockError(f"The schema {self.name} {failure}: {reason}") from error
        finally:
            await database.close()


def _for_one_statement(settings: DatabaseSettings) -> DatabaseSettings:
    return settings.model_copy(update={"environment": Environment.SERVERLESS, "echo": False})

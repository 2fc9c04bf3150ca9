"""The users service as an application."""

import asyncio
from http import HTTPStatus
from pathlib import Path

from alembic import command
from alembic.config import Config
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse

from penstock.database import Database
from penstock.demo.users.model import Passwords
from penstock.demo.users.routes import router
from penstock.fastapi import install


async def refuse(_: Request, error: Exception) -> JSONResponse:
    """Answer 422 with each mistake's place and reason.

    FastAPI's own answer quotes the input, which would send a password back, into whatever log
    keeps responses, and it fails on text that is no valid Unicode.

    Args:
        error: The ``RequestValidationError``.
    """
    status = HTTPStatus.UNPROCESSABLE_ENTITY
    mistakes = error.errors() if isinstance(error, RequestValidationError) else []
    return JSONResponse(
        {
            "title": status.phrase,
            "status": status.value,
            "code": "invalid_request",
            "detail": "The request is malformed.",
            "errors": [
                {"where": list(mistake["loc"]), "why": mistake["msg"]} for mistake in mistakes
            ],
        },
        status_code=status.value,
        media_type="application/problem+json",
    )


_SCRIPTS = Path(__file__).parents[1] / "migrations"


async def upgrade(database: Database) -> None:
    """Create or migrate the users' table, by Alembic, on a connection of its own.

    Args:
        database: PostgreSQL or SQLite; a table that is up to date already stays as it is.

    Raises:
        ConnectFailed: The server cannot be reached.
        MigrationFailed: A lock was not to be had.
        sqlalchemy.exc.DBAPIError: The server refused a statement; nothing was changed.
    """
    config = Config(attributes={"settings": database.settings})
    config.set_main_option("script_location", str(_SCRIPTS).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    await asyncio.to_thread(command.upgrade, config, "head")


def create_app(database: Database | None = None) -> FastAPI:
    """Make the users service.

    ``uvicorn penstock.demo.users:create_app --factory`` serves it; `upgrade` makes its table.

    Args:
        database: Where the users are; None for the one that ``DATABASE_URL`` and the other
            variables of `Database.from_environment` describe.

    Raises:
        SettingsError: ``database`` is None and a variable is missing or wrong.
    """
    app = FastAPI(title="Users", description="The reference service of Penstock.")
    app.state.passwords = Passwords()
    app.add_exception_handler(RequestValidationError, refuse)
    app.include_router(router)
    install(app, database or Database.from_environment())
    return app

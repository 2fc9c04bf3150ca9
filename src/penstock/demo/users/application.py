"""The users service as an application."""

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError

from penstock.database import Database
from penstock.demo.users.passwords import Passwords
from penstock.demo.users.routes import router
from penstock.demo.users.validation import refuse
from penstock.fastapi import install

__all__ = ["create_app"]


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

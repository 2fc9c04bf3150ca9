"""A service with its live page, which in production takes an access dependency."""

from fastapi import FastAPI

from penstock import Database
from penstock.fastapi import install


async def anybody() -> None:
    """Let everybody look."""


database = Database.from_environment()
app = FastAPI()
install(app, database, access=anybody)

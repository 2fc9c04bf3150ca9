"""Users to begin with."""

import secrets
from collections.abc import Callable

from pydantic import SecretStr
from sqlalchemy import insert

from penstock.database import Database
from penstock.demo.users.model import User
from penstock.demo.users.passwords import Passwords

__all__ = ["seed"]

_ROWS_AT_ONCE = 1000


async def seed(database: Database, users: int, on_progress: Callable[[int], None]) -> None:
    """Insert users into an empty table, in one transaction.

    All have the hash of one random password that nobody is told: thousands of hashes would take
    minutes.

    Args:
        database: Migrated.
        users: How many.
        on_progress: Called with the number of inserted users after each thousand.
    """
    hashed_password = await Passwords().hash(SecretStr(secrets.token_urlsafe()))
    async with database.write() as session:
        for first in range(1, users + 1, _ROWS_AT_ONCE):
            last = min(first + _ROWS_AT_ONCE - 1, users)
            rows = [
                {
                    "email": f"user{number}@example.com",
                    "username": f"user{number}",
                    "hashed_password": hashed_password,
                }
                for number in range(first, last + 1)
            ]
            await session.execute(insert(User), rows)
            on_progress(last)

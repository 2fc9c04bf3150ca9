"""The pools of the peers that are written by hand on asyncpg."""

import os
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import asyncpg
from fastapi import FastAPI

__all__ = ["leave_as_it_is", "pool_of_app"]

DATABASE_URL = os.environ.get("DATABASE_URL", "").replace("+asyncpg", "")


def pool_of_app(**options: Any) -> Callable[[FastAPI], AbstractAsyncContextManager[None]]:
    """Return a lifespan that opens ``app.state.pool`` and closes it at the end.

    Args:
        options: Of ``asyncpg.create_pool``, beyond its size.
    """

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with asyncpg.create_pool(DATABASE_URL, min_size=20, max_size=50, **options) as pool:
            app.state.pool = pool
            yield

    return lifespan


async def leave_as_it_is(connection: Any) -> None:
    """Reset nothing, which saves a round trip per lease; the next one has the state of this."""

"""The pools that are compared, each under an engine of its own on one database."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.pool import AsyncAdaptedQueuePool

from penstock import PenstockPool

POOLS: dict[str, type[AsyncAdaptedQueuePool]] = {
    "penstock": PenstockPool,
    "stock": AsyncAdaptedQueuePool,
}


@asynccontextmanager
async def engine_on(database_url: str, pool: str, **settings: Any) -> AsyncIterator[AsyncEngine]:
    """Give an engine over one of ``POOLS`` for the length of a block.

    Args:
        database_url: Where it connects to.
        pool: Name of the pool.
        settings: Arguments of ``create_async_engine``.
    """
    engine = create_async_engine(database_url, poolclass=POOLS[pool], **settings)
    try:
        yield engine
    finally:
        await engine.dispose()


async def fill(engine: AsyncEngine, connections: int) -> None:
    """Open connections by checkout that many at once."""
    async with AsyncExitStack() as stack, asyncio.timeout(60):
        for _ in range(connections):
            await stack.enter_async_context(engine.connect())


def turns(rounds: int) -> list[str]:
    """Return who has its turn when: every pool once a round, and none of them always first."""
    names = list(POOLS)
    return [name for turn in range(rounds) for name in names[:: -1 if turn % 2 else 1]]

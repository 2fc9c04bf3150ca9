"""What the server says of itself, asked on a connection that nobody needs at the moment."""

import logging
from importlib.resources import files
from math import nan
from typing import Any

import asyncpg
from sqlalchemy.ext.asyncio import AsyncEngine

from penstock.pool import PenstockPool

__all__ = ["ServerNumbers", "server_numbers"]

_logger = logging.getLogger(__name__)
_SQL = files("penstock.database").joinpath("server_numbers.sql").read_text()
ANSWER_WITHIN = 2.0
"""Seconds; a server that takes longer is asked again later."""

ServerNumbers = tuple[float, float, float, float]


async def server_numbers(engine: AsyncEngine) -> ServerNumbers | None:
    """Ask the server, if a connection is idle; it counts as no loan.

    Args:
        engine: On asyncpg, with a :class:`PenstockPool`.

    Returns:
        Connections of everybody, how many the server accepts, and the lag of the replica furthest
        behind in bytes and in seconds, NaN for what is not known; None where nobody could ask.
    """
    pool = engine.pool
    assert isinstance(pool, PenstockPool)  # noqa: S101 - as Database has looked
    try:
        return await pool.ask(_numbers, ANSWER_WITHIN)
    except (OSError, asyncpg.InterfaceError, TimeoutError) as error:
        _logger.debug("The server did not say its numbers: %s", error)
        return None


async def _numbers(adapter: Any) -> ServerNumbers | None:
    try:
        row = await adapter._connection.fetchrow(_SQL)  # noqa: SLF001 - asyncpg's own
    except asyncpg.PostgresError as error:
        _logger.debug("The server does not say its numbers: %s", error)
        return None
    connections, accepted, lag_bytes, lag_seconds = (nan if v is None else float(v) for v in row)
    return connections, accepted, lag_bytes, lag_seconds

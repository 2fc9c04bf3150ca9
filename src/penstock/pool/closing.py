"""Closing a connection within a bound, and seeing the server's process off."""

import asyncio
import contextlib
import logging
import os
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from sqlalchemy.util import greenlet_spawn

if TYPE_CHECKING:
    from penstock.pool.keeper import Keeper

__all__ = ["abandon", "shut"]

_logger = logging.getLogger("penstock.pool")

CLOSE_TIMEOUT = 5.0
"""Seconds for the server to end a connection's process; then the socket is dropped."""


async def shut(keeper: "Keeper", connection: Any, close: Callable[[], None]) -> None:
    """Close a connection, and wait until the server has hung up, too; both within a bound.

    Args:
        keeper: Who looks after its pool.
        connection: SQLAlchemy's adapter around the driver's connection.
        close: What closes it. Runs in a greenlet.
    """
    try:
        async with asyncio.timeout(CLOSE_TIMEOUT), _seen_off(keeper, connection):
            await greenlet_spawn(close)
    except Exception:
        _logger.debug("A connection did not close in time or properly", exc_info=True)
        abandon(keeper, connection)
    except BaseException:
        abandon(keeper, connection)
        raise


def abandon(keeper: "Keeper", connection: Any) -> None:
    """Drop a connection that does not close: outside a greenlet this waits for nothing."""
    with contextlib.suppress(Exception):
        keeper.driver_of(connection).abandon(keeper.dialect, connection)


@asynccontextmanager
async def _seen_off(keeper: "Keeper", connection: Any) -> AsyncIterator[None]:
    number = keeper.driver_of(connection).sees_off(connection)
    if number is None:
        yield
        return
    with socket.socket(fileno=os.dup(number)) as copy:
        copy.setblocking(False)
        yield
        with contextlib.suppress(OSError):
            while await keeper.loop.sock_recv(copy, 4096):
                pass

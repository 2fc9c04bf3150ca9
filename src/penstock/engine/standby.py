"""A server that was demoted: its connections are left once it refuses to write, and not opened."""

import asyncio
from collections.abc import Awaitable, Callable
from time import time
from typing import Any

from sqlalchemy import Engine, ExceptionContext, event

from penstock.drivers.capabilities import driver_of
from penstock.pool import PenstockPool

_READ_ONLY = "25006"
_YOUNG = 5.0
"""Seconds; where a connection of that age leads to a standby, another would, too."""


def leave_standby(engine: Engine, adapter: Any, error: BaseException | None) -> None:
    """Evict the pool's connections if a server has refused to write that is a standby.

    A demoted primary goes on answering, so that no ping finds out. The next connections are opened
    to wherever the address leads then, or to the host that writes, of several.

    Args:
        engine: Whose pool the connection is of.
        adapter: SQLAlchemy's, around the driver's connection.
        error: The driver's.
    """
    pool = engine.pool
    if getattr(error, "sqlstate", None) != _READ_ONLY or not isinstance(pool, PenstockPool):
        return
    if adapter is not None and driver_of(engine.dialect).is_standby(adapter):
        pool.evict_all(opened_before=time() - _YOUNG)


def watch_for_standby(engine: Engine) -> None:
    """Have the statements of an engine's sessions looked at.

    Args:
        engine: On PostgreSQL.
    """

    def look(context: ExceptionContext) -> None:
        error: Any = context.original_exception
        below = None if context.connection is None else context.connection
        if below is None or below.closed or below.invalidated:
            return
        leave_standby(engine, below.connection.dbapi_connection, error)

    event.listen(engine.dialect, "handle_error", look)


Accepts = Callable[[Any], Awaitable[bool]]
"""Returns whether a new connection of the driver's leads to a server that is to be used."""


def to_accepted(
    connect: Callable[..., Awaitable[Any]], accepts: Accepts, seconds: float
) -> Callable[..., Awaitable[Any]]:
    """Return asyncpg's connect, which goes on to the next host where a server is not accepted.

    Args:
        connect: asyncpg's.
        accepts: Looks at the connection.
        seconds: For all hosts together; each has its part, so that a dead one leaves time.
    """

    async def connect_to_any(*args: Any, **arguments: Any) -> Any:
        failure: Exception = ConnectionError("there is no host to connect to")
        hosts = _each_host(arguments)
        for host in hosts:
            try:
                async with asyncio.timeout(seconds / len(hosts)):
                    connection = await connect(*args, **{**arguments, **host})
                    if await _is_accepted(connection, accepts):
                        return connection
                failure = ConnectionError(
                    "the server goes on with an earlier timeline, though another was promoted"
                )
            except Exception as error:  # noqa: BLE001 - raised where no host is better
                failure = error
        raise failure

    return connect_to_any


async def _is_accepted(connection: Any, accepts: Accepts) -> bool:
    """Return whether a connection is accepted, which is closed at once where it is not."""
    is_accepted = False
    try:
        is_accepted = await accepts(connection)
    finally:
        if not is_accepted:  # also where this was cancelled, or the server does not answer
            connection.terminate()
    return is_accepted


def _each_host(arguments: dict[str, Any]) -> list[dict[str, Any]]:
    hosts, ports = arguments.get("host"), arguments.get("port")
    if not isinstance(hosts, list) or not isinstance(ports, list) or len(hosts) != len(ports):
        return [{}]
    return [{"host": host, "port": port} for host, port in zip(hosts, ports, strict=True)]

"""Asking a server how many connections it accepts."""

from sqlalchemy import bindparam, text
from sqlalchemy.ext.asyncio import AsyncConnection

from penstock.planner import ServerLimits

__all__ = ["server_limits"]

_POSTGRESQL = text("SELECT name, setting FROM pg_settings WHERE name IN :names").bindparams(
    bindparam("names", expanding=True)
)
_RESERVED = ("superuser_reserved_connections", "reserved_connections")
"""The second exists since PostgreSQL 16."""
_MYSQL = text("SELECT @@GLOBAL.max_connections")


async def server_limits(connection: AsyncConnection) -> ServerLimits | None:
    """Return the limits of the server behind ``connection``; None where there is no such limit."""
    match connection.dialect.name:
        case "postgresql":
            rows = await connection.execute(_POSTGRESQL, {"names": ["max_connections", *_RESERVED]})
            limits = {name: int(setting) for name, setting in rows}
            return ServerLimits(
                max_connections=limits["max_connections"],
                reserved=sum(limits.get(name, 0) for name in _RESERVED),
            )
        case "mysql" | "mariadb":
            accepted = await connection.scalar(_MYSQL)
            return ServerLimits(max_connections=int(accepted))
        case _:
            return None

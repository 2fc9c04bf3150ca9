"""Connections that read only, kept to it by the server at no round trip: where that may be."""

import logging
from typing import Any

from sqlalchemy import event
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlalchemy.util import await_

from penstock.engine.postgresql import POOLERS
from penstock.pool import PenstockPool
from penstock.settings import DatabaseSettings

__all__ = ["Confinement"]

_logger = logging.getLogger("penstock.engine")


class Confinement:
    """Whether connections may be confined to reading by a setting of their server session.

    They may on asyncpg, with a pool of our own, and where each connection has a server session to
    itself: a pooler would lend the session, confined, to somebody who writes. Whether one is in
    between is asked of the first connection: a pooler makes up the process that it names.

    Args:
        engine: Not connected yet.
        settings: Its database's; a ``proxy`` that pools rules it out.
    """

    def __init__(self, engine: AsyncEngine, settings: DatabaseSettings) -> None:
        self._is_proven = False
        if settings.driver != "asyncpg" or not isinstance(engine.pool, PenstockPool):
            return
        if settings.proxy not in POOLERS:
            event.listen(engine.sync_engine, "first_connect", self._look)
        event.listen(engine.sync_engine, "connect", self._tell)

    def is_possible(self) -> bool:
        """Tell whether it is known to be right; not before the first connection is open."""
        return self._is_proven

    def _tell(self, connection: Any, _: Any) -> None:
        connection.is_shared = not self._is_proven

    def _look(self, connection: Any, _: Any) -> None:
        driver = connection.driver_connection
        process = await_(driver.fetchval("SELECT pg_backend_pid()"))
        self._is_proven = process == driver.get_server_pid()
        if not self._is_proven:
            _logger.warning(
                "A pooler stands between this service and PostgreSQL, and the setting proxy does "
                "not say so: set it (proxy='pgbouncer', ...), or prepared statements will fail."
            )

"""Middleware: the pool's state beside each request in the log, and a warning when it runs short."""

import logging
from urllib.parse import quote

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from penstock.database import Database
from penstock.pool import PoolSnapshot

__all__ = ["PoolLog"]

_logger = logging.getLogger(__name__)


class PoolLog:
    """Logs the pool as each response starts, while the request still holds its connection.

    The line has level INFO. The warning comes when utilisation rises above the database's
    ``utilisation_warning`` and not again before it fell below, so that a busy hour is one line.

    Args:
        app: The application.
        database: Whose pool to look at.
        name: The database's name in ``install``, as the lines call it.
    """

    def __init__(self, app: ASGIApp, database: Database, name: str) -> None:
        self.app = app
        self._database = database
        self._name = name
        self._warned = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one ASGI connection."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        async def logged_send(message: Message) -> None:
            if message["type"] == "http.response.start":
                pool = self._database.pool
                self._warn_when_short(pool)
                self._describe(scope, message["status"], pool)
            await send(message)

        await self.app(scope, receive, logged_send)

    def _warn_when_short(self, pool: PoolSnapshot) -> None:
        short = pool.utilisation > self._database.settings.utilisation_warning
        if short and not self._warned:
            _logger.warning(
                "pool %s: %d of %d connections are lent (%.0f %%). Requests will soon wait: raise "
                "pool_size or max_overflow, or hold connections for a shorter time.",
                self._name,
                pool.checked_out,
                pool.limit,
                100 * pool.utilisation,
            )
        self._warned = short

    def _describe(self, scope: Scope, status: int, pool: PoolSnapshot) -> None:
        if not _logger.isEnabledFor(logging.INFO):
            return
        _logger.info(
            "%s %s %d pool=%s size=%d checked_in=%d checked_out=%d overflow=%d utilisation=%.0f%%",
            scope["method"],
            quote(scope["path"]),
            status,
            self._name,
            pool.size,
            pool.checked_in,
            pool.checked_out,
            pool.overflow,
            100 * pool.utilisation,
        )

"""How long each request took, in a header and, with the pool's state, in the log."""

import logging
import time
from math import inf
from urllib.parse import quote

from starlette.types import Message, Scope

from penstock.database import Database
from penstock.engine import pool_snapshot
from penstock.pool import PenstockPool, PoolSnapshot


class ProcessTime:
    """Adds ``X-Process-Time``: seconds from the request's arrival to the response's start."""

    def __call__(self, scope: Scope, message: Message, arrived: float) -> None:  # noqa: ARG002 - as every observer
        """Look at the start of a response.

        Args:
            scope: Of the request.
            message: The response's start.
            arrived: When the request did, by ``time.perf_counter``.
        """
        seconds = b"%.6f" % (time.perf_counter() - arrived)
        # ASGI has them as any iterable.
        message["headers"] = [*message.get("headers", ()), (b"x-process-time", seconds)]


_logger = logging.getLogger(__name__)

WARNING_PAUSE = 60.0
"""Seconds from one warning to the next. A pool at its limit falls below and rises again with every
few requests; each time would be dozens of lines a second."""


class PoolLog:
    """Logs the pool as each response starts, while the request still holds its connection.

    The line has level INFO. The warning comes when utilisation rises above the database's
    ``utilisation_warning``. It is not repeated before utilisation fell below, so that a busy hour
    is one line, nor before ``WARNING_PAUSE`` has passed, so that one at the limit is one a minute.
    A shortage that begins within that time is told at its end, if it still lasts.

    Args:
        database: Whose pool to look at.
        name: The database's name in ``install``, as the lines call it.
        lines: Whether there is a line per request, beside the warning.
    """

    def __init__(self, database: Database, name: str, *, lines: bool = True) -> None:
        self._lines = lines
        self._database = database
        self._name = name
        self._threshold = database.settings.utilisation_warning
        self._warned = False
        """Whether the shortage that lasts now has been told."""
        self._not_before = -inf
        """When a request must have arrived to be worth the next warning."""

    def __call__(self, scope: Scope, message: Message, arrived: float) -> None:
        """Look at the start of a response.

        Args:
            scope: Of the request.
            message: The response's start.
            arrived: When the request did, by ``time.perf_counter``.
        """
        if not self._is_busy():
            self._warned = False
        elif not self._warned and arrived >= self._not_before:
            self._warned, self._not_before = True, arrived + WARNING_PAUSE
            self._warn(pool_snapshot(self._database.engine))
        if self._lines and _logger.isEnabledFor(logging.INFO):
            self._describe(scope, message["status"], pool_snapshot(self._database.engine))

    def _is_busy(self) -> bool:
        pool = self._database.engine.sync_engine.pool
        if isinstance(pool, PenstockPool):
            ledger = pool.ledger
            if len(ledger.slots) - len(ledger.idle_slots) <= self._threshold * ledger.limit:
                return False  # without counting, as for nearly every request
        return pool_snapshot(self._database.engine).utilisation > self._threshold

    def _warn(self, pool: PoolSnapshot) -> None:
        _logger.warning(
            "pool %s: %d of %d connections are checked out (%.0f %%). Requests will soon wait: "
            "raise pool_size or max_overflow, or hold connections for a shorter time.",
            self._name,
            pool.checked_out,
            pool.limit,
            100 * pool.utilisation,
        )

    def _describe(self, scope: Scope, status: int, pool: PoolSnapshot) -> None:
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

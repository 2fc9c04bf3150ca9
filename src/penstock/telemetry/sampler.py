"""The sampler: once a second, the pool's numbers and its leases go into the worker's file."""

import asyncio
import contextlib
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from penstock.telemetry.layout import LEASES
from penstock.telemetry.leases import Leases, count_idle_in_transaction
from penstock.telemetry.recorder import Recorder

if TYPE_CHECKING:
    from penstock.pool import PenstockPool


HEARTBEAT_INTERVAL = 0.1
"""Seconds between two measurements of the event loop's delay; a longer block is always seen."""


class Sampler:
    """Takes a sample of the pool at each full second, so that the samples of all workers add up.

    It begins at once, on the running event loop.

    Args:
        pool: Returns the current pool, which ``engine.dispose()`` replaces.
        recorder: Writes the samples.
    """

    def __init__(self, pool: "Callable[[], PenstockPool]", recorder: Recorder) -> None:
        self._pool = pool
        self._recorder = recorder
        self._loop = asyncio.get_running_loop()
        dialect = getattr(pool()._dialect, "name", "")  # noqa: SLF001 - the base class's
        self._leases = Leases(pool().policy.leak_after, is_mysql=dialect in ("mysql", "mariadb"))
        self._longest_delay = 0.0
        self._second = int(time.time())
        """Second of the newest sample. The clock may be set back: any other second is the next."""
        self._due = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._schedule()

    def is_running(self) -> bool:
        """Return whether its event loop is still open."""
        return not self._loop.is_closed()

    def stop(self) -> None:
        """Take no more samples."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _schedule(self) -> None:
        self._due = self._loop.time() + HEARTBEAT_INTERVAL
        self._timer = self._loop.call_at(self._due, self._beat)

    def _beat(self) -> None:
        self._longest_delay = max(self._longest_delay, self._loop.time() - self._due)
        now = time.time()
        if int(now) != self._second:
            self._second = int(now)
            self.sample(now)
        self._schedule()

    def sample(self, now: float) -> None:
        """Take a sample.

        Args:
            now: Unix time.
        """
        pool = self._pool()
        ledger = pool.ledger
        monotonic = time.monotonic()
        oldest = next(iter(ledger.waiters.queue), None)
        waited = 0.0 if oldest is None else monotonic - oldest.arrived
        delay, self._longest_delay = self._longest_delay, 0.0
        with contextlib.suppress(ValueError):  # the database, and with it the file, is closed
            self._recorder.sample(
                pool.snapshot(), count_idle_in_transaction(ledger, monotonic), waited, delay, now
            )
            self._recorder.leases(self._leases.sample(ledger, monotonic, now, LEASES))

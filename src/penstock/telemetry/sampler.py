"""The clock of one worker's telemetry: a sample a second, and how late the event loop is."""

import asyncio
import contextlib
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from penstock.telemetry.at_rest import count_at_rest
from penstock.telemetry.layout import LEASES
from penstock.telemetry.leases import Leases
from penstock.telemetry.recorder import Recorder

if TYPE_CHECKING:
    from penstock.pool import PenstockPool

__all__ = ["Sampler"]

BEAT = 0.1
"""Seconds between two looks at how late the event loop is: what blocks it for longer is seen."""


class Sampler:
    """Takes a sample of the pool at each full second, so that those of all workers add up.

    Args:
        pool: Gives the pool of this moment, which ``engine.dispose()`` replaces.
        recorder: Where they go.
    """

    def __init__(self, pool: "Callable[[], PenstockPool]", recorder: Recorder) -> None:
        self._pool = pool
        self._recorder = recorder
        self._loop = asyncio.get_running_loop()
        dialect = getattr(pool()._dialect, "name", "")  # noqa: SLF001 - the base class's
        self._leases = Leases(pool().policy.leak_after, is_mysql=dialect in ("mysql", "mariadb"))
        self._latest = 0.0
        self._second = int(time.time())
        """Of the newest sample. The clock may be set back: any other one is the next."""
        self._due = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._wait()

    def is_at_work(self) -> bool:
        """Tell whether its event loop may still run."""
        return not self._loop.is_closed()

    def stop(self) -> None:
        """Take no more samples."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _wait(self) -> None:
        self._due = self._loop.time() + BEAT
        self._timer = self._loop.call_at(self._due, self._beat)

    def _beat(self) -> None:
        self._latest = max(self._latest, self._loop.time() - self._due)
        now = time.time()
        if int(now) != self._second:
            self._second = int(now)
            self.sample(now)
        self._wait()

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
        late, self._latest = self._latest, 0.0
        with contextlib.suppress(ValueError):  # the file is closed: the database is, too
            self._recorder.sample(
                pool.snapshot(), count_at_rest(ledger, monotonic), waited, late, now
            )
            self._recorder.leases(self._leases.look(ledger, monotonic, now, LEASES))

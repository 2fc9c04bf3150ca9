"""A load run under way: what both loops share."""

import asyncio
import time
from collections.abc import Callable, Coroutine
from typing import Any

from penstock.base_error import SettingsError
from penstock.load.client import Client
from penstock.load.result import Generator, LoadResult, Outcome, Recording
from penstock.load.scenario import Request, Scenario


class Run:
    """Sends requests and records how they end.

    Args:
        scenario: Whose kinds are recorded.
        on_progress: Called after each request with the number of finished ones.
        clock: Monotonic time in seconds.
    """

    def __init__(
        self, scenario: Scenario, on_progress: Callable[[int], None], clock: Callable[[], float]
    ) -> None:
        self.under_way = 0
        self._finished = 0
        self._names = [kind.name for kind in scenario.kinds]
        self._on_progress = on_progress
        self._clock = clock
        self.begin()

    def begin(self) -> None:
        """Let the run start now."""
        self.begun = self._clock()
        self._cpu = time.process_time()
        self._recording = Recording(self._names, self.begun)

    async def send(
        self, client: Client, name: str, request: Request, since: float | None = None
    ) -> Outcome:
        """Send a request of a kind, record how it ended, and return that."""
        self.under_way += 1
        outcome = await client.send(request, since)
        self.under_way -= 1
        self._recording.add(name, outcome)
        self._finished += 1
        self._on_progress(self._finished)
        return outcome

    def result(self, late: int = 0, late_max: float = 0.0, queued: int = 0) -> LoadResult:
        """Return what there is until now.

        Args:
            late: Requests that were started late.
            late_max: The longest delay of a start, in seconds.
            queued: Requests that waited for a connection.
        """
        seconds = self._clock() - self.begun
        cpu_share = (time.process_time() - self._cpu) / seconds if seconds > 0 else 0.0
        generator = Generator(
            cpu_share=cpu_share,
            unfinished=self.under_way,
            late=late,
            late_max_ms=late_max * 1e3,
            queued=queued,
        )
        return self._recording.result(seconds, generator)


async def until_stopped(work: Coroutine[Any, Any, None], stop: asyncio.Event | None) -> None:
    """Run ``work`` to its end, or cancel it when ``stop`` is set; raise what it raises."""
    working = asyncio.create_task(work)
    stopping = asyncio.create_task((stop or asyncio.Event()).wait())
    try:
        await asyncio.wait({working, stopping}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        stopping.cancel()
        working.cancel()
        await asyncio.wait({working, stopping})
    if not working.cancelled():
        working.result()


def check_positive(**arguments: float | None) -> None:
    """Raise SettingsError for the first argument that is given and not above 0."""
    for name, value in arguments.items():
        if value is not None and not value > 0:
            raise SettingsError(f"{name}: {value} was given; above 0 accepted")


def check_length(
    requests: int | None, seconds: float | None, request_timeout: float, warm_up: float
) -> None:
    """Raise SettingsError unless one length is given, and each argument is in its range."""
    if (requests is None) == (seconds is None):
        raise SettingsError("requests, seconds: give one of the two")
    check_positive(requests=requests, seconds=seconds, request_timeout=request_timeout)
    if not warm_up >= 0:
        raise SettingsError(f"warm_up: {warm_up} was given; 0 or more accepted")

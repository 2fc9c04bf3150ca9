"""The closed loop: a fixed number of clients, each of which waits for its answer."""

import asyncio
import time
from collections.abc import Callable, Iterable, Iterator
from random import Random

from penstock.errors import SettingsError
from penstock.load.client import Client
from penstock.load.recording import Recording
from penstock.load.result import LoadResult
from penstock.load.scenario import Scenario

__all__ = ["run_closed_loop"]


async def run_closed_loop(
    base_url: str,
    scenario: Scenario,
    *,
    random: Random,
    clients: int,
    requests: int | None = None,
    seconds: float | None = None,
    request_timeout: float = 10.0,
    on_progress: Callable[[int], None] = lambda _: None,
    clock: Callable[[], float] = time.perf_counter,
) -> LoadResult:
    """Load a server with clients that send their next request when the last one has ended.

    Each client has a connection of its own. A request without an answer counts as an error and
    is never repeated. A closed loop slows down together with its server, so it measures what
    the server can do at this concurrency, not what users of an overloaded one would see.

    Args:
        base_url: Scheme, host and port, such as ``http://127.0.0.1:8000``.
        scenario: What to send.
        random: Every random choice; an equal seed gives an equal sequence of requests.
        clients: Requests under way at once; 1 or more.
        requests: How many to send in all. Give either this or ``seconds``.
        seconds: How long to go on sending; requests under way at the end are still awaited.
        request_timeout: Seconds in which an answer has to be complete; above 0.
        on_progress: Called after each request with the number of finished ones.
        clock: Monotonic time in seconds.

    Returns:
        The figures of all requests, together and by kind.

    Raises:
        SettingsError: An argument is out of its range; nothing was sent.
    """
    _check(clients, requests, seconds, request_timeout)
    begun = clock()
    turns = _turns(requests, begun + (seconds or 0.0), clock)
    recording = Recording(kind.name for kind in scenario.kinds)
    finished = 0

    async def work() -> None:
        nonlocal finished
        async with Client(base_url, timeout=request_timeout, clock=clock) as client:
            for _ in turns:
                name, request = scenario.draw(random)
                recording.add(name, await client.send(request))
                finished += 1
                on_progress(finished)

    async with asyncio.TaskGroup() as group:
        for _ in range(clients):
            group.create_task(work())
    return recording.result(clock() - begun)


def _check(
    clients: int, requests: int | None, seconds: float | None, request_timeout: float
) -> None:
    if (requests is None) == (seconds is None):
        raise SettingsError("requests, seconds: give one of the two")
    for name, value in (
        ("clients", clients),
        ("requests", 1 if requests is None else requests),
        ("seconds", 1 if seconds is None else seconds),
        ("request_timeout", request_timeout),
    ):
        if not value > 0:
            raise SettingsError(f"{name}: {value} was given; above 0 accepted")


def _turns(requests: int | None, deadline: float, clock: Callable[[], float]) -> Iterator[object]:
    """Return one iterator that all clients share, so that each turn is taken once."""
    until_deadline: Iterable[object] = iter(lambda: clock() < deadline, False)
    return iter(until_deadline if requests is None else range(requests))

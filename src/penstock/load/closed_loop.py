"""The closed loop: a fixed number of clients, each of which waits for its answer."""

import asyncio
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AsyncExitStack
from random import Random

from penstock.load.client import Client
from penstock.load.result import LoadResult
from penstock.load.run import Run, check_length, check_positive, until_stopped
from penstock.load.scenario import Scenario

_PAUSE = 0.1
"""Seconds that a client waits after a request without an answer."""


async def run_closed_loop(
    base_url: str,
    scenario: Scenario,
    *,
    random: Random,
    clients: int,
    requests: int | None = None,
    seconds: float | None = None,
    warm_up: float = 0.0,
    request_timeout: float = 10.0,
    headers: Mapping[str, str] | None = None,
    on_progress: Callable[[int], None] = lambda _: None,
    stop: asyncio.Event | None = None,
    clock: Callable[[], float] = time.perf_counter,
) -> LoadResult:
    """Load a server with clients that send their next request when the last one has ended.

    Each client has a connection of its own. A request without an answer counts as an error and
    is never repeated; its client waits a tenth of a second before its next one.

    A closed loop slows down together with its server, so it measures what the server can do at
    this concurrency, not what users of an overloaded one would see: that is what `run_open_loop`
    measures.

    Args:
        base_url: Scheme, host and port, such as ``http://127.0.0.1:8000``; a path in it is put
            before every request's.
        scenario: What to send.
        random: Every random choice; an equal seed gives an equal sequence of requests.
        clients: Requests under way at once; 1 or more.
        requests: How many to send in all. Give either this or ``seconds``.
        seconds: How long to go on sending; requests under way at the end are still awaited.
        warm_up: Seconds of the same load before, which are not recorded.
        request_timeout: Seconds in which an answer has to be complete; above 0.
        headers: To send with each request, by their names.
        on_progress: Called after each recorded request with the number of finished ones.
        stop: Ends the run when it is set; what is under way then is cancelled.
        clock: Monotonic time in seconds.

    Returns:
        The figures of all requests, together and by kind.

    Raises:
        SettingsError: An argument is out of its range; nothing was sent.
    """
    check_positive(clients=clients)
    check_length(requests, seconds, request_timeout, warm_up)
    run = Run(scenario, on_progress, clock)
    async with AsyncExitStack() as stack:
        connected = [
            await stack.enter_async_context(
                Client(base_url, timeout=request_timeout, clock=clock, headers=headers)
            )
            for _ in range(clients)
        ]

        async def send(run: Run, turns: Iterator[object]) -> None:
            async def work(client: Client) -> None:
                for _ in turns:
                    outcome = await run.send(client, *scenario.draw(random))
                    if outcome.status is None:
                        await asyncio.sleep(_PAUSE)

            async with asyncio.TaskGroup() as group:
                for client in connected:
                    group.create_task(work(client))

        async def work() -> None:
            if warm_up:
                unrecorded = Run(scenario, lambda _: None, clock)
                await send(unrecorded, _turns(None, unrecorded.begun + warm_up, clock))
                run.begin()
            await send(run, _turns(requests, run.begun + (seconds or 0.0), clock))

        await until_stopped(work(), stop)
        return run.result()


def _turns(requests: int | None, deadline: float, clock: Callable[[], float]) -> Iterator[object]:
    """Return one iterator that all clients share, so that each turn is taken once."""
    until_deadline: Iterable[object] = iter(lambda: clock() < deadline, False)
    return iter(until_deadline if requests is None else range(requests))

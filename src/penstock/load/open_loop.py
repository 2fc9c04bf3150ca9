"""The open loop: requests that start when they are due, however slow the answers are."""

import asyncio
import time
from collections.abc import Callable, Iterator, Mapping
from itertools import count
from random import Random
from typing import Literal, get_args

from penstock.base_error import SettingsError
from penstock.load.client import Client
from penstock.load.result import LoadResult
from penstock.load.run import Run, check_length, check_positive, until_stopped
from penstock.load.scenario import Scenario

Arrivals = Literal["poisson", "constant"]
"""How requests are spread: as those of many independent users, or at equal distances."""
LATE_AFTER = 0.01
"""Seconds behind its time from which a start is late; a timer alone is up to 1 ms behind."""
_BEHIND_LIMIT = 10.0
"""Seconds behind from which the generator will not catch up."""


async def run_open_loop(
    base_url: str,
    scenario: Scenario,
    *,
    random: Random,
    rate: float,
    requests: int | None = None,
    seconds: float | None = None,
    arrivals: Arrivals = "poisson",
    warm_up: float = 0.0,
    connections: int = 1000,
    request_timeout: float = 10.0,
    headers: Mapping[str, str] | None = None,
    on_progress: Callable[[int], None] = lambda _: None,
    stop: asyncio.Event | None = None,
    clock: Callable[[], float] = time.perf_counter,
) -> LoadResult:
    """Load a server with requests that start at a given rate, whether others are answered or not.

    A latency runs from the moment at which its request was due. A request that had to wait for
    a connection, because the server was slow, has that wait in its latency, and so does one that
    the generator itself started late; both are counted. No request is left out or repeated, so
    a pause of the server is seen by every request that was due in it.

    Args:
        base_url: Scheme, host and port, such as ``http://127.0.0.1:8000``; a path in it is put
            before every request's.
        scenario: What to send.
        random: Every random choice; an equal seed gives an equal sequence of requests and of
            moments.
        rate: Requests per second; above 0.
        requests: How many to send in all. Give either this or ``seconds``.
        seconds: How long to go on sending; requests under way at the end are still awaited.
        arrivals: How the requests are spread: ``"poisson"``, as those of many independent users,
            or ``"constant"``, at equal distances.
        warm_up: Seconds of the same load before, which are not recorded.
        connections: How many are open at most; 1 or more. At most ``rate`` times
            ``request_timeout`` requests are under way or wait for one.
        request_timeout: Seconds in which an answer has to be complete; above 0.
        headers: To send with each request, by their names.
        on_progress: Called after each recorded request with the number of finished ones.
        stop: Ends the run when it is set; what is under way then is cancelled.
        clock: Monotonic time in seconds.

    Returns:
        The figures of all requests, together and by kind, and of the generator.

    Raises:
        SettingsError: An argument is out of its range, and nothing was sent; or the rate is more
            than this process can send.
    """
    check_positive(rate=rate, connections=connections)
    check_length(requests, seconds, request_timeout, warm_up)
    if arrivals not in get_args(Arrivals):
        raise SettingsError(f"arrivals: {arrivals!r} was given; poisson and constant accepted")
    unrecorded = Run(scenario, lambda _: None, clock)
    run = Run(scenario, on_progress, clock)
    late, late_max, queued = 0, 0.0, 0
    begun = run.begun

    async def start(client: Client) -> None:
        nonlocal late, late_max, queued
        sent = 0
        async with asyncio.TaskGroup() as group:
            for offset in _offsets(rate, arrivals, random):
                if sent == requests or (seconds is not None and offset >= warm_up + seconds):
                    break
                due = begun + offset
                await _until(due, clock)
                name, request = scenario.draw(random)
                if offset < warm_up:
                    group.create_task(unrecorded.send(client, name, request, due))
                    continue
                if not sent:
                    run.begin()
                sent += 1
                behind = clock() - due
                late += behind > LATE_AFTER
                late_max = max(late_max, behind)
                if behind > _BEHIND_LIMIT:
                    break
                queued += run.under_way + unrecorded.under_way >= connections
                group.create_task(run.send(client, name, request, due))

    client = Client(
        base_url, timeout=request_timeout, clock=clock, connections=connections, headers=headers
    )
    async with client:
        await until_stopped(start(client), stop)
        if late_max > _BEHIND_LIMIT:
            raise SettingsError(
                f"rate: {rate:g} per second is more than this process can send: it was "
                f"{late_max:.0f} s behind; lower the rate, or load from several machines"
            )
        return run.result(late, late_max, queued)


def _offsets(rate: float, arrivals: Arrivals, random: Random) -> Iterator[float]:
    """Yield the seconds from the start to each request."""
    if arrivals == "constant":
        yield from (number / rate for number in count())
    offset = 0.0
    while True:
        offset += random.expovariate(rate)
        yield offset


async def _until(due: float, clock: Callable[[], float]) -> None:
    """Wait for a moment, also if a timer ends too early, and let others run if it is past."""
    left = due - clock()
    await asyncio.sleep(max(left, 0))
    if left > 0:
        await _until(due, clock)

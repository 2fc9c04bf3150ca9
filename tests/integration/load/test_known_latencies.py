"""What both loops measure of a server whose latencies are known."""

import asyncio
from math import ceil
from random import Random

import pytest
from tests.integration.load.conftest import Service

from penstock.load import Histogram, LoadResult, Target, run_closed_loop, run_open_loop, scenario_of

pytestmark = pytest.mark.real_time

INSTANT = Target(request="GET /")
RATE = 200


async def test_percentiles_are_those_of_the_server(service: Service) -> None:
    """The overhead of client and network is the median of a request that takes no time."""
    scenario = scenario_of([Target(request="GET /slow", weight=9), INSTANT])

    for seed in range(3):
        service.record()
        random = Random(seed)
        result = await run_open_loop(service.url, scenario, random=random, rate=350, seconds=6)
        # Else it was this machine that was busy, and the run says so.
        if result.generator.late < 0.01 * result.total.requests:
            break

    overhead = result.kinds["GET /"].p50_ms or 0
    taken = sorted(service.record()["seconds"])
    found = result.kinds["GET /slow"].latencies
    assert result.total.successes == result.total.requests
    assert len(found) == len(taken) > 1500
    for percent in (50, 99, 99.9):
        expected = 1e3 * taken[ceil(round(len(taken) * percent / 100, 6)) - 1] + overhead
        assert found.percentile(percent) == pytest.approx(expected, rel=0.02), percent


async def with_a_stall(service: Service, run: asyncio.Task[LoadResult]) -> Histogram:
    await asyncio.sleep(1)
    await asyncio.to_thread(service.get, "/stall")
    return (await run).total.latencies


async def test_the_open_loop_sees_all_of_a_stall(service: Service) -> None:
    """A request that was due a part into the second waited for the rest of it."""
    run = run_open_loop(
        service.url,
        scenario_of([INSTANT]),
        random=Random(1),
        rate=RATE,
        seconds=3,
        arrivals="constant",
    )

    latencies = await with_a_stall(service, asyncio.create_task(run))

    assert len(latencies) == 3 * RATE
    assert latencies.count_above(10) >= 0.97 * RATE
    assert 0.48 * RATE <= latencies.count_above(500) <= 0.9 * RATE
    assert (latencies.percentile(99) or 0) >= 900
    assert (latencies.max_ms or 0) >= 950


async def test_the_closed_loop_sees_a_stall_once_per_client(service: Service) -> None:
    run = run_closed_loop(
        service.url, scenario_of([INSTANT]), random=Random(1), clients=4, seconds=3
    )

    latencies = await with_a_stall(service, asyncio.create_task(run))

    assert latencies.count_above(500) == 4
    assert (latencies.percentile(99) or 0) < 200
    assert (latencies.max_ms or 0) >= 900

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from random import Random
from typing import Any

import pytest
from tests.unit.load.target import Target, serving

from penstock.errors import SettingsError
from penstock.load import Arrivals, Request, RequestKind, Scenario, run_closed_loop, run_open_loop

pytestmark = pytest.mark.real_time


@pytest.fixture
async def target() -> AsyncIterator[Target]:
    async with serving() as running:
        yield running


def only(path: str) -> Scenario:
    return Scenario((RequestKind(path, 1, lambda _: Request(path)),))


def nth(number: int, action: Callable[[], object]) -> Callable[[int], None]:
    """Do something when so many requests have ended."""

    def on_progress(finished: int) -> None:
        if finished == number:
            action()

    return on_progress


@pytest.mark.parametrize("arrivals", ["poisson", "constant"])
async def test_as_many_requests_are_sent_as_were_asked_for(
    target: Target, arrivals: Arrivals
) -> None:
    progress: list[int] = []

    result = await run_open_loop(
        target.url,
        only("/"),
        random=Random(1),
        rate=500,
        requests=100,
        arrivals=arrivals,
        on_progress=progress.append,
    )

    assert (result.total.requests, result.total.successes) == (100, 100)
    assert (target.paths, dict(result.total.statuses)) == ({"/": 100}, {200: 100})
    assert progress == list(range(1, 101))


async def test_constant_arrivals_are_as_many_as_fit_into_the_time(target: Target) -> None:
    result = await run_open_loop(
        target.url, only("/"), random=Random(1), rate=200, seconds=0.5, arrivals="constant"
    )

    assert result.total.requests == 100
    assert result.seconds >= 0.49


async def test_poisson_arrivals_are_those_of_the_seed(target: Target) -> None:
    random, due = Random(4), [0.0]
    while due[-1] < 0.5:
        due.append(due[-1] + random.expovariate(200))
        random.random()  # the mixture's choice

    result = await run_open_loop(target.url, only("/"), random=Random(4), rate=200, seconds=0.5)

    assert result.total.requests == len(due) - 2


async def test_requests_start_while_others_are_not_answered(target: Target) -> None:
    result = await run_open_loop(
        target.url, only("/slow"), random=Random(1), rate=500, requests=50, request_timeout=0.5
    )

    assert target.most_under_way == 50
    assert dict(result.total.errors) == {"timed out after 0.5 s": 50}


async def test_a_request_that_waits_for_a_connection_has_the_wait_in_its_timeout(
    target: Target,
) -> None:
    result = await run_open_loop(
        target.url,
        only("/slow"),
        random=Random(1),
        rate=200,
        requests=40,
        connections=3,
        request_timeout=0.3,
    )

    assert target.most_under_way == 3
    assert dict(result.total.errors) == {"timed out after 0.3 s": 40}
    assert result.generator.queued == 37
    assert result.seconds < 5


@pytest.mark.parametrize("length", [{"requests": 40}, {"seconds": 0.2}])
async def test_what_is_sent_in_the_warm_up_is_not_recorded(
    target: Target, length: dict[str, Any]
) -> None:
    result = await run_open_loop(
        target.url,
        only("/"),
        random=Random(1),
        rate=200,
        arrivals="constant",
        warm_up=0.2,
        **length,
    )

    assert (result.total.requests, target.paths["/"]) == (40, 80)


async def test_the_warm_up_of_the_closed_loop_is_not_recorded(target: Target) -> None:
    result = await run_closed_loop(
        target.url, only("/"), random=Random(1), clients=2, requests=10, warm_up=0.05
    )

    assert result.total.requests == 10
    assert target.paths["/"] > 10


async def test_starts_that_the_generator_delays_are_counted_and_are_in_the_latency(
    target: Target,
) -> None:
    common: dict[str, Any] = {"random": Random(1), "rate": 200, "arrivals": "constant"}

    usual = await run_open_loop(target.url, only("/"), requests=60, **common)
    blocked = nth(50, lambda: time.sleep(0.4))
    result = await run_open_loop(target.url, only("/"), requests=200, on_progress=blocked, **common)

    # 80 were due in those 400 ms; the last two of them were less than 10 ms behind.
    assert usual.generator.late < 40
    assert result.generator.late >= 70
    assert result.generator.late_max_ms >= 350
    assert result.total.latencies.count_above(200) >= 35


async def test_a_rate_that_the_generator_cannot_keep_is_refused(target: Target) -> None:
    begun = time.perf_counter()

    def clock() -> float:
        # A second is a minute, so that sending takes sixty times as long as it does.
        return begun + 60 * (time.perf_counter() - begun)

    with pytest.raises(SettingsError, match="rate: 1000 per second is more"):
        await run_open_loop(
            target.url, only("/"), random=Random(1), rate=1000, seconds=600, clock=clock
        )

    assert 0 < target.paths["/"] < 60_000


async def test_a_stopped_open_loop_has_the_results_so_far(target: Target) -> None:
    stop = asyncio.Event()
    paths = iter(["/"] * 10 + ["/slow"] * 10_000)
    scenario = Scenario((RequestKind("any", 1, lambda _: Request(next(paths))),))

    running = asyncio.create_task(
        run_open_loop(target.url, scenario, random=Random(1), rate=500, seconds=60, stop=stop)
    )
    await target.until(under_way=20)
    stop.set()
    result = await running

    assert result.total.requests == 10
    assert result.generator.unfinished >= 20
    await target.until(under_way=0)


async def test_a_stopped_closed_loop_has_the_results_so_far(target: Target) -> None:
    stop = asyncio.Event()
    paths = iter(["/"] * 10 + ["/slow"] * 3)
    scenario = Scenario((RequestKind("any", 1, lambda _: Request(next(paths))),))

    result = await run_closed_loop(
        target.url,
        scenario,
        random=Random(1),
        clients=3,
        requests=50,
        on_progress=nth(10, stop.set),
        stop=stop,
    )

    assert (result.total.requests, result.generator.unfinished) == (10, 3)


async def test_headers_are_sent_and_a_path_of_the_url_is_a_prefix(target: Target) -> None:
    common: dict[str, Any] = {"random": Random(1), "requests": 2, "headers": {"X-Tenant": "a"}}

    await run_open_loop(f"{target.url}/api/", only("/users"), rate=100, **common)
    await run_closed_loop(f"{target.url}/api", only("/users"), clients=1, **common)

    assert target.paths == {"/api/users": 4}
    assert [headers["X-Tenant"] for headers in target.headers] == ["a"] * 4


async def test_the_timeline_has_each_second_in_which_a_request_ended(target: Target) -> None:
    result = await run_open_loop(
        target.url, only("/404"), random=Random(1), rate=50, seconds=1.5, arrivals="constant"
    )

    assert [second.at for second in result.timeline] == [0, 1]
    assert sum(second.requests for second in result.timeline) == result.total.requests == 75
    assert sum(second.errors for second in result.timeline) == 75
    assert 40 <= result.timeline[0].requests <= 55


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"requests": 1, "seconds": 1}, "give one of the two"),
        ({}, "give one of the two"),
        ({"requests": 1, "rate": 0}, "rate: 0"),
        ({"requests": 1, "rate": float("nan")}, "rate: nan"),
        ({"requests": 1, "connections": 0}, "connections: 0"),
        ({"requests": 1, "warm_up": -1}, "warm_up: -1"),
        ({"requests": 1, "request_timeout": 0}, "request_timeout: 0"),
        ({"requests": 1, "arrivals": "uniform"}, "arrivals: 'uniform'"),
    ],
)
async def test_arguments_out_of_range_are_refused_before_anything_is_sent(
    target: Target, arguments: dict[str, Any], message: str
) -> None:
    with pytest.raises(SettingsError, match=message):
        await run_open_loop(target.url, only("/"), random=Random(1), **{"rate": 10, **arguments})

    assert not target.paths

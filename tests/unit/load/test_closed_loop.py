import asyncio
import itertools
from collections import Counter
from collections.abc import AsyncIterator
from random import Random

import pytest
from tests.unit.load.target import Target, serving

from penstock.errors import PenstockError, SettingsError
from penstock.load import Request, RequestKind, Scenario, check_answers, run_closed_loop


@pytest.fixture
async def target() -> AsyncIterator[Target]:
    async with serving() as running:
        yield running


def only(path: str, method: str = "GET", json: object = None) -> Scenario:
    return Scenario((RequestKind(path, 1, lambda _: Request(path, method=method, json=json)),))


async def test_as_many_requests_are_sent_as_were_asked_for(target: Target) -> None:
    progress: list[int] = []

    result = await run_closed_loop(
        target.url, only("/"), random=Random(1), clients=4, requests=50, on_progress=progress.append
    )

    assert (result.total.requests, result.total.successes) == (50, 50)
    assert target.paths == {"/": 50}
    assert progress == list(range(1, 51))
    assert result.total.p50_ms is not None
    assert result.total.max_ms is not None
    assert 0 < result.total.p50_ms <= result.total.max_ms <= result.seconds * 1000


async def test_each_client_keeps_one_connection_and_waits_for_its_answer(target: Target) -> None:
    await run_closed_loop(target.url, only("/"), random=Random(1), clients=5, requests=100)

    assert len(target.peers) == 5
    assert target.most_under_way <= 5


async def test_more_clients_than_requests_send_no_request_too_many(target: Target) -> None:
    await run_closed_loop(target.url, only("/"), random=Random(1), clients=9, requests=2)

    assert target.paths == {"/": 2}


async def test_the_seed_decides_what_is_sent_whatever_the_timing(target: Target) -> None:
    scenario = Scenario((RequestKind("any", 1, lambda random: Request(f"/{random.random()}")),))

    await run_closed_loop(target.url, scenario, random=Random(3), clients=1, requests=20)
    first = Counter(target.paths)
    await run_closed_loop(target.url, scenario, random=Random(3), clients=7, requests=20)

    assert target.paths == {path: 2 * count for path, count in first.items()}


async def test_it_sends_until_the_time_is_over(target: Target) -> None:
    ticks = itertools.count()

    result = await run_closed_loop(
        target.url, only("/"), random=Random(1), clients=1, seconds=31, clock=lambda: next(ticks)
    )

    # The clock is read at the start, for each turn, and before and after each request.
    assert result.total.requests == 10
    assert target.paths == {"/": 10}


@pytest.mark.parametrize("status", [404, 503])
async def test_an_error_status_is_counted_by_its_number(target: Target, status: int) -> None:
    result = await run_closed_loop(
        target.url, only(f"/{status}"), random=Random(1), clients=2, requests=6
    )

    assert (result.total.requests, result.total.successes) == (6, 0)
    assert dict(result.total.errors) == {str(status): 6}
    assert result.total.max_ms is not None


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_a_request_whose_connection_is_lost_is_not_repeated(
    target: Target, method: str
) -> None:
    paths = itertools.cycle(["/", "/lost"])
    scenario = Scenario((RequestKind("any", 1, lambda _: Request(next(paths), method=method)),))

    result = await run_closed_loop(target.url, scenario, random=Random(1), clients=1, requests=8)

    assert target.paths == {"/": 4, "/lost": 4}
    assert (result.total.successes, dict(result.total.errors)) == (
        4,
        {"the server closed the connection": 4},
    )


async def test_a_request_that_takes_too_long_is_an_error(target: Target) -> None:
    result = await run_closed_loop(
        target.url, only("/slow"), random=Random(1), clients=2, requests=2, request_timeout=0.05
    )

    assert dict(result.total.errors) == {"timed out after 0.05 s": 2}
    assert result.total.max_ms is None


async def test_a_server_that_is_not_there_is_an_error_for_each_request() -> None:
    async with serving() as gone:
        url = gone.url

    result = await run_closed_loop(url, only("/"), random=Random(1), clients=2, requests=5)

    assert dict(result.total.errors) == {"connection refused": 5}
    # Each client waits after each of its requests, and one of the two has three.
    assert result.seconds >= 0.3


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (b"SSH-2.0-OpenSSH_9.6\r\n", "the answer is not HTTP"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf", "the server closed the connection"),
        (b"", "the server closed the connection"),
    ],
)
async def test_an_answer_that_is_none_is_said_in_words(answer: bytes, error: str) -> None:
    async def speak(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(speak, "127.0.0.1", 0) as server:
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        result = await run_closed_loop(url, only("/"), random=Random(1), clients=1, requests=1)

    assert dict(result.total.errors) == {error: 1}


async def test_tls_that_the_server_does_not_speak_is_said_in_words(target: Target) -> None:
    url = target.url.replace("http:", "https:")

    result = await run_closed_loop(url, only("/"), random=Random(1), clients=1, requests=1)

    assert dict(result.total.errors) == {"TLS handshake failed": 1}
    with pytest.raises(PenstockError, match=f"{url} does not answer: TLS handshake failed"):
        await check_answers(url, timeout=5)


async def test_a_name_that_is_no_host_is_said_in_words() -> None:
    with pytest.raises(PenstockError, match="the host's name was not resolved"):
        await check_answers("http://host.invalid", timeout=20)


async def test_a_redirect_is_an_answer_and_is_not_followed(target: Target) -> None:
    result = await run_closed_loop(
        target.url, only("/moved"), random=Random(1), clients=1, requests=3
    )

    assert (result.total.successes, target.paths) == (3, {"/moved": 3})


async def test_a_body_is_sent_as_json(target: Target) -> None:
    await run_closed_loop(
        target.url, only("/body", "POST", {"a": [1]}), random=Random(1), clients=1, requests=2
    )

    assert target.bodies == [{"a": [1]}] * 2


async def test_a_cancelled_run_leaves_no_request_under_way(target: Target) -> None:
    running = asyncio.create_task(
        run_closed_loop(target.url, only("/slow"), random=Random(1), clients=3, requests=9)
    )
    await target.until(under_way=3)

    running.cancel()
    await asyncio.wait([running])

    assert running.cancelled()
    await target.until(under_way=0)
    assert target.paths == {"/slow": 3}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"requests": 1, "seconds": 1}, "give one of the two"),
        ({}, "give one of the two"),
        ({"requests": 0}, "requests: 0"),
        ({"seconds": -1.0}, r"seconds: -1\.0"),
        ({"requests": 1, "clients": 0}, "clients: 0"),
        ({"requests": 1, "request_timeout": 0}, "request_timeout: 0"),
    ],
)
async def test_arguments_out_of_range_are_refused_before_anything_is_sent(
    target: Target, arguments: dict[str, float], message: str
) -> None:
    complete: dict[str, float] = {"clients": 1, **arguments}

    with pytest.raises(SettingsError, match=message):
        await run_closed_loop(target.url, only("/"), random=Random(1), **complete)  # type: ignore[arg-type]  # a table of wrong arguments

    assert not target.paths

"""The closed loop: a fixed number of clients, each of which waits for its answer."""

import asyncio
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from random import Random
from types import TracebackType
from typing import Self

import aiohttp

from penstock.base_error import SettingsError
from penstock.load.result import LoadResult, Outcome, Recording


@dataclass(frozen=True, slots=True)
class Request:
    """One HTTP request, complete but for the server's address.

    Args:
        path: Path and query, from the slash on.
        method: HTTP method, in capitals.
        json: Body that is sent as JSON; ``None`` sends no body.
    """

    path: str
    method: str = "GET"
    json: object = None


@dataclass(frozen=True, slots=True)
class RequestKind:
    """A request that a scenario repeats, under one name in the results.

    Args:
        name: Row of the result in which its requests are counted.
        weight: Its share, relative to the weights of the other kinds; above 0.
        make: Makes the next request of this kind; takes every random choice from its argument.
    """

    name: str
    weight: float
    make: Callable[[Random], Request]


@dataclass(frozen=True, slots=True)
class Scenario:
    """The mixture of requests that a load run sends.

    Args:
        kinds: At least one kind, with distinct names.

    Raises:
        SettingsError: There is no kind, a name occurs twice, or a weight is not above 0.
    """

    kinds: tuple[RequestKind, ...]

    def __post_init__(self) -> None:
        names = [kind.name for kind in self.kinds]
        if not names or len(set(names)) < len(names):
            raise SettingsError(f"scenario: {names} are its kinds; at least one, each name once")
        for kind in self.kinds:
            if not kind.weight > 0:
                raise SettingsError(f"scenario: {kind.name} weighs {kind.weight}; above 0 accepted")

    def draw(self, random: Random) -> tuple[str, Request]:
        """Return the name and the request that come next; equal seeds give equal sequences."""
        (kind,) = random.choices(self.kinds, [kind.weight for kind in self.kinds])
        return kind.name, kind.make(random)


class _Unanswered(aiohttp.ClientError):
    """The connection ended before an answer came; ``__cause__`` says how."""


async def _send_once(
    request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
) -> aiohttp.ClientResponse:
    """Hide a lost connection from aiohttp, which would repeat an idempotent request by itself."""
    try:
        return await handler(request)
    except (aiohttp.ServerDisconnectedError, aiohttp.ClientOSError) as error:
        raise _Unanswered from error


def _name(error: Exception) -> str:
    return type(error.__cause__ if isinstance(error, _Unanswered) else error).__name__


class Client:
    """Sends requests over one kept-alive connection and times them.

    Redirects are not followed, proxies of the environment are not used, cookies are not kept.

    Args:
        base_url: Scheme, host and port.
        timeout: Seconds in which an answer has to be complete, connecting included.
        clock: Monotonic time in seconds.
    """

    def __init__(self, base_url: str, *, timeout: float, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._session = aiohttp.ClientSession(
            base_url,
            connector=aiohttp.TCPConnector(limit=1),
            cookie_jar=aiohttp.DummyCookieJar(),
            middlewares=(_send_once,),
            timeout=aiohttp.ClientTimeout(total=timeout),
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._session.close()

    async def send(self, request: Request) -> Outcome:
        """Send one request, read its whole answer, and return how it went; never raises for it."""
        begun = self._clock()
        try:
            async with self._session.request(
                request.method, request.path, json=request.json, allow_redirects=False
            ) as response:
                await response.read()
        except (aiohttp.ClientError, TimeoutError) as error:
            return Outcome(error=_name(error), latency=None)
        refused = str(response.status) if response.status >= 400 else None
        return Outcome(error=refused, latency=self._clock() - begun)


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

"""One HTTP client: a connection of its own, one request at a time, none repeated."""

from collections.abc import Callable
from types import TracebackType
from typing import Self

import aiohttp

from penstock.load.recording import Outcome
from penstock.load.scenario import Request

__all__ = ["Client"]


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

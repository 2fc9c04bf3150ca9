"""The HTTP client that sends requests and times them."""

import asyncio
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit

import aiohttp

from penstock.base_error import PenstockError
from penstock.load.result import Outcome
from penstock.load.scenario import Request

_IDLE_AT_MOST = 4.0
"""Seconds; servers close connections that were idle for longer, uvicorn after five."""
_JSON = {"Content-Type": "application/json"}


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
    """Sends requests over kept-alive connections and times them.

    Redirects are not followed, proxies of the environment are not used, cookies are not kept.

    Args:
        base_url: Scheme, host and port, and the prefix of every path if there is one.
        timeout: Seconds in which an answer has to be complete, connecting included, and so is
            the wait for a connection.
        clock: Monotonic time in seconds.
        connections: How many are open at most.
        headers: To send with each request, by their names.
    """

    def __init__(
        self,
        base_url: str,
        *,
        timeout: float,
        clock: Callable[[], float],
        connections: int = 1,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        self._base_url = base_url.rstrip("/")
        self._clock = clock
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=connections, keepalive_timeout=_IDLE_AT_MOST),
            cookie_jar=aiohttp.DummyCookieJar(),
            headers=headers,
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

    async def send(self, request: Request, since: float | None = None) -> Outcome:
        """Send one request, read its whole answer, and return how it went; never raises for it.

        Args:
            request: What to send.
            since: Monotonic time in seconds from which its latency counts; from now if None.
        """
        begun = self._clock() if since is None else since
        body: dict[str, Any] = {"json": request.json}
        if request.body is not None:
            body = {"data": request.body.encode(), "headers": _JSON}
        try:
            async with self._session.request(
                request.method,
                self._base_url + request.path,
                allow_redirects=False,
                **body,
            ) as response:
                await response.read()
        except (aiohttp.ClientError, TimeoutError) as error:
            return Outcome(error=_name(error), latency=None, ended=self._clock())
        status, ended = response.status, self._clock()
        refused = str(status) if status >= 400 else None
        return Outcome(error=refused, latency=ended - begun, status=status, ended=ended)


async def check_reachable(base_url: str, timeout: float) -> None:  # noqa: ASYNC109 - the caller's
    """Connect to a server and hang up.

    Args:
        base_url: Scheme, host and port.
        timeout: Seconds to wait for the connection.

    Raises:
        PenstockError: It accepts no connection; the message says why.
    """
    url = urlsplit(base_url)
    try:
        async with asyncio.timeout(timeout):
            port = url.port or (443 if url.scheme == "https" else 80)
            _, writer = await asyncio.open_connection(url.hostname, port)
    except TimeoutError as error:
        raise PenstockError(
            f"{base_url} has not accepted a connection within {timeout:g} s (--timeout)."
        ) from error
    except OSError as error:
        raise PenstockError(
            f"{base_url} accepts no connections: {error}. Does the service run, and on this host "
            "and port?"
        ) from error
    writer.close()

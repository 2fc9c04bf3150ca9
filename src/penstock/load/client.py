"""The HTTP client that sends requests and times them."""

import os
import time
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any, Self

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


def _in_words(error: BaseException | None, timeout: float) -> str:  # noqa: PLR0911 - a table
    match error:
        case _Unanswered():
            return _in_words(error.__cause__, timeout)
        case TimeoutError():
            return f"timed out after {timeout:g} s"
        case aiohttp.ClientConnectorCertificateError():
            return "the TLS certificate was not accepted"
        case aiohttp.ClientSSLError():
            return "TLS handshake failed"
        case aiohttp.ClientConnectorDNSError():
            return "the host's name was not resolved"
        case aiohttp.ServerDisconnectedError() | aiohttp.ClientPayloadError():
            return "the server closed the connection"
        case aiohttp.ClientOSError():
            return os.strerror(error.errno).lower() if error.errno else "connection failed"
        case aiohttp.ClientResponseError():
            return "the answer is not HTTP"
    return type(error).__name__


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
        self._timeout = timeout
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
            return Outcome(error=_in_words(error, self._timeout), latency=None, ended=self._clock())
        status, ended = response.status, self._clock()
        refused = str(status) if status >= 400 else None
        return Outcome(error=refused, latency=ended - begun, status=status, ended=ended)


async def check_answers(
    base_url: str,
    *,
    timeout: float,  # noqa: ASYNC109 - the caller's
    headers: Mapping[str, str] | None = None,
) -> None:
    """Ask a server for anything at all: ``HEAD /``, whatever the status of its answer.

    Args:
        base_url: Scheme, host and port, and the prefix of every path if there is one.
        timeout: Seconds to wait for the answer.
        headers: To send with it, by their names.

    Raises:
        PenstockError: No answer came; the message says why.
    """
    async with Client(
        base_url, timeout=timeout, clock=time.perf_counter, headers=headers
    ) as client:
        outcome = await client.send(Request("/", "HEAD"))
    if outcome.status is None:
        raise PenstockError(
            f"{base_url} does not answer: {outcome.error}. Does the service run, with this scheme, "
            "and on this host and port?"
        )

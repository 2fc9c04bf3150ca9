"""One document, made once a second for however many look at it, and sent to each as events."""

import asyncio
import logging
import signal
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager, suppress

from starlette.responses import Response, StreamingResponse
from starlette.types import Message, Receive, Scope, Send

__all__ = ["Broadcast", "EventStream"]

_logger = logging.getLogger(__name__)

_HEARTBEAT = 5.0
"""Seconds without a document after which a comment keeps proxies from closing the connection."""
_LONGEST = 300.0
"""Seconds after which a stream ends and the browser asks anew. No server can be made to wait for
its viewers longer than that, and new workers get their share of them."""
_RETRY = b"retry: 1000\n\n"
_PATIENCE = 30.0
"""Seconds within which a viewer must take what it was sent."""


class Broadcast:
    """Makes a document regularly while somebody looks; each viewer is sent the newest.

    A viewer that is slow misses documents, and nothing is kept for it.

    Args:
        render: Makes the document, without newlines, in a thread.
        period: Seconds from one document to the next.
        most: How many may look at the same time.
    """

    def __init__(
        self, render: Callable[[], bytes], *, period: float = 1.0, most: int = 100
    ) -> None:
        self._render = render
        self._period = period
        self._most = most
        self._next: asyncio.Future[bytes] | None = None
        """Will be the next document; replaced by the task alone, as soon as it is."""
        self._task: asyncio.Task[None] | None = None
        """Runs while there are viewers."""
        self.viewers = 0

    @property
    def is_full(self) -> bool:
        """Whether nobody else may look now."""
        return self.viewers >= self._most

    @contextmanager
    def viewer(self) -> Iterator[None]:
        """Count a viewer for a block."""
        self.viewers += 1
        if self._task is None:
            self._next = asyncio.get_running_loop().create_future()
            self._task = asyncio.create_task(self._make())
        try:
            yield
        finally:
            self.viewers -= 1
            if not self.viewers and self._task is not None:
                self._task.cancel()
                self._task = None

    async def events(self) -> AsyncIterator[bytes]:
        """Give a viewer its server-sent events, until the stream is old or the server stops."""
        loop = asyncio.get_running_loop()
        end = loop.time() + _LONGEST
        yield _RETRY
        while loop.time() < end and not _server_stops():
            try:
                yield b"data: " + await self._document() + b"\n\n"
            except TimeoutError:
                yield b": nothing new\n\n"

    async def _document(self) -> bytes:
        assert self._next is not None  # noqa: S101 - a viewer() is around every events()
        async with asyncio.timeout(_HEARTBEAT):
            return await asyncio.shield(self._next)

    async def _make(self) -> None:
        loop = asyncio.get_running_loop()
        failed = False
        while True:
            started = loop.time()
            try:
                document = await asyncio.to_thread(self._render)
            except Exception:
                if not failed:
                    _logger.exception("the live document cannot be made; trying on")
                failed = True
            else:
                failed = False
                self._announce(document)
            await asyncio.sleep(max(0.0, started + self._period - loop.time()))

    def _announce(self, document: bytes) -> None:
        announced, self._next = self._next, asyncio.get_running_loop().create_future()
        if announced is not None:
            announced.set_result(document)


class EventStream(StreamingResponse):
    """The response that sends a broadcast to one viewer, or 503 where there are too many.

    Args:
        broadcast: What to send.
        headers: Besides the content's type.
    """

    def __init__(self, broadcast: Broadcast, headers: dict[str, str]) -> None:
        super().__init__(broadcast.events(), headers=headers, media_type="text/event-stream")
        self._broadcast = broadcast

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the response."""
        if self._broadcast.is_full:
            refusal = Response("Too many viewers.\n", 503, {"Retry-After": "10"})
            await refusal(scope, receive, send)
            return
        with self._broadcast.viewer():
            await super().__call__(scope, receive, send)

    async def stream_response(self, send: Send) -> None:
        """Send it, but end with a viewer that takes nothing any more."""

        async def send_in_time(message: Message) -> None:
            async with asyncio.timeout(_PATIENCE):
                await send(message)

        with suppress(TimeoutError):
            await super().stream_response(send_in_time)


def _server_stops() -> bool:
    # uvicorn waits for open responses before it tells the application that it stops, and those
    # of events would never end. The handler of its signals is a method of the server.
    server = getattr(signal.getsignal(signal.SIGTERM), "__self__", None)
    return getattr(server, "should_exit", False) is True

"""A TCP proxy before a server: it counts what passes, and fails on demand as a network does."""

import asyncio
import math
import socket
import struct
from asyncio import StreamReader, StreamWriter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from enum import Enum

from sqlalchemy import make_url

ROLLBACK = b"Q\0\0\0\x0eROLLBACK;\0"
HELD_BACK = 0.1
"""Seconds for which the answer to a ROLLBACK is kept: who says something meanwhile has not waited
for it."""

Alter = Callable[[bytes, bool], tuple[bytes, bool]]
"""Given what arrived and whether it is the server's answer, returns what passes on, and whether the
connection goes on or is reset."""
RESET = struct.pack("ii", 1, 0)
"""For SO_LINGER: the peer is sent an RST, and nothing is waited for."""


def unaltered(data: bytes, _is_answer: bool) -> tuple[bytes, bool]:
    """Return what arrived."""
    return data, True


class IdleEnd(Enum):
    """What becomes of a connection on which nothing passes for too long."""

    SILENCE = "silence"
    """Nothing passes any more, and all sockets stay open, as by a firewall that forgot it."""
    CLOSE = "close"
    """The client is told by a FIN, as by a pooler."""
    RESET = "reset"
    """Both sides are told by an RST, as by a load balancer."""


class Proxy:
    """Stands before the server at an address, in the event loop of the test."""

    def __init__(self, host: str, port: int) -> None:
        self._address = host, port
        self._deafens_newcomers = False
        self.port = 0
        self.links: dict[asyncio.Task[None], _Link] = {}
        """Connections that are open, each with who looks after it."""
        self.connects = 0
        """Connections that clients opened, refused ones included."""
        self.connecting = self.most_connecting = 0
        """Connections that are kept waiting before the server hears of them."""
        self.round_trips = 0
        """How often a client spoke and was answered, in however many packets."""
        self.keeps_rollbacks = False
        """Whether the answer to a ROLLBACK is kept for a moment, and counted only where the client
        waits for it."""
        self.delay = 0.0
        """Seconds that each new connection is kept waiting."""
        self.refusing = False
        """Whether new connections are reset at once."""
        self.alter: Alter = unaltered
        """Makes what passes on of what arrives."""
        self.idle_limit = math.inf
        """Seconds for which nothing passes on a connection before it is ended."""
        self.idle_end = IdleEnd.SILENCE
        self.idle_ends = 0
        """Connections that were ended for that."""

    def url(self, url: str) -> str:
        """Return the URL of the same database through the proxy."""
        return make_url(url).set(host="127.0.0.1", port=self.port).render_as_string(False)

    def lead_to(self, host: str, port: int) -> None:
        """Have new connections arrive at another server, as where a name gets another address."""
        self._address = host, port

    def silence(self, *, newcomers: bool = False) -> None:
        """Pass nothing on any more and leave all sockets open, as a firewall that forgot them.

        Args:
            newcomers: Whether new connections are met with silence, too.
        """
        self._deafens_newcomers = newcomers
        for link in self.links.values():
            link.audible.clear()

    def heal(self) -> None:
        """Serve again as a good network does; what was held back arrives now."""
        self.delay, self.refusing, self._deafens_newcomers = 0.0, False, False
        self.alter = unaltered
        for link in self.links.values():
            link.audible.set()

    def tell(self, data: bytes) -> None:
        """Let every client hear what the server has not said, and go on."""
        for link in self.links.values():
            link.writers[0].write(data)

    def cut(self) -> None:
        """Reset every connection, on both sides."""
        for link in self.links.values():
            link.cut()

    def admit(self, reader: StreamReader, writer: StreamWriter) -> None:
        """Look after a new connection until its end."""
        self.connects += 1
        link = _Link(self, writer)
        if self.refusing:
            link.cut()
            return
        if self._deafens_newcomers:
            link.audible.clear()
        task = asyncio.create_task(self._serve(link, reader))
        self.links[task] = link
        task.add_done_callback(self.links.pop)

    async def _serve(self, link: "_Link", from_client: StreamReader) -> None:
        try:
            await self._keep_waiting()
            from_server, to_server = await asyncio.open_connection(*self._address)
            link.writers.append(to_server)
            await asyncio.gather(
                link.pass_on(from_client, to_server, is_answer=False),
                link.pass_on(from_server, link.writers[0], is_answer=True),
            )
            await link.closed()
        except (OSError, asyncio.CancelledError):
            link.cut()
            await link.closed()

    async def _keep_waiting(self) -> None:
        self.connecting += 1
        self.most_connecting = max(self.most_connecting, self.connecting)
        try:
            await asyncio.sleep(self.delay)
        finally:
            self.connecting -= 1

    async def close(self) -> None:
        """Cut every connection and return when nothing is left of them."""
        self.refusing = True
        for task in self.links:
            task.cancel()
        await asyncio.gather(*self.links, return_exceptions=True)


class _Link:
    """One client's connection, and the server's that belongs to it."""

    def __init__(self, proxy: Proxy, to_client: StreamWriter) -> None:
        self.proxy = proxy
        self.writers = [to_client]
        self.has_asked = self.may_not_wait = self.is_ending = False
        self.spoke = asyncio.Event()
        self.audible = asyncio.Event()
        self.audible.set()
        self.idle_timer: asyncio.TimerHandle | None = None

    def wait_for_idleness(self) -> None:
        """Count the time without a packet from now on."""
        if self.idle_timer is not None:
            self.idle_timer.cancel()
        if self.audible.is_set() and not self.is_ending and self.proxy.idle_limit < math.inf:
            loop = asyncio.get_running_loop()
            self.idle_timer = loop.call_later(self.proxy.idle_limit, self._end_idle)

    def _end_idle(self) -> None:
        self.proxy.idle_ends += 1
        if self.proxy.idle_end is IdleEnd.SILENCE:
            self.audible.clear()
        elif self.proxy.idle_end is IdleEnd.CLOSE:
            self.writers[0].close()
        else:
            self.cut()

    async def pass_on(self, source: StreamReader, sink: StreamWriter, *, is_answer: bool) -> None:
        with suppress(OSError):
            self.wait_for_idleness()
            while data := await source.read(65536):
                await self.audible.wait()
                self.wait_for_idleness()
                if is_answer:
                    await self._count_answer()
                else:
                    self.has_asked = True
                    self.may_not_wait = self.proxy.keeps_rollbacks and data.endswith(ROLLBACK)
                    self.spoke.set()
                altered, goes_on = self.proxy.alter(data, is_answer)
                sink.write(altered)
                if not goes_on:
                    self.cut()
                    return
                await sink.drain()
        await self.audible.wait()
        sink.close()
        self.is_ending = True
        self.wait_for_idleness()

    async def _count_answer(self) -> None:
        if self.may_not_wait:
            self.may_not_wait = False
            self.spoke.clear()
            with suppress(TimeoutError):
                await asyncio.wait_for(self.spoke.wait(), HELD_BACK)
                return  # and the answer to what was said is counted
        self.proxy.round_trips += self.has_asked
        self.has_asked = False

    def cut(self) -> None:
        self.is_ending = True
        self.wait_for_idleness()
        self.audible.set()
        for writer in self.writers:
            connected: socket.socket = writer.get_extra_info("socket")
            if connected.fileno() >= 0:
                connected.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            writer.transport.abort()

    async def closed(self) -> None:
        await asyncio.gather(*(each.wait_closed() for each in self.writers), return_exceptions=True)


@asynccontextmanager
async def proxy_before(host: str, port: int) -> AsyncIterator[Proxy]:
    """Run a proxy before a server for a block, on a free port of the loopback interface."""
    proxy = Proxy(host, port)
    async with await asyncio.start_server(proxy.admit, "127.0.0.1", 0) as listener:
        proxy.port = listener.sockets[0].getsockname()[1]
        try:
            yield proxy
        finally:
            listener.close()
            await proxy.close()

"""A distant server: ``python -m benchmarks.delay_proxy HOST PORT SECONDS``, its own process.

It passes on what each side says that much later, on a port that the system chooses and standard
output tells, until standard input closes. Nobody waits in line: each piece has its own due time.
"""

import asyncio
import subprocess
import sys
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from benchmarks.precise_loop import precise_loop

END = b""
"""What stands in the queue for the end of a stream."""


class Side(asyncio.Protocol):
    """One side of a connection, whose bytes reach the other side later.

    Args:
        delay: Seconds.
        loop: Has the time, and the timers.
    """

    def __init__(self, delay: float, loop: asyncio.AbstractEventLoop) -> None:
        self._delay = delay
        self._loop = loop
        self._queue: deque[tuple[float, bytes]] = deque()
        self._has_ended = False
        self.transport: Any = None
        self.other: Side

    def connection_made(self, transport: Any) -> None:
        """Take the transport."""
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        """Put what arrived into the queue."""
        self._queue.append((self._loop.time() + self._delay, data))
        if len(self._queue) == 1:
            self._loop.call_at(self._queue[0][0], self._pass_on)

    def eof_received(self) -> bool:
        """Put the end into the queue, and keep the socket open for the other direction."""
        self.data_received(END)
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        """Cut off the other side too if this one was."""
        if exc is not None and self.other.transport:
            self.other.transport.abort()

    def _pass_on(self) -> None:
        while self._queue and self._queue[0][0] <= self._loop.time():
            _, data = self._queue.popleft()
            if self.other.transport.is_closing():
                continue
            if data:
                self.other.transport.write(data)
            else:
                self._end()
        if self._queue:
            self._loop.call_at(self._queue[0][0], self._pass_on)

    def _end(self) -> None:
        self._has_ended = True
        if self.other._has_ended:  # noqa: SLF001 - of its own kind
            self.transport.close()
            self.other.transport.close()
        else:
            self.other.transport.write_eof()


class ClientSide(Side):
    """The side of who connected; the server's is opened for it.

    Args:
        host: Of the server.
        port: Of the server.
        delay: Seconds.
    """

    def __init__(self, host: str, port: int, delay: float) -> None:
        super().__init__(delay, asyncio.get_running_loop())
        self._address = host, port

    def connection_made(self, transport: Any) -> None:
        """Connect to the server before anything is read."""
        super().connection_made(transport)
        transport.pause_reading()
        self.other = Side(self._delay, self._loop)
        self.other.other = self
        self._opening = self._loop.create_task(self._open())

    async def _open(self) -> None:
        try:
            await self._loop.create_connection(lambda: self.other, *self._address)
        except OSError:
            self.transport.abort()
        else:
            self.transport.resume_reading()


@contextmanager
def delayed(host: str, port: int, seconds: float) -> Iterator[int]:
    """Run the proxy for the length of a block.

    Args:
        host: Of the server.
        port: Of the server.
        seconds: How much later everything arrives, in each direction.

    Yields:
        The port on the loopback interface that leads to the server.
    """
    command = [sys.executable, "-m", "benchmarks.delay_proxy", host, str(port), str(seconds)]
    with subprocess.Popen(  # noqa: S603 - our own module
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            yield int(process.stdout.readline() if process.stdout else 0)
        finally:
            process.terminate()


async def serve(host: str, port: int, seconds: float) -> None:
    """Serve until standard input closes."""
    loop = asyncio.get_running_loop()
    make_side = partial(ClientSide, host, port, seconds)
    async with await loop.create_server(make_side, "127.0.0.1", 0, backlog=1024) as server:
        sys.stdout.write(f"{server.sockets[0].getsockname()[1]}\n")
        sys.stdout.flush()
        await loop.run_in_executor(None, sys.stdin.read)


def main() -> None:
    """Serve as the command line says."""
    host, port, seconds = sys.argv[1:]
    with asyncio.Runner(loop_factory=precise_loop) as runner:
        runner.run(serve(host, int(port), float(seconds)))


if __name__ == "__main__":
    main()

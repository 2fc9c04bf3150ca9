"""The HTTP client that loads the peers: ``python -m benchmarks.http_driver``, its own process.

It reads one order, as JSON, and answers with what it measured. Its clients are bare protocols: an
HTTP library would cost more than the servers that are measured.
"""

import asyncio
import gc
import json
import re
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from itertools import count, cycle
from random import Random
from typing import Any
from urllib.parse import urlsplit

import uvloop

CONTENT_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
HEAD = "{method} {path} HTTP/1.1\r\nhost: benchmark\r\naccept: */*\r\n"
BODY = "content-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}"
IDS = 10_000

# Names that no run before has given to a row.
_new = (f"{time.time_ns():x}-{number}" for number in count())


@dataclass
class Run:
    """One turn of load, while it goes on.

    Args:
        next_request: Makes the bytes of the next request.
        begin: Monotonic time in seconds from which answers are counted.
        end: When to stop, or later with the answer that makes them ``at_least``.
        at_least: How many answers are counted, however slow the server is.
    """

    next_request: Callable[[], bytes]
    begin: float
    end: float
    at_least: int
    sent: int = 0
    milliseconds: list[float] = field(default_factory=list)
    errors: Counter[str] = field(default_factory=Counter)
    over: float = 0.0
    """When it was over; 0 while it goes on."""

    def answered(self, sent: float, now: float) -> None:
        """Note an answer to a request that was sent at a time."""
        if not self.over and now >= self.begin:
            self.milliseconds.append((now - sent) * 1000)
            if now >= self.end and len(self.milliseconds) >= self.at_least:
                self.over = now

    def failed(self, name: str) -> None:
        """Note what went wrong; there is no sense in going on."""
        self.errors[name] += 1
        self.over = self.over or time.perf_counter()


class Client(asyncio.Protocol):
    """A kept-alive connection with one request at a time on it."""

    def __init__(self, run: Run, over: asyncio.Future[None]) -> None:
        self._run = run
        self._over = over
        self._received = b""
        self._missing = 0

    def connection_made(self, transport: Any) -> None:
        """Send the first request."""
        self._transport = transport
        self._send()

    def data_received(self, data: bytes) -> None:
        """Take a part of an answer, and send the next request once it is whole."""
        received = self._received = self._received + data if self._received else data
        if not self._missing:
            self._missing = length_of(received)
        if not self._missing or len(received) < self._missing:
            return
        if received[9:10] == b"2":
            self._run.answered(self._sent_at, time.perf_counter())
        else:
            self._run.failed(received[9:12].decode())
        if self._run.over:
            self._transport.close()
        else:
            self._received, self._missing = b"", 0
            self._send()

    def connection_lost(self, exc: Exception | None) -> None:
        """Note that this client is done; before its time only if the server closed the socket."""
        if exc is not None or not self._run.over:
            self._run.failed("connection lost")
        self._over.set_result(None)

    def _send(self) -> None:
        self._run.sent += 1
        self._sent_at = time.perf_counter()
        self._transport.write(self._run.next_request())


def length_of(received: bytes) -> int:
    """Return how long the answer is, head and body; 0 as long as its head is not whole."""
    head = received.find(b"\r\n\r\n")
    if head < 0:
        return 0
    length = CONTENT_LENGTH.search(received, 0, head + 2)
    if length is None:
        raise RuntimeError(f"no content-length in {received[:head]!r}")
    return head + 4 + int(length[1])


def requests_of(method: str, path: str, body: str, seed: int) -> Callable[[], bytes]:
    """Return what makes the bytes of the next request.

    Args:
        method: HTTP method, in capitals.
        path: Path and query; ``ID`` becomes a random id, equal seeds giving equal ids.
        body: JSON, ``NEW`` in it becoming a name that no other request has; empty for none.
        seed: Of the ids.
    """
    head = HEAD.format(method=method, path=path)
    if body:
        return lambda: _with_body(head, body.replace("NEW", next(_new)))
    if "ID" not in path:
        request = (head + "\r\n").encode()
        return lambda: request
    requests = [(head.replace("ID", str(number)) + "\r\n").encode() for number in range(1, IDS + 1)]
    return cycle(Random(seed).choices(requests, k=IDS)).__next__  # noqa: S311 - load, no secret


def _with_body(head: str, body: str) -> bytes:
    return (head + BODY.format(length=len(body), body=body)).encode()


async def load(order: dict[str, Any]) -> dict[str, Any]:
    """Keep a server busy as one order says, and return what came of it."""
    address = urlsplit(order["url"])
    make = requests_of(order["method"], order["path"], order["body"], order["seed"])
    loop = asyncio.get_running_loop()
    begun, cpu = time.perf_counter(), time.process_time()
    begin = begun + order["warm_up"]
    run = Run(make, begin, begin + order["seconds"], at_least=order["clients"])
    over = [loop.create_future() for _ in range(order["clients"])]
    async with asyncio.timeout(order["warm_up"] + order["seconds"] + 60):
        for future in over:
            client = partial(Client, run, future)
            await loop.create_connection(client, address.hostname, address.port)
        await asyncio.gather(*over)
    return {
        "sent": run.sent,
        "errors": dict(run.errors),
        "milliseconds": [round(each, 3) for each in run.milliseconds],
        "seconds": run.over - begin,
        "elapsed": run.over - begun,
        "core_share": (time.process_time() - cpu) / (time.perf_counter() - begun),
    }


def main() -> None:
    """Carry out one order."""
    gc.freeze()
    gc.disable()  # its pauses would be taken for the server's
    json.dump(uvloop.run(load(json.load(sys.stdin))), sys.stdout)


if __name__ == "__main__":
    main()

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
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import count, cycle
from random import Random
from typing import Any
from urllib.parse import urlsplit

import uvloop
from benchmarks.precise_loop import precise_loop

CONTENT_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
HEAD = "{method} {path} HTTP/1.1\r\nhost: benchmark\r\naccept: */*\r\n"
BODY = "content-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}"
FIRST = 100_001
"""Where the numbers in sequence begin."""

# Names that no run before has given to a row.
_new = (f"{time.time_ns():x}-{number}" for number in count())
_next = map(str, count(FIRST))


@dataclass
class Run:
    """One turn of load, while it goes on.

    Args:
        next_request: Makes the bytes of the next request.
        begin: Monotonic time in seconds from which answers are counted.
        end: When to stop, or later with the answer that makes them ``at_least``.
        at_least: How many answers are counted, however slow the server is.
        rate: Requests per second that are due, however slow the answers are; 0 for each client's
            next as soon as it has its answer.
    """

    next_request: Callable[[], bytes]
    begin: float
    end: float
    at_least: int
    rate: float = 0.0
    sent: int = 0
    idle: "deque[Client]" = field(default_factory=deque)
    """Clients that wait for a request to be due."""
    overdue: deque[float] = field(default_factory=deque)
    """When the requests were due that wait for a client."""
    milliseconds: list[float] = field(default_factory=list)
    errors: Counter[str] = field(default_factory=Counter)
    over: float = 0.0
    """When it was over; 0 while it goes on."""

    async def offer(self, begun: float) -> None:
        """Have requests fall due one after the other, until it is over."""
        for number in count():
            due = begun + number / self.rate
            await asyncio.sleep(due - time.perf_counter())
            if self.over:
                break
            if self.idle:
                self.idle.popleft().send(due)
            else:
                self.overdue.append(due)
        while self.idle:
            self.idle.popleft().close()

    def next_for(self, client: "Client") -> None:
        """Give a client that has its answer the next request, or let it wait for one."""
        if self.over:
            client.close()
        elif not self.rate:
            client.send(time.perf_counter())
        elif self.overdue:
            client.send(self.overdue.popleft())
        else:
            self.idle.append(client)

    def answered(self, due: float, now: float) -> None:
        """Note an answer to a request that was due at a time."""
        if not self.over and now >= self.begin:
            self.milliseconds.append((now - due) * 1000)
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
        """Begin with the first request."""
        self._transport = transport
        self._run.next_for(self)

    def data_received(self, data: bytes) -> None:
        """Take a part of an answer, and go on to the next request once it is whole."""
        received = self._received = self._received + data if self._received else data
        if not self._missing:
            self._missing = length_of(received)
        if not self._missing or len(received) < self._missing:
            return
        if received[9:10] == b"2":
            self._run.answered(self._due, time.perf_counter())
        else:
            self._run.failed(received[9:12].decode())
        self._received, self._missing = b"", 0
        self._run.next_for(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """Note that this client is done; before its time only if the server closed the socket."""
        if exc is not None or not self._run.over:
            self._run.failed("connection lost")
        self._over.set_result(None)

    def send(self, due: float) -> None:
        """Send the next request, which was due at a time."""
        self._run.sent += 1
        self._due = due
        self._transport.write(self._run.next_request())

    def close(self) -> None:
        """Leave."""
        self._transport.close()


def length_of(received: bytes) -> int:
    """Return how long the answer is, head and body; 0 as long as its head is not whole."""
    head = received.find(b"\r\n\r\n")
    if head < 0:
        return 0
    length = CONTENT_LENGTH.search(received, 0, head + 2)
    if length is None:
        raise RuntimeError(f"no content-length in {received[:head]!r}")
    return head + 4 + int(length[1])


def requests_of(kinds: Sequence[dict[str, Any]], seed: int) -> Callable[[], bytes]:
    """Return what makes the bytes of the next request.

    Args:
        kinds: The fields of each ``Traffic``, in their order.
        seed: Of the random numbers, equal seeds giving equal ones.
    """
    random = Random(seed)  # noqa: S311 - load, no secret
    makers = cycle([partial(_request_of, random, **kind) for kind in kinds])
    return lambda: next(makers)()  # noqa: PLW0108 - a maker of its own each time


def _request_of(
    random: Random, *, method: str, path: str, body: str, ids: int, **_: float
) -> bytes:
    if "ID" in path:
        path = path.replace("ID", str(random.randint(1, ids)))
    if "NEW" in body:
        body = body.replace("NEW", next(_new))
    if "NEXT" in body:
        body = body.replace("NEXT", next(_next))
    head = HEAD.format(method=method, path=path)
    return (head + (BODY.format(length=len(body), body=body) if body else "\r\n")).encode()


async def load(order: dict[str, Any]) -> dict[str, Any]:
    """Keep a server busy as one order says, and return what came of it."""
    addresses = [urlsplit(url) for url in order["urls"]]
    make, rate = requests_of(order["kinds"], order["seed"]), order["rate"]
    loop = asyncio.get_running_loop()
    begun, cpu = time.perf_counter(), time.process_time()
    begin = begun + order["warm_up"]
    run = Run(make, begin, begin + order["seconds"], at_least=order["clients"], rate=rate)
    over = [loop.create_future() for _ in range(order["clients"])]
    patience = order["warm_up"] + order["seconds"] + 60
    async with asyncio.timeout(patience), asyncio.TaskGroup() as group:
        for future, address in zip(over, cycle(addresses), strict=False):
            client = partial(Client, run, future)
            await loop.create_connection(client, address.hostname, address.port)
        if rate:
            group.create_task(run.offer(time.perf_counter()))
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
    order = json.load(sys.stdin)
    make_loop = precise_loop if order["rate"] else uvloop.new_event_loop
    with asyncio.Runner(loop_factory=make_loop) as runner:
        json.dump(runner.run(load(order)), sys.stdout)


if __name__ == "__main__":
    main()

"""``python -m tests.integration.load.service``: a server that knows how slow it is.

It prints its port. ``/slow`` takes the next duration of a fixed sequence, and the server measures
how long it really took, which ``/record`` tells once; ``/stall`` blocks the whole process for a
second.
"""

import asyncio
import time
from collections import Counter
from random import Random

from aiohttp import web

DURATIONS = [0.1 + number % 40 / 1e3 for number in range(985)] + [0.3] * 13 + [0.6] * 2
"""Seconds: 98.5 % from 100 to 139 ms, then 1.3 % of 300 ms, and 0.2 % of 600 ms."""
STALL = 1.0


class Service:
    """What the server counts and records."""

    def __init__(self) -> None:
        self._durations = DURATIONS * 10
        Random(1).shuffle(self._durations)
        self._next = iter(self._durations)
        self._taken: list[float] = []
        self._counts: Counter[str] = Counter()

    async def answer(self, request: web.BaseRequest) -> web.StreamResponse:
        begun = time.perf_counter()
        if request.path == "/record":
            taken, self._taken = self._taken, []
            return web.json_response({"seconds": taken, "counts": self._counts})
        self._counts[f"{request.method} {request.path}"] += 1
        if request.path == "/slow":
            await asyncio.sleep(next(self._next))
            self._taken.append(time.perf_counter() - begun)
        elif request.path == "/stall":
            time.sleep(STALL)  # noqa: ASYNC251 - that it blocks is what is asked for
        elif request.path == "/users" and request.method == "POST":
            return web.json_response(await request.json(), status=201)
        elif request.path == "/private" and request.headers.get("Authorization") != "Bearer one":
            return web.Response(status=401)
        return web.Response(text="ok")


async def main() -> None:
    runner = web.ServerRunner(web.Server(Service().answer))
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, backlog=1024).start()
    print(runner.addresses[0][1], flush=True)  # noqa: T201 - the test reads it
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main())

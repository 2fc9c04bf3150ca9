"""A real HTTP server that counts what reaches it."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

from aiohttp import web


class Target:
    """Counts requests; a path says how it is answered, ``/`` and unknown ones well."""

    def __init__(self) -> None:
        self.url = ""
        self.paths: Counter[str] = Counter()
        self.bodies: list[object] = []
        self.headers: list[Mapping[str, str]] = []
        self.peers: set[object] = set()
        self.under_way = 0
        self.most_under_way = 0
        self._changed = asyncio.Condition()

    async def answer(self, request: web.BaseRequest) -> web.StreamResponse:
        """Count one request and answer it."""
        self.paths[request.path] += 1
        self.headers.append(request.headers)
        self.peers.add(request.get_extra_info("peername"))
        await self._count(1)
        try:
            return await self._respond(request)
        finally:
            await self._count(-1)

    async def until(self, *, under_way: int) -> None:
        """Wait until so many requests are under way."""
        async with asyncio.timeout(10), self._changed:
            await self._changed.wait_for(lambda: self.under_way == under_way)

    async def _count(self, difference: int) -> None:
        async with self._changed:
            self.under_way += difference
            self.most_under_way = max(self.most_under_way, self.under_way)
            self._changed.notify_all()

    async def _respond(self, request: web.BaseRequest) -> web.StreamResponse:
        match request.path:
            case "/slow":
                await asyncio.Event().wait()
            case "/lost":
                assert request.transport is not None
                request.transport.abort()
            case "/moved":
                return web.Response(status=302, headers={"Location": "/elsewhere"})
            case "/body":
                self.bodies.append(await request.json())
            case "/404" | "/503":
                return web.Response(status=int(request.path[1:]))
        return web.Response(text="x" * 100_000)


@asynccontextmanager
async def serving() -> AsyncIterator[Target]:
    """A target on a free port of loopback, for as long as the block lasts."""
    target = Target()
    runner = web.ServerRunner(web.Server(target.answer, handler_cancellation=True))
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    target.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield target
    finally:
        await runner.cleanup()

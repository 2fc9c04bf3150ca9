"""How often a request speaks to the database and waits for its answer."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass
from itertools import pairwise
from statistics import median

import httpx
from benchmarks import http_read
from benchmarks.dataset import users_database
from benchmarks.progress import progress
from benchmarks.result import Result, Target
from benchmarks.service import Peer, Service, serving
from tests.servers.postgres import PostgresServer, postgres_server
from tests.servers.proxy import Proxy, proxy_before

PEERS = tuple(route for route in http_read.ROUTES if route != "no_database")
SHORT_PEERS = ("tutorial", "asyncpg_by_hand", "asyncpg_without_reset", "express", "sessions")
KINDS = ("read", "write")
# No connection is opened ahead of need: that would be counted too, and is no request's.
ONE_BY_ONE = {"DATABASE_MIN_IDLE": "0"}


@dataclass(frozen=True)
class Lengths:
    """Requests of one kind that are counted, and those before, for every connection to be warm."""

    requests: int
    warm_up: int


LONG = Lengths(requests=100, warm_up=200)
SHORT = Lengths(requests=10, warm_up=150)


def run(short: bool) -> Result:
    """Send each peer one request after the other, a counting proxy before its database.

    Args:
        short: Whether it is enough to see it work.

    Returns:
        Round trips per request, by kind and peer.
    """
    lengths, peers = (SHORT, SHORT_PEERS) if short else (LONG, PEERS)
    with (
        postgres_server() as server,
        users_database(server) as url,
        progress("roundtrips", len(peers) * len(KINDS)) as advance,
    ):
        counted = asyncio.run(_measure(peers, server, url, lengths, advance))
    figures = {kind: {peer: counted[peer][kind] for peer in peers} for kind in KINDS}
    return Result(
        "roundtrips",
        {"requests": lengths.requests, "warm_up": lengths.warm_up},
        figures,
        {
            "express_read": _exactly(figures["read"]["express"], 1),
            "sessions_read": _exactly(figures["read"]["sessions"], 1),
            "sessions_write": _exactly(figures["write"]["sessions"], 2),
            "express_write": _exactly(figures["write"]["express"], 1),
        },
        charts=KINDS,
    )


def _exactly(measured: float, wanted: int) -> Target:
    return Target(measured, at_most=wanted, at_least=wanted)


async def _measure(
    peers: Sequence[str],
    server: PostgresServer,
    url: str,
    lengths: Lengths,
    advance: Callable[[], None],
) -> dict[str, Mapping[str, float]]:
    counted: dict[str, Mapping[str, float]] = {}

    async def count(peer: str) -> None:
        async with _behind_proxy(peer, server, url) as (proxy, service):
            counted[peer] = await _count(proxy, service, lengths, advance)

    async with asyncio.TaskGroup() as group:
        for peer in peers:
            group.create_task(count(peer))
    return counted


@asynccontextmanager
async def _behind_proxy(
    peer: str, server: PostgresServer, url: str
) -> AsyncIterator[tuple[Proxy, Service]]:
    async with proxy_before(server.host, server.port) as proxy:
        proxy.keeps_rollbacks = True
        with ExitStack() as stack:
            starting = serving({peer: Peer(peer, environment=ONE_BY_ONE)}, proxy.url(url))
            # In a thread: the peer connects through the proxy, which is of this event loop.
            services = await asyncio.to_thread(stack.enter_context, starting)
            try:
                yield proxy, services[peer]
            finally:
                await asyncio.to_thread(stack.close)


async def _count(
    proxy: Proxy, service: Service, lengths: Lengths, advance: Callable[[], None]
) -> dict[str, float]:
    counted = {}
    async with httpx.AsyncClient(base_url=service.url, timeout=30, trust_env=False) as client:
        for kind in KINDS:
            for number in range(lengths.warm_up):
                await _send(client, kind, number)
            await _quiet(proxy)
            trips, last = [proxy.round_trips], lengths.warm_up + lengths.requests
            for number in range(lengths.warm_up, last):
                await _send(client, kind, number)
                trips.append(proxy.round_trips)
            # The median: what a service asks the server for itself, now and then, is no request's.
            counted[kind] = median(after - before for before, after in pairwise(trips))
            advance()
    return counted


async def _send(client: httpx.AsyncClient, kind: str, number: int) -> None:
    if kind == "read":
        answer = await client.get(f"/users/{number + 1}")
    else:
        name = f"{client.base_url.port}-{number}"
        user = {"email": f"{name}@example.com", "username": name}
        answer = await client.post("/users", json=user)
    answer.raise_for_status()


async def _quiet(proxy: Proxy) -> None:
    """Wait for what a peer still does after its last response, such as a COMMIT."""
    before = -1
    while before < proxy.round_trips:
        before = proxy.round_trips
        await asyncio.sleep(0.05)

"""Processes that end by SIGTERM while they serve, and are replaced."""

import asyncio
from collections import Counter

import httpx
import pytest
import websockets
from sqlalchemy import func, select
from tests.integration.fastapi.notes import Model, Note
from tests.integration.fastapi.rolling import Balancer, Worker
from tests.servers.postgres import PostgresServer

from penstock import Database

CLIENTS = 8
COUNT = select(func.count()).select_from(Note)
CONNECTIONS = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'rolling'"


@pytest.fixture
async def url(database_url: str) -> str:
    database = Database.from_url(database_url, environment="serverless")
    async with database.engine.begin() as connection:
        await connection.run_sync(Model.metadata.create_all)
    return database_url


async def load(base_url: str, number: int, stop: asyncio.Event) -> Counter[str]:
    """Send requests one after the other; return how many had each outcome.

    Half of the clients keep their connections, and one in four has a long request in flight.
    """
    outcomes: Counter[str] = Counter()
    limits = httpx.Limits(max_keepalive_connections=number % 2)
    client = httpx.AsyncClient(base_url=base_url, limits=limits, trust_env=False, timeout=30)
    async with client:
        turn = 0
        while not stop.is_set():
            turn += 1
            method, path = ("POST", f"/notes/{number}-{turn}") if turn % 3 else ("GET", "/count")
            if number % 4 == 0:
                method, path = "GET", "/slow"
            try:
                outcome = f"{method} {(await client.request(method, path)).status_code}"
            except httpx.HTTPError as error:
                outcome = type(error).__name__
            outcomes[outcome] += 1
            await asyncio.sleep(0.01)
    return outcomes


async def test_no_request_fails_while_all_processes_are_replaced_twice(
    url: str, postgres: PostgresServer
) -> None:
    balancer, stop = Balancer(), asyncio.Event()
    workers = [Worker(url, 0.5) for _ in range(2)]
    balancer.workers = [await worker.until_ready() for worker in workers]
    async with balancer.serving() as base_url:
        loads = [asyncio.create_task(load(base_url, n, stop)) for n in range(CLIENTS)]
        exits = []
        for _ in range(2):
            replacing = [Worker(url, 0.5) for _ in workers]
            balancer.workers += [await worker.until_ready() for worker in replacing]
            for worker in workers:
                worker.terminate()
                exits.append(await worker.end())
                balancer.workers.remove(worker)
            workers = replacing
        stop.set()
        outcomes = sum([await each for each in loads], Counter[str]())
    for worker in workers:
        worker.terminate()
        exits.append(await worker.end())

    assert set(outcomes) == {"GET 200", "POST 201"}, outcomes
    assert balancer.refused == 0
    assert exits == [-15] * 6
    async with Database.from_url(url, environment="testing") as database:
        assert await database.reader.scalar(COUNT) == outcomes["POST 201"]
    assert postgres.execute(CONNECTIONS) == [(0,)]


async def test_from_sigterm_to_the_end(url: str, postgres: PostgresServer) -> None:
    worker = await Worker(url, 1.0, 1).until_ready()
    async with (
        httpx.AsyncClient(base_url=worker.url, trust_env=False, timeout=30) as client,
        client.stream("GET", "/endless") as stream,
        websockets.connect(f"{worker.url.replace('http', 'ws')}/socket") as socket,
    ):
        lines = stream.aiter_lines()
        assert await anext(lines) == "1"
        worker.terminate()
        while (ready := await client.get("/health/ready")).status_code == 200:
            pass
        answer = await client.get("/count")
        await socket.send("still there")
        echo = await socket.recv()
        with pytest.raises(httpx.RemoteProtocolError):
            async for _ in lines:
                pass
        with pytest.raises(websockets.ConnectionClosed):
            await socket.recv()

    assert (ready.status_code, ready.json()["status"]) == (503, "stopping")
    assert (answer.status_code, answer.headers["connection"]) == (200, "close")
    assert echo == "still there"
    assert await worker.end() == -15
    assert postgres.execute(CONNECTIONS) == [(0,)]


async def test_a_second_sigterm_ends_the_delay(url: str) -> None:
    worker = await Worker(url, 600.0).until_ready()

    worker.terminate()
    while worker.is_ready:
        await worker.look()
    worker.terminate()

    assert await worker.end() == -15

"""Ways to look at a pool from outside, and to let things happen to its connections."""

import asyncio
from collections import Counter
from collections.abc import Callable, Iterable

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine
from tests.contract.subject import backend_of
from tests.servers.postgres import PostgresServer

from penstock import PenstockPool
from penstock.pool.events import ConnectionClosed, PoolEvent
from penstock.pool.slot import CloseReason

MakeEngine = Callable[..., AsyncEngine]
"""Takes options of ``create_async_engine``; the engine is disposed of after the test."""


def pool_of(engine: AsyncEngine) -> PenstockPool:
    """Return the engine's pool."""
    assert isinstance(engine.pool, PenstockPool)
    return engine.pool


async def use(engine: AsyncEngine, until: asyncio.Event | None = None) -> int:
    """Check out a connection, run a statement, keep it for a while; return the server's process."""
    async with engine.connect() as connection:
        process: int = await connection.scalar(text("SELECT pg_backend_pid()"))
        if until is not None:
            await until.wait()
    return process


async def backend(engine: AsyncEngine) -> int:
    """Check out a connection and return it unused; return the server's process behind it."""
    async with engine.connect() as connection:
        return backend_of((await connection.get_raw_connection()).driver_connection)


async def backends(engine: AsyncEngine, count: int) -> list[int]:
    """Check out several connections at once, and tell which they were."""
    connections = [await engine.connect() for _ in range(count)]
    drivers = [(await each.get_raw_connection()).driver_connection for each in connections]
    for connection in connections:
        await connection.close()
    return [backend_of(driver) for driver in drivers]


def kill(postgres: PostgresServer, *processes: int) -> None:
    """End processes of the server; the event loop stands still until they are gone."""
    postgres.execute(
        f"SELECT pg_terminate_backend(process, 10000) FROM unnest(ARRAY{[*processes]}) AS process"
    )


def age(engine: AsyncEngine, seconds: float) -> None:
    """Let the idle connections of a pool have been idle for longer than they have."""
    for slot in pool_of(engine).ledger:
        slot.since -= seconds


async def outcome(engine: AsyncEngine) -> str:
    """Ask for a connection; tell whether it was "served", or the name of what was raised."""
    try:
        await use(engine)
    except Exception as error:  # noqa: BLE001 - it is what the test asks about
        return type(error).__name__
    return "served"


async def outcomes(asking: Iterable["asyncio.Task[str]"]) -> Counter[str]:
    """Count what became of callers, all of whom are answered long before any timeout."""
    async with asyncio.timeout(10):
        return Counter(await asyncio.gather(*asking))


def ask(engine: AsyncEngine, callers: int) -> "list[asyncio.Task[str]]":
    """Let so many ask at the same time."""
    return [asyncio.create_task(outcome(engine)) for _ in range(callers)]


def events_of(engine: AsyncEngine) -> list[PoolEvent]:
    """Note all that happens in a pool from now on."""
    events: list[PoolEvent] = []
    pool_of(engine).listeners.add(events.append)
    return events


def closed(events: list[PoolEvent]) -> list[CloseReason]:
    """Tell why connections were closed, in order."""
    return [event.why for event in events if isinstance(event, ConnectionClosed)]

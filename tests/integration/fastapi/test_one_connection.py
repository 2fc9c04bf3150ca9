"""One connection per request: each pair of what a route may ask for, on pools of one and of three.

Thirty requests at once do the same two things: one after the other, the second while the first is
open, and both at the same time. Each pair needs one connection, or a second one while it keeps the
first. In the first case all succeed. In the second none waits for itself: on a pool of one all are
refused, on a pool of three some succeed, and the others are refused.
"""

import asyncio
import logging
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from itertools import count, product
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from sqlalchemy import insert, select, text
from tests.integration.fastapi.notes import Note
from tests.servers.web import client_of

import penstock
from penstock import Database, PenstockPool
from penstock.fastapi import Reader, ReadSession, Writer, WriteSession, install
from penstock.pool.events import NestedCheckoutSeen, PoolEvent

NOTES = select(Note.text)
SHORT = text("SELECT 1 FROM pg_sleep(0.002)")
REQUESTS = {1: 6, 3: 30}
"""By the pool's size."""
NUMBERS = count()


class Route:
    """What a route may ask for, each as something that is open for the length of a block."""

    def __init__(
        self,
        reading: penstock.database.ReadOnlySession,
        writing: Any,
        reader: penstock.express.Reader,
        writer: penstock.express.Writer,
    ) -> None:
        self._reading, self._writing = reading, writing
        self._reader, self._writer = reader, writer

    @asynccontextmanager
    async def read_session(self) -> AsyncIterator[None]:
        assert await self._reading.scalar(SHORT) == 1
        yield
        assert await self._reading.scalar(SHORT) == 1

    @asynccontextmanager
    async def write_session(self) -> AsyncIterator[None]:
        await self._writing.execute(insert(Note).values(text=f"session {next(NUMBERS)}"))
        yield
        await self._writing.execute(insert(Note).values(text=f"session {next(NUMBERS)}"))

    @asynccontextmanager
    async def express_read(self) -> AsyncIterator[None]:
        assert await self._reader.scalar(SHORT) == 1
        yield
        assert await self._reader.scalar(SHORT) == 1

    @asynccontextmanager
    async def express_write(self) -> AsyncIterator[None]:
        assert await self._writer.execute(insert(Note), text=f"express {next(NUMBERS)}") == 1
        yield
        assert await self._writer.execute(insert(Note), text=f"express {next(NUMBERS)}") == 1

    @asynccontextmanager
    async def stream(self) -> AsyncIterator[None]:
        async with self._reader.stream(NOTES) as rows:
            await anext(rows, None)
            yield
            await anext(rows, None)

    @asynccontextmanager
    async def snapshot(self) -> AsyncIterator[None]:
        async with self._reader.snapshot() as moment:
            await moment.all(NOTES)
            yield
            await moment.all(NOTES)


KINDS = ("read_session", "write_session", "express_read", "express_write", "stream", "snapshot")
Kind = Callable[[], AbstractAsyncContextManager[None]]


async def one_after_the_other(first: Kind, second: Kind) -> None:
    async with first():
        pass
    async with second():
        pass


async def the_second_while_the_first_is_open(first: Kind, second: Kind) -> None:
    async with first(), second():
        pass


async def both_at_the_same_time(first: Kind, second: Kind) -> None:
    async def alone(kind: Kind) -> None:
        async with kind():
            pass

    outcomes = await asyncio.gather(alone(first), alone(second), return_exceptions=True)
    for outcome in outcomes:
        if outcome is not None:
            raise outcome


WAYS = (one_after_the_other, the_second_while_the_first_is_open, both_at_the_same_time)
LASTING = {"stream", "snapshot"}
"""What holds a connection of its own for as long as it is open."""
APART = {"express_write"} | LASTING
"""What is a transaction of its own."""


def needs_second(first: str, second: str, way: Any) -> bool:
    """Return whether a request asks for another connection while it keeps one."""
    if way is the_second_while_the_first_is_open and first in LASTING:
        return second != "express_read"
    # A session that has written keeps its connection until the response leaves.
    if way is not one_after_the_other and {first, second} == {"write_session", "express_write"}:
        return True
    return first == "write_session" and second in APART


def is_right(found: Counter[int], size: int, *, second: bool, nested: bool) -> bool:
    """Return whether all succeeded where one connection is enough, and none hung elsewhere."""
    if not second:
        return found == {200: found.total()} and not nested
    is_answered = found[200] + found[503] == found.total()
    return is_answered and (found[200] == 0) == (size == 1)


def application(tables: str, size: int) -> tuple[FastAPI, Database, list[PoolEvent]]:
    database = Database.from_url(
        tables, environment="production", pool_size=size, max_overflow=0, codel_target=None
    )
    seen: list[PoolEvent] = []
    assert isinstance(database.engine.pool, PenstockPool)
    database.engine.pool.listeners.add(seen.append)
    app = FastAPI()
    install(app, database, routes=False, tune_gc=False)
    ways = {way.__name__: way for way in WAYS}

    @app.get("/{way}/{first}/{second}")
    async def both(  # noqa: PLR0917 - FastAPI passes them by name
        way: str,
        first: str,
        second: str,
        reading: ReadSession,
        writing: WriteSession,
        reader: Reader,
        writer: Writer,
    ) -> None:
        route = Route(reading, writing, reader, writer)
        await ways[way](getattr(route, first), getattr(route, second))

    return app, database, seen


async def answers(client: httpx.AsyncClient, path: str, times: int) -> Counter[int]:
    async with asyncio.timeout(20):  # and not pool_timeout, of 30 s
        requests = [client.get(path) for _ in range(times)]
        return Counter([answer.status_code for answer in await asyncio.gather(*requests)])


@pytest.fixture
def quiet() -> Iterator[None]:
    """Log nothing of thousands of refusals."""
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


@pytest.mark.usefixtures("quiet")
@pytest.mark.parametrize("size", [1, 3])
@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
async def test_a_request_takes_one_connection_or_is_told_that_it_would_wait_for_itself(
    tables: str, size: int, way: Any
) -> None:
    app, database, seen = application(tables, size)
    wrong = {}
    times = REQUESTS[size]
    async with database, client_of(app) as client:
        for first, second in product(KINDS, KINDS):
            if way is both_at_the_same_time and first == second and first.endswith("session"):
                continue  # which SQLAlchemy refuses
            seen.clear()
            found = await answers(client, f"/{way.__name__}/{first}/{second}", times)
            nested = any(isinstance(event, NestedCheckoutSeen) for event in seen)
            needed = needs_second(first, second, way)
            if not is_right(found, size, second=needed, nested=nested):
                wrong[first, second] = dict(found), nested, needed
        assert database.pool.snapshot().checked_out == 0

    assert wrong == {}

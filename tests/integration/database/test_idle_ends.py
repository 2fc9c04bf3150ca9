"""Connections that something in between ends for being idle: which guard is for what."""

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from itertools import chain, combinations
from threading import Thread
from typing import Any, TypeVar

import pytest
from sqlalchemy import Column, MetaData, Table, Text, literal, select
from tests.eventually import eventually
from tests.servers.postgres import PostgresServer
from tests.servers.proxy import IdleEnd, Proxy, proxy_before

from penstock import Database, DatabaseSettings
from penstock.pool.events import Pinged, PoolEvent
from penstock.pool.slot import CHECKING

T = TypeVar("T")
MakeProxy = Callable[[IdleEnd, float], Any]

LIMIT = 1.5
"""Seconds after which the proxy ends what is idle; the others are shares of it."""
GUARDS = {"pool_recycle": 0.5 * LIMIT, "keepalive": 0.25 * LIMIT, "idle_before_ping": 0.2 * LIMIT}
OFF = {"pool_recycle": -1, "keepalive": 0.0, "idle_before_ping": 3600.0}
PAUSES = [0.6 * LIMIT, 1.1 * LIMIT]
LONG = 30.0

ALL_ON: tuple[str, ...] = ()
NONE_ON = tuple(GUARDS)
PING_ALONE = ("pool_recycle", "keepalive")
SUBSETS = list(chain.from_iterable(combinations(GUARDS, count) for count in range(4)))
UNBOUNDED_ON_PSYCOPG = (NONE_ON, ("pool_recycle", "idle_before_ping"))
"""There the kernel bounds a statement without an answer, by TCP_USER_TIMEOUT, which a proxy on this
machine is acknowledged within."""
CASES = [
    *((off, IdleEnd.SILENCE, "asyncpg") for off in SUBSETS),
    *((off, IdleEnd.SILENCE, "psycopg") for off in SUBSETS if off not in UNBOUNDED_ON_PSYCOPG),
    *(
        (off, end, driver)
        for off in (ALL_ON, NONE_ON)
        for end in (IdleEnd.CLOSE, IdleEnd.RESET)
        for driver in ("asyncpg", "psycopg")
    ),
]

WRITTEN = Table("written", MetaData(), Column("by", Text))
ONE = select(literal(1))


@pytest.fixture(autouse=True)
def frequent_housekeeping(monkeypatch: pytest.MonkeyPatch) -> None:
    """Has every pool look after its connections fifty times a second instead of once."""
    monkeypatch.setattr("penstock.pool.runtime.TICK_INTERVAL", 0.02)


@pytest.fixture
def make_proxy(postgres: PostgresServer) -> Iterator[MakeProxy]:
    """Makes proxies in an event loop of their own, which runs while the test's is stopped."""
    loop = asyncio.new_event_loop()
    thread = Thread(target=loop.run_forever)
    thread.start()

    async def run(coroutine: Coroutine[Any, Any, T]) -> T:
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(coroutine, loop))

    @asynccontextmanager
    async def make(end: IdleEnd, limit: float) -> AsyncIterator[Proxy]:
        stack = AsyncExitStack()
        proxy = await run(stack.enter_async_context(proxy_before(postgres.host, postgres.port)))
        proxy.idle_end, proxy.idle_limit = end, limit
        try:
            yield proxy
        finally:
            await run(stack.aclose())

    yield make
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()


@dataclass
class Service:
    """A database behind a proxy that ends what is idle, and what became of its requests."""

    name: str
    database: Database
    proxy: Proxy
    events: list[PoolEvent] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)

    @property
    def dead_pings(self) -> int:
        return sum(isinstance(event, Pinged) and not event.is_alive for event in self.events)

    async def burst(self) -> None:
        """Have requests of all kinds at once, more of them than connections."""
        kinds = [self.read, self.write, self.express_read, self.express_write]
        outcomes = [asyncio.wait_for(kind(), LONG) for kind in kinds]
        for outcome in await asyncio.gather(*outcomes, return_exceptions=True):
            if outcome is not None:
                self.errors.append(type(outcome).__name__)

    async def read(self) -> None:
        async with self.database.read() as session:
            await session.scalar(ONE)

    async def write(self) -> None:
        async with self.database.write() as session:
            await session.execute(WRITTEN.insert().values(by=self.name))

    async def express_read(self) -> None:
        await self.database.reader.scalar(ONE)

    async def express_write(self) -> None:
        await self.database.writer.execute(WRITTEN.insert(), by=self.name)


@asynccontextmanager
async def service(
    proxies: Any, url: str, driver: str, guards: dict[str, float], name: str = ""
) -> AsyncIterator[Service]:
    async with proxies as proxy:
        settings = DatabaseSettings.of(
            proxy.url(url).replace("asyncpg", driver),
            environment="testing",
            pool_size=3,
            max_overflow=0,
            pool_timeout=25.0,
            connect_timeout=2.0,  # one may be under way when the process stops
            command_timeout=2.0,
            telemetry=False,
        )
        # In fractions of seconds, which pool_recycle does not accept.
        database = Database(settings.model_copy(update=guards))
        await database.open()
        made = Service(name, database, proxy)
        database.pool.listeners.add(made.events.append)
        yield made
    await database.close()  # without its proxy, whose silence each connection would wait for


async def test_each_guard_is_for_something_and_together_no_request_notices(
    make_proxy: MakeProxy, database_url: str
) -> None:
    async with AsyncExitStack() as stack:
        services: dict[tuple[tuple[str, ...], IdleEnd, str], Service] = {}
        for off, end, driver in CASES:
            guards = {**GUARDS, **{name: OFF[name] for name in off}}
            made = service(make_proxy(end, LIMIT), database_url, driver, guards, str(len(services)))
            services[off, end, driver] = await stack.enter_async_context(made)
        first = services[CASES[0]].database
        async with first.write() as session:
            await (await session.connection()).run_sync(WRITTEN.metadata.create_all)

        for pause in PAUSES:
            await asyncio.gather(*(each.burst() for each in services.values()))
            await asyncio.sleep(pause)
        await asyncio.gather(*(each.burst() for each in services.values()))
        async with first.read() as session:
            written = Counter(await session.scalars(select(WRITTEN.c.by)))
    for (off, end, driver), each in services.items():
        if (off, end) == (NONE_ON, IdleEnd.SILENCE):
            assert {*each.errors} & {"StatementTimeout", "CommitOutcomeUnknown"}
        else:
            assert (off, end, driver, each.errors) == (off, end, driver, [])
            assert written[each.name] == 2 * (len(PAUSES) + 1)
        if end is not IdleEnd.SILENCE or off == ALL_ON:
            assert each.dead_pings == 0
        elif off == PING_ALONE:
            assert each.dead_pings > 0


async def test_no_request_notices_that_the_process_was_stopped(
    make_proxy: MakeProxy, database_url: str
) -> None:
    async with AsyncExitStack() as stack:
        services = []
        for off in SUBSETS:
            if {"pool_recycle", "idle_before_ping"}.issubset(off):
                continue
            guards = {**GUARDS, **{name: OFF[name] for name in off}}
            made = service(make_proxy(IdleEnd.SILENCE, LIMIT), database_url, "asyncpg", guards)
            services.append(await stack.enter_async_context(made))
        async with services[0].database.write() as session:
            await (await session.connection()).run_sync(WRITTEN.metadata.create_all)
        await asyncio.gather(*(each.burst() for each in services))
        ledgers = [each.database.pool.ledger for each in services]
        # What the server has answered before counts as fresh when the process goes on.
        await eventually(lambda: not any(each.opening or each.count(CHECKING) for each in ledgers))
        time.sleep(1.5 * LIMIT)  # noqa: ASYNC251 - nothing is looked after meanwhile
        await asyncio.gather(*(each.burst() for each in services))

        assert [each.errors for each in services] == [[]] * len(services)


async def hold_session(database: Database, seconds: float) -> None:
    async with database.read() as session:
        await session.scalar(ONE)
        await asyncio.sleep(seconds)


async def hold_after_commit(database: Database, seconds: float) -> None:
    async with database.connection() as connection:
        await connection.execute(ONE)
        await connection.commit()
        await asyncio.sleep(seconds)


async def hold_unused(database: Database, seconds: float) -> None:
    async with database.engine.connect() as connection:
        await connection.get_raw_connection()
        await asyncio.sleep(seconds)


HOLDS: list[tuple[str, Callable[[Database, float], Awaitable[None]]]] = [
    ("asyncpg", hold_session),
    ("asyncpg", hold_after_commit),
    ("asyncpg", hold_unused),
    ("psycopg", hold_after_commit),
]


async def test_what_was_held_without_a_word_is_pinged_before_the_next_request(
    make_proxy: MakeProxy, database_url: str
) -> None:
    async def dead_pings_after(
        driver: str, hold: Callable[[Database, float], Awaitable[None]]
    ) -> int:
        # On asyncpg the driver's own limit comes before the ping's.
        guards = {**OFF, "idle_before_ping": 0.2, "command_timeout": 1.0}
        proxies = make_proxy(IdleEnd.SILENCE, 0.5)
        async with service(proxies, database_url, driver, guards) as one:
            await hold(one.database, 1.0)
            async with asyncio.timeout(LONG):
                await one.express_read()
            assert one.proxy.idle_ends == 1
            return one.dead_pings

    held = [dead_pings_after(driver, hold) for driver, hold in HOLDS]
    assert await asyncio.gather(*held) == [1] * len(HOLDS)

"""A network that can fail between the pools of this folder and PostgreSQL."""

from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from tests.adversity.backends import BackendCount, counting_backends
from tests.integration.engine.engines import with_driver
from tests.integration.pool.pools import MakeEngine
from tests.servers.postgres import PostgresServer
from tests.servers.proxy import Proxy, proxy_before

from penstock import PenstockPool


@pytest.fixture
async def proxy(postgres: PostgresServer, database_url: str) -> AsyncIterator[Proxy]:
    """A proxy before the server, closed before the database is dropped."""
    async with proxy_before(postgres.host, postgres.port) as proxy:
        yield proxy


@pytest.fixture
def driver(request: pytest.FixtureRequest) -> str:
    """The driver of ``make_engine``: asyncpg unless a test is run over several."""
    return getattr(request, "param", "asyncpg")


@pytest.fixture
async def make_engine(proxy: Proxy, database_url: str, driver: str) -> AsyncIterator[MakeEngine]:
    """Makes engines on an empty database of their own."""
    engines: list[AsyncEngine] = []

    def make(url: str = "", **options: Any) -> AsyncEngine:
        options = {"poolclass": PenstockPool, **options}
        url = with_driver(url or proxy.url(database_url), driver)
        engines.append(create_async_engine(url, **options))
        return engines[-1]

    yield make
    proxy.heal()
    for engine in engines:
        await engine.dispose()


@pytest.fixture
def frequent_housekeeping(monkeypatch: pytest.MonkeyPatch) -> None:
    """Has every pool look after its connections fifty times a second instead of once."""
    monkeypatch.setattr("penstock.pool.runtime.TICK_INTERVAL", 0.02)


@pytest.fixture
def count(database_url: str) -> Iterator[BackendCount]:
    """The server's own count of the connections."""
    with counting_backends(database_url) as count:
        yield count

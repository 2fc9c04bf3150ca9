"""Databases of a whole module, so that its tables are made once, and databases behind a proxy."""

from collections.abc import AsyncIterator, Iterator

import pytest
from tests.servers.postgres import PostgresServer
from tests.servers.proxy import Proxy, proxy_before

from penstock import Database


@pytest.fixture(scope="module")
def module_url(postgres: PostgresServer) -> Iterator[str]:
    """The ``postgresql+asyncpg://`` URL of a database that the module's tests share."""
    with postgres.database() as url:
        yield url


@pytest.fixture
async def proxy(postgres: PostgresServer) -> AsyncIterator[Proxy]:
    """A proxy before the server."""
    async with proxy_before(postgres.host, postgres.port) as proxy:
        yield proxy


@pytest.fixture
async def behind_proxy(proxy: Proxy, database_url: str) -> AsyncIterator[Database]:
    """An empty database with a pool of one connection, through the proxy."""
    async with Database.from_url(
        proxy.url(database_url), environment="testing", pool_size=1, max_overflow=0
    ) as database:
        yield database
        proxy.heal()

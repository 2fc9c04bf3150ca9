"""The same test on every driver."""

from pathlib import Path

import pytest
from tests.integration.engine.engines import with_driver

DATABASES = {
    "asyncpg": "database_url",
    "psycopg": "database_url",
    "asyncmy": "mariadb_url",
    "aiomysql": "mariadb_url",
}


def url_on(driver: str, request: pytest.FixtureRequest) -> str:
    url: str = request.getfixturevalue(DATABASES[driver])
    return with_driver(url, driver)


@pytest.fixture(params=["asyncpg", "psycopg", "asyncmy", "aiomysql", "aiosqlite"])
def any_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty database on each driver in turn."""
    if request.param == "aiosqlite":
        return f"sqlite+aiosqlite:///{tmp_path / 'test.db'}"
    return url_on(request.param, request)


@pytest.fixture(params=["asyncpg", "psycopg", "asyncmy", "aiomysql"])
def network_url(request: pytest.FixtureRequest) -> str:
    """An empty database on each driver that reaches it through a network."""
    return url_on(request.param, request)


@pytest.fixture(params=["asyncpg", "psycopg"])
def postgresql_url(request: pytest.FixtureRequest) -> str:
    """An empty database on each PostgreSQL driver."""
    return url_on(request.param, request)


@pytest.fixture(params=["asyncmy", "aiomysql"])
def mysql_url(request: pytest.FixtureRequest) -> str:
    """An empty database on each MySQL driver."""
    return url_on(request.param, request)

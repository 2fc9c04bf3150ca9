"""A fleet that looks often, so that a test need not wait for long."""

from collections.abc import Iterator

import pytest
from tests.servers.parts import require_part
from tests.servers.postgres import PostgresServer, own_postgres, postgres_programs


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the members of this process look ten times as often, and wait a tenth as long."""
    monkeypatch.setattr("penstock.fleet.fleet.LOOK_INTERVAL", 0.1)
    monkeypatch.setattr("penstock.fleet.share.CLAIM_WINDOW", 0.3)
    monkeypatch.setattr("penstock.fleet.share.OUTSIDE_WINDOW", 0.5)


@pytest.fixture(scope="module")
def small_server() -> Iterator[PostgresServer]:
    """A server of the module's own that accepts 40 connections, of which 3 are reserved."""
    programs = postgres_programs()
    require_part("PostgreSQL", present=programs, remedy="set TEST_POSTGRES_BIN")
    assert programs is not None
    with own_postgres(programs, {"max_connections": "40"}) as server:
        yield server


@pytest.fixture
def small_url(small_server: PostgresServer) -> Iterator[str]:
    """The URL of an empty database on it, of a role without any rights elsewhere."""
    with small_server.database() as url:
        yield url

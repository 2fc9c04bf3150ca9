"""Fixtures for every folder: the real servers, and a fresh database on one of them per test."""

import gc
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings
from tests.servers.certificates import Certificates, make_certificates
from tests.servers.mariadb import MariadbServer, mariadb_server
from tests.servers.postgres import PostgresServer, encrypted_postgres, postgres_server

# How long an example takes is a matter of the machine.
settings.register_profile("any machine", deadline=None)
settings.load_profile("any machine")

# Logfire's makes the start of each process half as slow again.
os.environ["PYDANTIC_DISABLE_PLUGINS"] = "__all__"

# A shell has what it runs in the background ignore it, and so would the processes that tests start.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# They wait for real servers, browsers and clocks.
REAL_TIME = {"adversity", "browser", "clusters", "diagnosis", "integration", "provisioning"}
SERVERS = {"postgres", "mariadb", "cluster", "own_cluster", "patroni"}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests whose outcome depends on real time, and those that need a server."""
    for item in items:
        if item.path.relative_to(Path(__file__).parent).parts[0] in REAL_TIME:
            item.add_marker("real_time")
        if isinstance(item, pytest.Function) and SERVERS.intersection(item.fixturenames):
            item.add_marker("server")


@pytest.fixture(autouse=True, scope="module")
def small_heap() -> Iterator[None]:
    """Leave what a module has made out of later collections, which late in a run take seconds.

    What it has left open is found by its own last test, and not by another module's first.
    """
    yield
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """A running PostgreSQL, one for the whole run."""
    with postgres_server() as server:
        yield server


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    """Certificates of servers and clients, and of who vouches for them."""
    return make_certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="session")
def postgres_with_tls(certificates: Certificates) -> Iterator[PostgresServer]:
    """A running PostgreSQL with a certificate that ends in two days."""
    with encrypted_postgres(certificates) as server:
        yield server


@pytest.fixture
def database_url(postgres: PostgresServer) -> Iterator[str]:
    """The ``postgresql+asyncpg://`` URL of an empty database, dropped after the test."""
    with postgres.database() as url:
        yield url


@pytest.fixture(autouse=True, scope="session")
def unasked_server() -> Iterator[None]:
    """Has no telemetry in this process ask the server: it takes a connection and a round trip."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("penstock.telemetry.telemetry.FIRST_QUERY_DELAY", 600.0)
        yield


@pytest.fixture(scope="session")
def mariadb() -> Iterator[MariadbServer]:
    """A running MariaDB, one for the whole run."""
    with mariadb_server() as server:
        yield server


@pytest.fixture
def mariadb_url(mariadb: MariadbServer) -> Iterator[str]:
    """The ``mysql+asyncmy://`` URL of an empty database, dropped after the test."""
    with mariadb.database() as url:
        yield url

"""Every test of this folder runs over both pools, and over the drivers that its marker names."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from sqlalchemy.pool import AsyncAdaptedQueuePool
from tests.contract.subject import Subject
from tests.integration.engine.engines import with_driver
from tests.servers.mariadb import MariadbServer
from tests.servers.postgres import PostgresServer

from penstock import PenstockPool

IMPLEMENTATIONS: dict[str, type[AsyncAdaptedQueuePool]] = {
    "ours": PenstockPool,
    "stock": AsyncAdaptedQueuePool,
}
SERVERS = {
    "asyncpg": "postgres",
    "psycopg": "postgres",
    "asyncmy": "mariadb",
    "aiomysql": "mariadb",
    "aiosqlite": None,
}
EVERY_DRIVER = tuple(SERVERS)
USUAL_DRIVERS = ("asyncpg", "aiosqlite")
SERVER = pytest.mark.server

# Where the two pools differ on purpose. A test marked with ``differs`` holds for one of them only.
DIFFERENCES = {
    "checkin listener": (
        "A slot of the stock pool is lost for good when a checkin listener fails. Ours comes back."
    ),
    "waiters of a failed connect": (
        "When a connect fails or is cancelled, the stock pool tells nobody who waits, and the free "
        "slot is not used until they time out. Ours gives the next one its turn."
    ),
    "overflow": (
        "The stock pool closes a connection above pool_size in the returning request, so that each "
        "burst connects anew. Ours keeps it while it is used, and closes it once it has idled for "
        "overflow_idle seconds."
    ),
    "checked out at dispose": (
        "The stock pool takes a connection that was checked out at dispose() back into the "
        "disposed pool, where it stays open until the garbage collector finds it. Ours closes it "
        "on return."
    ),
}


class Case(NamedTuple):
    """One implementation on one driver."""

    implementation: str
    driver: str


def pytest_configure(config: pytest.Config) -> None:
    """Register the markers of this folder."""
    config.addinivalue_line("markers", "every_driver: the test runs on all of them")
    config.addinivalue_line("markers", "drivers(*names): the test runs on these drivers")
    config.addinivalue_line(
        "markers", "differs(what, only): it holds for one implementation, as DIFFERENCES explains"
    )


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run each test over the cases that its markers leave."""
    if "subject" not in metafunc.fixturenames:
        return
    cases = [
        pytest.param(Case(implementation, driver), marks=SERVER if SERVERS[driver] else ())
        for implementation in _implementations(metafunc.definition)
        for driver in _drivers(metafunc.definition)
    ]
    metafunc.parametrize("subject", cases, ids="-".join, indirect=True)


def _implementations(test: pytest.Item) -> tuple[str, ...]:
    marker = test.get_closest_marker("differs")
    if marker is None:
        return tuple(IMPLEMENTATIONS)
    (what,), only = marker.args, marker.kwargs["only"]
    assert what in DIFFERENCES
    assert only in IMPLEMENTATIONS
    return (only,)


def _drivers(test: pytest.Item) -> tuple[str, ...]:
    if test.get_closest_marker("every_driver"):
        return EVERY_DRIVER
    marker = test.get_closest_marker("drivers")
    named = marker.args if marker else USUAL_DRIVERS
    assert set(named) <= set(EVERY_DRIVER)
    return named


@pytest.fixture(scope="session")
def postgres_contract(postgres: PostgresServer) -> Iterator[str]:
    """The URL of one PostgreSQL database for the whole run."""
    with postgres.database() as url:
        yield url


@pytest.fixture(scope="session")
def mariadb_contract(mariadb: MariadbServer) -> Iterator[str]:
    """The URL of one MariaDB database for the whole run."""
    with mariadb.database() as url:
        yield url


@pytest.fixture
async def subject(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Subject]:
    """One pool implementation on one driver."""
    case: Case = request.param
    server, url = _server_and_url(case.driver, request, tmp_path)
    subject = Subject(IMPLEMENTATIONS[case.implementation], url, server)
    yield subject
    await subject.close()


def _server_and_url(
    driver: str, request: pytest.FixtureRequest, directory: Path
) -> tuple[Any, str]:
    name = SERVERS[driver]
    if name is None:
        return None, f"sqlite+aiosqlite:///{directory / 'test.db'}"
    url: str = request.getfixturevalue(f"{name}_contract")
    return request.getfixturevalue(name), with_driver(url, driver)

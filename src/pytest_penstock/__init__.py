"""The pytest plugin: a real, migrated PostgreSQL for a test run, in which each test is undone.

Where no test uses it, it costs the import of this module: everything else is imported by fixtures.
"""

import inspect
import os
import sys
from collections.abc import AsyncIterator, Collection, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import urlsplit

import pytest

if TYPE_CHECKING:
    import httpx
    from fastapi import FastAPI
    from fastapi.testclient import TestClient
    from sqlalchemy import MetaData

    from penstock import Database

_RUN_VARIABLE = "PENSTOCK_TEST_RUN"
_SERVER_VARIABLE = "TEST_DATABASE_URL"
_LONGEST_NAME = 32
"""Characters of the name that a database has in common with that of ``TEST_DATABASE_URL``."""


@dataclass(frozen=True)
class Run:
    """One run of pytest, of which a worker of pytest-xdist is a part.

    Args:
        name: In the names of all that the run makes.
        worker: The worker's name; None for pytest itself, which removes at its end what there is.
        server_url: Leads to the server and to a database there; None for an own server.
    """

    name: str
    worker: str | None
    server_url: str | None

    @classmethod
    def current(cls) -> Self:
        """Return the run that this process belongs to, of which its workers are told."""
        parent, _, name = os.environ.get(_RUN_VARIABLE, "").partition(":")
        worker = os.environ.get("PYTEST_XDIST_WORKER")
        if worker is None or parent != str(os.getppid()):
            worker, name = None, os.urandom(4).hex()
            os.environ[_RUN_VARIABLE] = f"{os.getpid()}:{name}"
        return cls(name, worker, os.environ.get(_SERVER_VARIABLE) or None)

    @property
    def directory(self) -> Path:
        """Where its server and what its processes tell each other are; made when needed."""
        # Not the directory of temporary files: a socket's path must be short, and in reach of the
        # account that root runs a server as.
        return Path("/tmp", f"penstock-test-{self.name}")  # noqa: S108 - its name is random

    @property
    def prefix(self) -> str:
        """What the names of its databases begin with."""
        base = "test" if self.server_url is None else urlsplit(self.server_url).path.strip("/")
        return f"{base[:_LONGEST_NAME]}_{self.name}_"

    def url(self, database: str | None = None) -> str:
        """Return the URL of a database of the run.

        Args:
            database: What its name ends in; None for that of this process.
        """
        name = f"{self.prefix}{database or self.worker or 'main'}"
        if self.server_url is not None:
            return urlsplit(self.server_url)._replace(path=f"/{name}").geturl()
        return f"postgresql+asyncpg://postgres@/{name}?host={self.directory}/server&port=5432"


LOOP_SCOPES = ("function", "class", "module", "package", "session")
"""For how long an event loop of pytest-asyncio may last."""
_RUN = pytest.StashKey[Run]()
_FAILED = pytest.StashKey[bool]()
_INI = {
    "penstock_app": "the application, as module:name of a FastAPI or of what makes one",
    "penstock_metadata": "its tables, as module:name of a MetaData; without, Alembic makes them",
    "penstock_alembic": "Alembic's configuration, if it is not alembic.ini in the root directory",
    "penstock_variable": "the environment variable from which the application takes its URL",
}


def pytest_addoption(parser: pytest.Parser) -> None:
    """Declare the options of the configuration file."""
    for name, meaning in _INI.items():
        default = "DATABASE_URL" if name == "penstock_variable" else ""
        parser.addini(name, f"Penstock: {meaning}", default=default)


@pytest.hookimpl(tryfirst=True)
def pytest_load_initial_conftests(early_config: pytest.Config) -> None:
    """Lead the application to the test database before anything can import it."""
    run = early_config.stash[_RUN] = Run.current()
    if early_config.getini("penstock_app"):
        variable: str = early_config.getini("penstock_variable")
        os.environ[variable] = run.url()
        os.environ[f"{variable.removesuffix('URL')}REPLICAS"] = ""  # the service's have no copy
        os.environ.setdefault("ENVIRONMENT", "testing")
    if early_config.getini("penstock_app") or early_config.getini("penstock_metadata"):
        sys.path.append(str(early_config.rootpath))  # python -m pytest has it there as well


def pytest_configure(config: pytest.Config) -> None:
    """Have pytest-asyncio run the fixture of its tests, where it is there."""
    if _has_pytest_asyncio(config):
        config.pluginmanager.import_plugin("pytest_penstock.asyncio_fixture")


def _has_pytest_asyncio(config: pytest.Config) -> bool:
    # Its name depends on how it was loaded.
    plugin = sys.modules.get("pytest_asyncio.plugin")
    return plugin is not None and config.pluginmanager.is_registered(plugin)


def pytest_unconfigure(config: pytest.Config) -> None:
    """Remove what the run has made, also after Ctrl-C."""
    run = config.stash.get(_RUN, None)
    if run is not None and run.worker is None and run.directory.exists():
        from pytest_penstock.databases import remove

        remove(run)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Do not repeat for every test why there is no database."""
    if item.config.stash.get(_FAILED, False) and "penstock_url" in _fixtures_of(item):
        pytest.fail("There is no test database; the first error has the reason.", pytrace=False)


def _fixtures_of(item: pytest.Item) -> Collection[str]:
    return item.fixturenames if isinstance(item, pytest.Function) else ()


@pytest.fixture(scope="session")
def penstock_metadata(request: pytest.FixtureRequest) -> "MetaData | None":
    """The tables to create, by ``penstock_metadata``; None where Alembic does. Override it."""
    named: str = request.config.getini("penstock_metadata")
    if not named:
        return None
    from sqlalchemy import MetaData

    found = _load(named)
    if not isinstance(found, MetaData):
        pytest.fail(
            f"penstock_metadata = {named} is no MetaData; that of a base class is its .metadata.",
            pytrace=False,
        )
    return found


@pytest.fixture(scope="session")
def penstock_url(request: pytest.FixtureRequest, penstock_metadata: "MetaData | None") -> str:
    """The URL of this process's database, which has the tables and nothing else.

    The server is that of ``TEST_DATABASE_URL``, or one that is started for this run.
    """
    from pytest_penstock.databases import Unavailable, prepare

    config = request.config
    run, failure = config.stash[_RUN], ""
    try:
        prepare(run, penstock_metadata, _alembic(config), config.getini("penstock_variable"))
    except Unavailable as error:
        failure = str(error)
    if failure:  # told outside of what it was caused by, which pytest would tell again
        config.stash[_FAILED] = True
        pytest.fail(failure, pytrace=False)
    return run.url()


@pytest.fixture(scope="session")
def penstock_app(request: pytest.FixtureRequest, penstock_url: str) -> "FastAPI | None":
    """The application, by ``penstock_app``; None without. Override it to make one by the URL."""
    named: str = request.config.getini("penstock_app")
    found = _load(named) if named else None
    return found() if inspect.isroutine(found) else found


@pytest.fixture
def penstock_database(
    request: pytest.FixtureRequest, penstock_url: str, penstock_app: "FastAPI | None"
) -> "Database":
    """The application's database, open in the test's event loop; whatever is written is undone."""
    database: Database = _opened(request)[0]
    return database


@pytest.fixture
def penstock_client(
    request: pytest.FixtureRequest, penstock_url: str, penstock_app: "FastAPI | None"
) -> "httpx.AsyncClient":
    """A client of the application, which has started; whatever its requests write is undone."""
    from pytest_penstock.application import client

    return client(penstock_app, _opened(request)[1])


@pytest.fixture
def penstock_test_client(
    penstock_url: str, penstock_app: "FastAPI | None"
) -> "Iterator[TestClient]":
    """FastAPI's test client, entered, for plain tests and for WebSockets; all writes are undone."""
    from pytest_penstock.application import entered

    with entered(penstock_app, penstock_url) as client:
        yield client


def _opened(request: pytest.FixtureRequest) -> Any:
    is_async = inspect.iscoroutinefunction(getattr(request, "function", None))
    runs_by_asyncio = is_async and _has_pytest_asyncio(request.config)
    if "anyio_backend" in request.fixturenames:
        # Its fixtures would be in anyio's event loop, and the test in another.
        if runs_by_asyncio and request.node.get_closest_marker("asyncio") is not None:
            pytest.fail(_BOTH, pytrace=False)
        return request.getfixturevalue("penstock_opened_by_anyio")
    if not runs_by_asyncio:
        pytest.fail(_PLAIN, pytrace=False)
    return request.getfixturevalue(f"penstock_opened_by_asyncio_{_loop_scope(request)}")


_PLAIN = (
    "penstock_database and penstock_client are for async tests of pytest-asyncio or anyio; "
    "a plain test takes penstock_test_client."
)
_BOTH = (
    "This test is anyio's, and pytest-asyncio runs it, for its mode is auto: set asyncio_mode = "
    "strict, or take the mark anyio away."
)


def _loop_scope(request: pytest.FixtureRequest) -> str:
    marker = request.node.get_closest_marker("asyncio")
    named = {} if marker is None else marker.kwargs
    scope: str = (
        named.get("loop_scope")
        or named.get("scope")
        or request.config.getini("asyncio_default_test_loop_scope")
    )
    return scope


@asynccontextmanager
async def open_for_test(
    request: pytest.FixtureRequest, penstock_url: str, penstock_app: "FastAPI | None"
) -> AsyncIterator[Any]:
    """Open the database for one test; yields it and the state of the application.

    Args:
        request: Of the test, which takes a client or not.
        penstock_url: The fixture.
        penstock_app: The fixture.
    """
    from pytest_penstock.application import opened

    starts = "penstock_client" in request.fixturenames
    async with opened(penstock_app, penstock_url, starts=starts) as database_and_state:
        yield database_and_state


@pytest.fixture
async def penstock_opened_by_anyio(
    request: pytest.FixtureRequest, penstock_url: str, penstock_app: "FastAPI | None"
) -> AsyncIterator[Any]:
    """The database, open in the loop of anyio's test."""
    async with open_for_test(request, penstock_url, penstock_app) as database_and_state:
        yield database_and_state


def _alembic(config: pytest.Config) -> Path | None:
    named: str = config.getini("penstock_alembic")
    path = config.rootpath / (named or "alembic.ini")
    return path if named or path.exists() else None


def _load(named: str) -> Any:
    from pkgutil import resolve_name

    try:
        return resolve_name(named)
    except (ImportError, AttributeError, ValueError) as error:
        pytest.fail(
            f"pytest's configuration names {named}, which is not to be had: {error}. It is "
            "module:name, of a module in the root directory, in pytest's pythonpath or installed."
        )

"""An application for the length of one test, of which nothing stays in the database."""

import asyncio
import warnings
from collections.abc import AsyncIterator, Iterator
from contextlib import (
    AbstractAsyncContextManager,
    AsyncExitStack,
    asynccontextmanager,
    contextmanager,
)
from typing import TYPE_CHECKING, Any, TypeVar

import httpx
import pytest
from fastapi import FastAPI
from sqlalchemy import make_url

from penstock import Database
from penstock.testing import rollback_after

if TYPE_CHECKING:
    from fastapi.testclient import TestClient

_LEFT = (
    "A task or a block that has not ended held connections when the test was over, past "
    "rollback_after(): {}. Closing the database waits for them, up to 10 s."
)
_T = TypeVar("_T")
State = dict[str, Any]
"""What the application's lifespan has given to its requests."""


@asynccontextmanager
async def opened(
    app: FastAPI | None, url: str, *, starts: bool
) -> AsyncIterator[tuple[Database, State]]:
    """Open the application's databases, and roll back all that is written within the block.

    Args:
        app: The application; None where there is none.
        url: Where its databases have to be.
        starts: Whether the application starts as well.
    """
    databases = _databases(app, url)
    async with AsyncExitStack() as stack:
        for database in databases.values():
            await stack.enter_async_context(_rolled_back(database))
        state: Any = None
        if app is not None and starts:
            lifespan = _in_one_task(app.router.lifespan_context(app))
            state = await stack.enter_async_context(lifespan)
        yield databases.get("default") or next(iter(databases.values())), dict(state or {})


@asynccontextmanager
async def _rolled_back(database: Database) -> AsyncIterator[None]:
    async with database:
        async with rollback_after(database):
            yield
        if left := database.pool.snapshot().checked_out:
            warnings.warn(pytest.PytestWarning(_LEFT.format(left)), stacklevel=1)


@asynccontextmanager
async def _in_one_task(context: AbstractAsyncContextManager[_T]) -> AsyncIterator[_T]:
    """Enter and leave a context in one task, as lifespans with task groups need it.

    A fixture's two halves may run in two.
    """
    entered: asyncio.Future[_T] = asyncio.get_running_loop().create_future()
    leave = asyncio.Event()

    async def hold() -> None:
        async with context as value:
            entered.set_result(value)
            await leave.wait()

    holding = asyncio.ensure_future(hold())
    futures: set[asyncio.Future[Any]] = {holding, entered}
    await asyncio.wait(futures, return_when=asyncio.FIRST_COMPLETED)
    if not entered.done():
        holding.result()
    try:
        yield entered.result()
    finally:
        leave.set()
        await holding


def client(app: FastAPI | None, state: State) -> httpx.AsyncClient:
    """Return a client of an application that has started.

    Args:
        app: The application.
        state: Of its lifespan.
    """
    started = _required(app)

    async def with_state(scope: Any, receive: Any, send: Any) -> None:
        await started({**scope, "state": dict(state)}, receive, send)

    return httpx.AsyncClient(
        transport=httpx.ASGITransport(with_state), base_url="http://testserver"
    )


@contextmanager
def entered(app: FastAPI | None, url: str) -> "Iterator[TestClient]":
    """Start an application in a test client, and roll back all that is written within the block.

    Args:
        app: The application.
        url: Where its databases have to be.
    """
    from fastapi.testclient import TestClient  # noqa: PLC0415 - it may warn of the HTTP client

    router = _required(app).router
    inner = router.lifespan_context

    @asynccontextmanager
    async def lifespan(application: Any) -> AsyncIterator[Any]:
        async with opened(app, url, starts=False), inner(application) as state:
            yield state

    router.lifespan_context = lifespan
    try:
        with TestClient(_required(app)) as client:
            yield client
    finally:
        router.lifespan_context = inner


def _required(app: object) -> FastAPI:
    if app is None:
        pytest.fail(
            "There is no application: set penstock_app = module:name in pytest's configuration, or "
            "override the fixture penstock_app.",
            pytrace=False,
        )
    if not isinstance(app, FastAPI):
        pytest.fail(
            f"penstock_app, the option or the fixture, gives no FastAPI but {app!r}.", pytrace=False
        )
    return app


def _databases(app: FastAPI | None, url: str) -> dict[str, Database]:
    if app is None:
        return {"default": Database.from_url(url, environment="testing")}
    databases: dict[str, Database] = getattr(_required(app).state, "penstock", {})
    expected = make_url(url).database
    for name, database in databases.items():
        found = make_url(database.settings.url.get_secret_value()).database
        if found != expected:
            pytest.fail(
                f"The application's database {name!r} is {found}, not the test database: make it "
                "from the variable that penstock_variable names, or from the fixture penstock_url.",
                pytrace=False,
            )
    if not databases:
        pytest.fail("The application has no database: install(app, database).", pytrace=False)
    return databases

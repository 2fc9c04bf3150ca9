"""The report of a leak names the route that has the connection, and the pool's errors are 503s."""

import asyncio

import pytest
from fastapi import FastAPI
from sqlalchemy import text
from tests.eventually import eventually
from tests.servers.web import client_of

from penstock import Database, PenstockPool
from penstock.fastapi import WriteSession, install
from penstock.pool.events import LeaseLeaked, PoolEvent


async def test_a_leak_is_reported_with_its_route(database_url: str) -> None:
    database = Database.from_url(database_url, environment="testing", leak_after=0.1)
    app, events, done = FastAPI(), list[PoolEvent](), asyncio.Event()
    install(app, database)
    pool = database.engine.pool
    assert isinstance(pool, PenstockPool)
    pool.listeners.add(events.append)

    @app.post("/hold/{name}")
    async def hold(name: str, session: WriteSession) -> None:
        await session.execute(text("SELECT 1"))
        await done.wait()

    async with client_of(app) as client:
        request = asyncio.create_task(client.post("/hold/private-name"))
        await eventually(lambda: any(isinstance(event, LeaseLeaked) for event in events))
        done.set()
        assert (await request).status_code == 200

    (leak,) = [event for event in events if isinstance(event, LeaseLeaked)]
    assert leak.report.route == "POST /hold/{name}"
    assert "private-name" not in str(leak.report)
    assert "in hold" in leak.report.acquired_at
    assert "await done.wait()" in leak.report.holder_at


@pytest.mark.parametrize(
    ("state", "code", "retry_after"),
    [("suspended", "pool_suspended", "5"), ("closed", "pool_closed", "5")],
)
async def test_a_pool_that_lends_nothing_is_a_503(
    database_url: str, state: str, code: str, retry_after: str
) -> None:
    database = Database.from_url(database_url, environment="testing", pool_timeout=1)
    app = FastAPI()
    install(app, database)

    @app.get("/")
    async def root(session: WriteSession) -> None:
        await session.execute(text("SELECT 1"))

    async with client_of(app) as client:
        pool = database.engine.pool
        assert isinstance(pool, PenstockPool)
        if state == "suspended":
            pool.suspend()
        else:
            await pool.drain(timeout=1)
        answer = await client.get("/")
        assert answer.status_code == 503
        assert answer.json()["code"] == code
        assert answer.headers["retry-after"] == retry_after
        pool.resume()

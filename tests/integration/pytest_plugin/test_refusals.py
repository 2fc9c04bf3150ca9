"""What the plugin says of a server or of an application that cannot serve a run of tests."""

import asyncio
from typing import Any

import pytest
from fastapi import APIRouter, FastAPI
from sqlalchemy import MetaData, make_url

from penstock import Database
from pytest_penstock import Run
from pytest_penstock.application import client, opened
from pytest_penstock.databases import Unavailable, prepare, remove

SERVERS: dict[str, tuple[dict[str, Any], str]] = {
    "a role without CREATEDB": ({}, "permission denied"),
    "a wrong password": ({"password": "wrong"}, "password authentication failed"),
    "no such database": ({"database": "nowhere"}, "nowhere"),
    "no server": ({"port": 1}, "Connect call failed"),
}


@pytest.mark.parametrize("case", SERVERS)
def test_a_server_where_no_database_can_be_made(
    database_url: str, caplog: pytest.LogCaptureFixture, case: str
) -> None:
    parts, reason = SERVERS[case]
    url = make_url(database_url).set(**parts).render_as_string(hide_password=False)
    run = Run("refused", None, url)

    with pytest.raises(Unavailable, match=rf"{reason}.*TEST_DATABASE_URL.*CREATEDB"):
        prepare(run, MetaData(), None, "DATABASE_URL")
    remove(run)

    assert not run.directory.exists()
    assert caplog.messages == []  # nothing was made, and nothing is left


@pytest.mark.parametrize(
    "app",
    [FastAPI, APIRouter(), "service:app", pytest, lambda: None],
    ids=["class", "router", "text", "module", "function"],
)
async def test_what_is_no_application(app: Any) -> None:
    with pytest.raises(pytest.fail.Exception, match="no FastAPI"):
        client(app, {})
    with pytest.raises(pytest.fail.Exception, match="no FastAPI"):
        async with opened(app, "postgresql://h/d", starts=False):
            pass


async def leave_a_task(database_url: str) -> asyncio.Task[None]:
    async def keep(database: Database) -> None:
        async with database.engine.connect():
            connected.set()
            await asyncio.sleep(0.2)

    connected = asyncio.Event()
    async with opened(None, database_url, starts=False) as (database, _):
        task = asyncio.create_task(keep(database))
        await connected.wait()
    return task


async def test_a_connection_that_a_task_keeps(database_url: str) -> None:
    with pytest.warns(pytest.PytestWarning, match=r"rollback_after\(\): 1"):
        task = await leave_a_task(database_url)
    await task

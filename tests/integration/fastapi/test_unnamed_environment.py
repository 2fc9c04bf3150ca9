"""A service whose environment nobody has named: it says so, and shows strangers nothing."""

import logging
from collections.abc import AsyncIterator

import httpx
import pytest
from fastapi import FastAPI
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from tests.servers.web import client_of

from penstock import Database
from penstock.fastapi import install

SECRET = "$2b$12$hash"
OPERATIONS = ("/pool-stats", "/metrics", "/pool", "/pool/state")


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    database = Database.from_url(database_url)
    yield database
    await database.close()


async def test_the_start_has_one_warning_that_names_the_variable(
    database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    async with database, database:
        pass

    warnings = [line.getMessage() for line in caplog.records if line.levelno >= logging.WARNING]
    assert [line for line in warnings if "ENVIRONMENT" in line] == warnings
    assert len(warnings) == 1


@pytest.mark.parametrize("environment", ["development", "testing", "production"])
async def test_one_that_was_named_has_none(
    database_url: str, environment: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with Database.from_url(database_url, environment=environment, min_idle=0):
        pass

    assert not [line for line in caplog.records if "ENVIRONMENT" in line.getMessage()]


async def test_no_value_is_in_the_log_or_in_an_error(
    database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)

    async with database:
        async with database.write() as session:
            await session.execute(text("SELECT :hash"), {"hash": SECRET})
            with pytest.raises(DBAPIError) as refused:
                await session.execute(text("SELECT 1 / (length(:hash) - 11)"), {"hash": SECRET})
            await session.rollback()
        await database.reader.scalar(text("SELECT :hash"), {"hash": SECRET})

    assert "SELECT $1" in caplog.text  # statements are shown, as ever in development
    assert SECRET not in caplog.text + str(refused.value)


def client_from(app: FastAPI, host: str | None) -> httpx.AsyncClient:
    client = ("", 0) if host is None else (host, 50000)
    transport = httpx.ASGITransport(app, client=client)
    return httpx.AsyncClient(transport=transport, base_url="http://service")


@pytest.mark.parametrize(
    ("host", "headers", "status"),
    [
        ("127.0.0.1", {}, 200),
        ("127.83.19.71", {}, 200),
        ("::1", {}, 200),
        ("10.0.0.7", {}, 404),
        ("172.17.0.1", {}, 404),
        ("testclient", {}, 404),
        (None, {}, 404),
        ("127.0.0.1", {"X-Forwarded-For": "10.0.0.7"}, 404),
        ("127.0.0.1", {"Forwarded": "for=10.0.0.7"}, 404),
        ("127.0.0.1", {"X-Real-IP": "10.0.0.7"}, 404),
    ],
)
async def test_operations_routes_answer_this_machine_only(
    database: Database, host: str | None, headers: dict[str, str], status: int
) -> None:
    app = FastAPI()
    install(app, database)

    async with client_from(app, host) as client:
        statuses = {(await client.get(path, headers=headers)).status_code for path in OPERATIONS}
        assert (await client.get("/health/live", headers=headers)).status_code == 200

    assert statuses == {status}


async def test_a_named_development_shows_them_to_everybody_and_a_guard_to_whom_it_lets_in(
    database: Database, database_url: str
) -> None:
    named, guarded = FastAPI(), FastAPI()
    install(named, Database.from_url(database_url, environment="development"))
    install(guarded, database, access=lambda: None)

    for app in (named, guarded):
        async with client_from(app, "10.0.0.7") as client:
            assert {(await client.get(path)).status_code for path in OPERATIONS} == {200}


async def test_one_unnamed_database_among_several_is_enough(
    database: Database, database_url: str
) -> None:
    app = FastAPI()
    install(app, Database.from_url(database_url, environment="testing"))
    install(app, database, name="second")

    async with client_from(app, "10.0.0.7") as client:
        assert (await client.get("/pool-stats")).status_code == 404
    async with client_of(app) as client:
        assert (await client.get("/pool-stats")).status_code == 200

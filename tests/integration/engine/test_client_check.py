"""The server looks whether its clients still live, so that a killed worker's statements end."""

import asyncio
import sys

import pytest
from sqlalchemy import make_url
from tests.eventually import eventually
from tests.integration.engine.engines import engine_on, scalar, with_driver
from tests.servers.postgres import PostgresServer

DRIVERS = ["asyncpg", "psycopg"]

WORKER = """
import asyncio, sys
from sqlalchemy import text
from penstock import Database

async def sleep(database):
    async with database.write() as session:
        await session.execute(text("SELECT pg_sleep(300)"))

async def main():
    database = Database.from_url(sys.argv[1], environment="testing", pool_size=5, max_overflow=0)
    async with database:
        await asyncio.gather(*(sleep(database) for _ in range(5)))

asyncio.run(main())
"""


@pytest.mark.parametrize("driver", DRIVERS)
async def test_the_server_is_told_to_look_whether_its_client_lives(
    database_url: str, driver: str
) -> None:
    async with engine_on(with_driver(database_url, driver)) as engine:
        assert await scalar(engine, "SHOW client_connection_check_interval") == "1s"


@pytest.mark.parametrize("driver", DRIVERS)
async def test_an_interval_of_one_s_own_is_kept(database_url: str, driver: str) -> None:
    settings = {"client_connection_check_interval": "7s"}
    async with engine_on(with_driver(database_url, driver), server_settings=settings) as engine:
        assert await scalar(engine, "SHOW client_connection_check_interval") == "7s"


@pytest.mark.parametrize("driver", DRIVERS)
@pytest.mark.parametrize(
    ("name", "value"),
    [("client_connection_check_interval_of_later", "1000"), ("work_mem", "1")],
    ids=["unknown", "refused"],
)
async def test_a_server_that_cannot_look_is_connected_to_all_the_same(
    database_url: str, driver: str, name: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("penstock.engine.connect_arguments.CLIENT_CHECK", name)
    monkeypatch.setattr("penstock.engine.connect_arguments.CLIENT_CHECK_INTERVAL", value)
    async with engine_on(with_driver(database_url, driver)) as engine:
        assert await scalar(engine, "SHOW jit") == "off"


@pytest.mark.parametrize("driver", DRIVERS)
async def test_the_statements_of_a_killed_worker_end_soon(
    postgres: PostgresServer, database_url: str, driver: str
) -> None:
    name = make_url(database_url).database
    running = (
        f"SELECT count(*) FROM pg_stat_activity WHERE datname = '{name}' AND wait_event = 'PgSleep'"
    )
    url = with_driver(database_url, driver)
    worker = await asyncio.create_subprocess_exec(sys.executable, "-c", WORKER, url)
    try:
        await eventually(lambda: postgres.execute(running) == [(5,)], seconds=30)
    finally:
        worker.kill()
        await worker.wait()
    await eventually(lambda: postgres.execute(running) == [(0,)], seconds=30)

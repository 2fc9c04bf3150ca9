"""What an engine is given in Python alone: it is in force in sessions and in the express lane."""

import json
from typing import Any

import asyncpg
import psycopg
import pytest
from sqlalchemy import Column, Integer, MetaData, Table, event, select, text
from sqlalchemy.dialects.postgresql import JSONB

from penstock import Database, query
from penstock.engine import EngineOptions
from penstock.errors import SettingsError
from penstock.pool import ConnectFailed

DRIVERS = ["asyncpg", "psycopg"]
docs = Table("docs", MetaData(), Column("id", Integer, primary_key=True), Column("data", JSONB))


def database_on(url: str, driver: str, **options: Any) -> Database:
    return Database.from_url(url.replace("asyncpg", driver), environment="testing", **options)


@pytest.mark.parametrize("driver", DRIVERS)
async def test_json_goes_through_functions_of_the_applications_own(
    database_url: str, driver: str
) -> None:
    database = database_on(
        database_url,
        driver,
        json_serializer=lambda value: json.dumps({"in": value}),
        json_deserializer=lambda value: {"out": json.loads(value)},
    )
    async with database:
        async with database.engine.begin() as connection:
            await connection.run_sync(docs.metadata.create_all)
        async with database.write() as session:
            await session.execute(docs.insert(), {"id": 1, "data": "by a session"})
        await database.writer.execute(query(docs.insert()), id=2, data="by the lane")
        read = select(docs.c.data).order_by(docs.c.id)
        async with database.read() as session:
            by_session = list(await session.scalars(read))
        by_lane = [row[0] for row in await database.reader.all(query(read))]

    expected = [{"out": {"in": "by a session"}}, {"out": {"in": "by the lane"}}]
    assert by_session == by_lane == expected


@pytest.mark.parametrize("driver", DRIVERS)
async def test_connect_args_reach_the_driver_beside_the_settings(
    database_url: str, driver: str
) -> None:
    given: dict[str, Any] = (
        {"server_settings": {"work_mem": "7MB"}} if driver == "asyncpg" else {"keepalives": 1}
    )
    database = database_on(
        database_url, driver, connect_args=given, application_name="orders", jit=True
    )
    show = text("SELECT current_setting('application_name'), current_setting('work_mem')")
    async with database, database.read() as session:
        name, work_mem = (await session.execute(show)).one()

    assert name == "orders"
    assert work_mem == ("7MB" if driver == "asyncpg" else "4MB")


@pytest.mark.parametrize("driver", DRIVERS)
async def test_execution_options_hold_in_both_lanes(database_url: str, driver: str) -> None:
    database = database_on(
        database_url, driver, execution_options={"schema_translate_map": {None: "other"}}
    )
    async with database:
        async with database.engine.begin() as connection:
            await connection.execute(text("CREATE SCHEMA other"))
            await connection.run_sync(docs.metadata.create_all)
        async with database.write() as session:
            await session.execute(docs.insert(), {"id": 1, "data": {}})
        await database.writer.execute(query(docs.insert()), id=2, data={})
        by_lane = await database.reader.all(query(select(docs.c.id)))
        async with database.read() as session:
            counted = await session.scalar(text("SELECT count(*) FROM other.docs"))

    assert len(by_lane) == counted == 2


@pytest.mark.parametrize("driver", DRIVERS)
async def test_a_creator_opens_the_connections_within_the_limits(
    database_url: str, driver: str
) -> None:
    plain, opened = database_url.replace("+asyncpg", ""), []

    async def create() -> Any:
        connect: Any = asyncpg.connect if driver == "asyncpg" else psycopg.AsyncConnection.connect
        opened.append(await connect(plain))
        return opened[-1]

    elsewhere = f"postgresql+{driver}://nobody@127.0.0.1:1/nowhere"
    database = Database.from_url(elsewhere, environment="testing", async_creator=create)
    async with database:
        assert await database.reader.scalar(text("SELECT 1")) == 1
        async with database.write() as session:
            assert await session.scalar(text("SELECT 2")) == 2

    assert opened


async def test_a_creator_that_fails_is_a_failed_connect() -> None:
    async def create() -> Any:
        raise OSError("nothing there")

    database = Database.from_url(
        "postgresql://u@127.0.0.1:1/x", environment="testing", async_creator=create, pool_timeout=1
    )
    with pytest.raises(ConnectFailed, match="nothing there"):
        await database.open()


async def test_execution_options_are_the_engines(database_url: str) -> None:
    database = database_on(database_url, "asyncpg", execution_options={"mine": 7})
    seen = []

    @event.listens_for(database.engine.sync_engine, "before_cursor_execute")
    def look(connection: Any, *_: Any) -> None:
        seen.append(connection.get_execution_options()["mine"])

    async with database, database.read() as session:
        await session.execute(text("SELECT 1"))
    assert 7 in seen


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"json_serializer": 7}, "json_serializer: a function is accepted, not int"),
        ({"async_creator": "x"}, "async_creator: a function is accepted, not str"),
        ({"connect_args": [1]}, "connect_args: values by name are accepted, not list"),
        ({"connect_args": {"command_timeout": 5}}, "has an argument: command_timeout"),
        ({"connect_args": {"timeout": 5}}, "has an argument: connect_timeout"),
        ({"execution_options": {"isolation_level": "AUTOCOMMIT"}}, "isolation_level is a setting"),
        ({"jsonserializer": json.dumps}, "jsonserializer is not a setting"),
    ],
)
def test_options_that_are_none_are_refused(options: dict[str, Any], why: str) -> None:
    with pytest.raises(SettingsError, match=why):
        Database.from_url("postgresql://localhost/app", **options)


def test_options_of_the_environment_are_not_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", "postgresql://localhost/app")

    database = Database.from_environment(
        env_file=None, environment="testing", json_serializer=json.dumps
    )
    assert database.settings.environment == "testing"
    with pytest.raises(SettingsError, match="pool_size: from_environment"):
        Database.from_environment(env_file=None, pool_size=7)  # type: ignore[call-arg]  # as it is to be


def test_arguments_of_a_secret_kind_are_not_in_the_repr() -> None:
    assert "hidden" not in repr(EngineOptions(connect_args={"password": "hidden"}))


def test_sqlite_has_no_creator() -> None:
    async def create() -> Any: ...

    with pytest.raises(SettingsError, match="async_creator"):
        Database.from_url("sqlite://", async_creator=create)

"""What is checked out now, with its route, its age and what it does, and who was lost."""

import asyncio
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from sqlalchemy import text
from tests.eventually import eventually
from tests.integration.telemetry.test_workers import said, worker
from tests.servers.parts import require_part
from tests.servers.postgres import RestartablePostgres, postgres_programs, restartable_postgres
from tests.told import numbers

from penstock import Database
from penstock.fastapi import CurrentDatabase, WriteSession, install
from penstock.findings import Finding
from penstock.telemetry import rules
from penstock.telemetry.layout import LEASES
from penstock.telemetry.reading import LeaseSample


@pytest.fixture
def restartable() -> Iterator[RestartablePostgres]:
    """A server that can be stopped."""
    programs = postgres_programs()
    require_part("PostgreSQL", present=programs, remedy="set TEST_POSTGRES_BIN")
    assert programs is not None
    with restartable_postgres(programs) as server:
        yield server


def database_of(url: str, directory: Path, **settings: Any) -> Database:
    return Database.from_url(url, environment="testing", telemetry_dir=directory, **settings)


def leases_of(database: Database) -> list[LeaseSample]:
    reading = database.telemetry.read()
    return [lease for each in reading.workers for lease in each.leases]


def findings_of(database: Database) -> dict[str, Finding]:
    return {found.id: found for found in rules.find(database.telemetry.read())}


async def test_a_lease_is_reported_with_its_route_its_age_and_its_state(
    database_url: str, tmp_path: Path
) -> None:
    app = FastAPI()
    database = database_of(database_url, tmp_path, leak_after=30)
    install(app, database)
    go_on = asyncio.Event()

    @app.get("/wait/{name}")
    async def wait(name: str, session: WriteSession) -> str:
        await session.execute(text("SELECT 'a secret', :name"), {"name": name})
        await go_on.wait()
        return name

    @app.get("/sleep")
    async def sleep(session: WriteSession) -> None:
        await session.execute(text("SELECT pg_sleep(3)"))

    transport = httpx.ASGITransport(app)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://test") as client,
    ):
        asking = [asyncio.create_task(client.get(path)) for path in ("/wait/me", "/sleep")]
        await eventually(lambda: len(leases_of(database)) == 2)
        waiting, sleeping = sorted(leases_of(database), key=lambda lease: lease.route)[::-1]
        (shown,) = (await client.get("/pool/state")).json()["databases"]
        go_on.set()
        await asyncio.gather(*asking)
        await eventually(lambda: not leases_of(database))

    assert (waiting.route, waiting.state) == ("GET /wait/{name}", "idle in transaction")
    assert waiting.statement.startswith("SELECT ?, ?")
    assert (sleeping.route, sleeping.state) == ("GET /sleep", "running")
    assert not waiting.is_overdue
    assert {lease["route"] for lease in shown["leases"]} == {"GET /wait/{name}", "GET /sleep"}


@pytest.mark.parametrize("leak_after", [0.5, None])
async def test_the_route_that_leaks_is_named_and_no_other(
    database_url: str, tmp_path: Path, leak_after: float | None
) -> None:
    app = FastAPI()
    database = database_of(
        database_url, tmp_path, pool_size=5, max_overflow=0, leak_after=leak_after
    )
    install(app, database)
    kept = []

    @app.get("/report")
    async def report(session: WriteSession) -> None:
        await session.execute(text("SELECT pg_sleep(0.3)"))

    @app.get("/leak")
    async def leak(database: CurrentDatabase) -> None:
        kept.append(await database.engine.connect())

    transport = httpx.ASGITransport(app)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://test") as client,
    ):
        await client.get("/report")
        for _ in range(4):
            await client.get("/leak")
        await eventually(lambda: len(leases_of(database)) == 4)
        if leak_after is not None:
            await eventually(lambda: all(lease.is_overdue for lease in leases_of(database)))
        found = findings_of(database).get("connection-leak")
        for connection in kept:
            await connection.close()

    if leak_after is None:
        assert found is None
    else:
        assert found is not None
        assert numbers(found.evidence)[-3:-1] == ["4", "4"]
        assert "GET /leak" in found.evidence
        assert "/report" not in f"{found}"
        assert found.severity == "critical"


async def test_a_lease_that_is_declared_to_last_is_not_overdue(
    database_url: str, tmp_path: Path
) -> None:
    async with (
        database_of(database_url, tmp_path, leak_after=0.1) as database,
        database.engine.connect() as connection,
    ):
        await connection.execute(text("LISTEN news"))
        record = (await connection.get_raw_connection())._connection_record
        record.keep_state()
        await eventually(lambda: len(leases_of(database)) == 1)
        await asyncio.sleep(1.2)

        assert [lease.is_overdue for lease in leases_of(database)] == [False]


async def test_of_many_leases_the_oldest_are_reported(database_url: str, tmp_path: Path) -> None:
    async with database_of(
        database_url, tmp_path, pool_size=LEASES + 5, max_overflow=0, budget="off"
    ) as database:
        connections = [await database.engine.connect() for _ in range(LEASES + 5)]
        await eventually(lambda: len(leases_of(database)) == LEASES)
        leases = leases_of(database)
        for connection in connections:
            await connection.close()

        assert [lease.since for lease in leases] == sorted(lease.since for lease in leases)
        await eventually(lambda: leases_of(database) == [])


async def test_a_server_that_is_gone_is_reported_without_traffic_and_forgotten_when_it_is_back(
    restartable: RestartablePostgres, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("penstock.telemetry.telemetry.FIRST_QUERY_DELAY", 0.2)
    monkeypatch.setattr("penstock.telemetry.telemetry.QUERY_INTERVAL", 0.2)
    monkeypatch.setattr("penstock.telemetry.rules.server.UNREACHABLE_FOR", 1.0)
    url = restartable.server.url()
    async with database_of(url, tmp_path, pool_timeout=0.3, connect_timeout=0.3) as database:
        assert "server-unreachable" not in findings_of(database)

        restartable.stop()
        await eventually(lambda: "server-unreachable" in findings_of(database), 30)
        found = findings_of(database)["server-unreachable"]
        assert "ConnectionRefusedError" in found.evidence
        assert str(restartable.server.port) not in f"{found}"

        restartable.start()
        await eventually(lambda: "server-unreachable" not in findings_of(database), 60)


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGABRT, None])
async def test_a_worker_is_lost_that_was_killed_and_not_one_that_has_closed(
    database_url: str, tmp_path: Path, how: signal.Signals | None
) -> None:
    async with database_of(database_url, tmp_path) as database:
        with worker(database_url, tmp_path, 5) as process:
            said(process)
            if how is None:
                async with database_of(database_url, tmp_path):
                    pass
                assert "worker-lost" not in findings_of(database)
                return
            process.send_signal(how)
            process.wait()

            found = findings_of(database)["worker-lost"]
            again = findings_of(database)["worker-lost"]

        assert found.evidence.startswith(f"Worker {process.pid} ended without closing")
        assert again.evidence[:40] == found.evidence[:40]

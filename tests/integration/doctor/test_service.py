"""A running service's slow statements, with what its server says of them."""

import json
from pathlib import Path

import httpx
from fastapi import FastAPI
from sqlalchemy import text
from tests.integration.doctor.test_command import doctor, plain
from tests.servers.postgres import PostgresServer
from tests.servers.web import serving

from penstock import Database
from penstock.fastapi import ReadSession, install


async def test_a_slow_route_is_led_back_to_its_statement_and_the_missing_index(
    provoked: PostgresServer, tmp_path: Path
) -> None:
    with provoked.database() as url:
        name = url.rpartition("/")[2]
        provoked.execute("CREATE EXTENSION pg_stat_statements", name)
        provoked.execute("CREATE TABLE thing (id int PRIMARY KEY, name text)", name)
        fill = "INSERT INTO thing SELECT g, 'x' || g FROM generate_series(1, 5000) AS g"
        provoked.execute(fill, name)
        provoked.execute("ANALYZE thing", name)
        own = provoked.url(name)
        database = Database.from_url(
            own, environment="testing", slow_query=0.000001, telemetry_dir=tmp_path
        )
        app = FastAPI()
        install(app, database)

        @app.get("/things/{name}")
        async def by_name(name: str, session: ReadSession) -> object:
            found = text("SELECT id FROM thing WHERE name = :name")
            return await session.scalar(found, {"name": name})

        @app.get("/things")
        async def one(session: ReadSession) -> object:
            found = text("SELECT id FROM thing WHERE id = :id")
            return await session.scalar(found, {"id": 1})

        async with serving(app) as service:
            async with httpx.AsyncClient(base_url=service, trust_env=False) as client:
                for path in ("/things/x1", "/things/x2", "/things"):
                    (await client.get(path)).raise_for_status()
            run = await doctor(plain(own), "--json", "--only", "slow-routes", "--service", service)

    assert run.status == 1, run.output + run.errors
    (result,) = json.loads(run.output)["results"]
    assert "GET /things/{name} waited" in result["evidence"]
    assert "that the server ran 2 times" in result["evidence"]
    assert "GET /things waited" in result["evidence"]
    assert result["sql"] == ["CREATE INDEX CONCURRENTLY ON public.thing (name);"]


async def test_a_service_that_does_not_run_is_3(tuned: PostgresServer) -> None:
    run = await doctor(plain(tuned.url()), "--service", "http://127.0.0.1:1")

    assert run.status == 3
    assert "accepts no connections" in run.errors

"""The README's service, as it stands there."""

import asyncio
import runpy
from pathlib import Path

import pytest
from fastapi import FastAPI
from tests.servers.web import client_of, serving

WORKERS = 8
NOTES = Path(__file__).parents[3] / "examples" / "notes.py"


async def test_the_readmes_service_creates_finds_refuses_and_lists(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATABASE_URL", database_url)
    module = runpy.run_path(str(NOTES))
    app = module["app"]
    await module["create_tables"]()

    async with client_of(app) as client:
        created = await client.post("/notes", json={"text": "hello"})
        found = await client.get(f"/notes/{created.json()['id']}")
        duplicate = await client.post("/notes", json={"text": "hello"})
        missing = await client.get("/notes/404")
        listed = await client.get("/notes?limit=1")

    assert created.status_code == 201
    assert found.json() == {"id": 1, "text": "hello"}
    assert (duplicate.status_code, duplicate.json()["code"]) == (409, "unique_violation")
    assert (missing.status_code, missing.json()["code"]) == (404, "not_found")
    assert listed.json() == [found.json()]


async def test_the_readmes_workers_may_start_at_once(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATABASE_URL", database_url)
    apps = [runpy.run_path(str(NOTES))["app"] for _ in range(WORKERS)]
    together = asyncio.Barrier(WORKERS)

    async def start(app: FastAPI) -> None:
        async with serving(app):
            await together.wait()

    async with asyncio.TaskGroup() as starts:
        for app in apps:
            starts.create_task(start(app))

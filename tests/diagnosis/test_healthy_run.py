"""A service that has nothing wrong with it."""

from itertools import cycle
from pathlib import Path

import pytest
from sqlalchemy import make_url
from tests.diagnosis.load import steadily
from tests.diagnosis.workers import Workers, running_workers, watched
from tests.servers.postgres import PostgresServer

PER_SECOND = 100
SECONDS = 180

MIX = (
    *[("GET", "express/1"), ("GET", "express/2")] * 2,
    ("GET", "session/1"),
    ("GET", "session/3"),
    ("POST", "notes"),
)
"""Reads of both lanes, and writes: one in seven, so that each worker has its share of each."""
CHECKOUTS = round(PER_SECOND * 9 / len(MIX))
"""Per second, as planned: one for a statement of the express lane, and one for a session."""


@pytest.mark.timeout(300)
async def test_a_healthy_service_under_load_yields_no_finding(
    postgres: PostgresServer, database_url: str, tmp_path: Path
) -> None:
    database = make_url(database_url).database or ""
    postgres.execute("CREATE TABLE notes (text text); GRANT INSERT ON notes TO PUBLIC", database)
    plan = tmp_path / "plan.toml"
    plan.write_text(f"rate = {CHECKOUTS}\nquery_time = '20ms'\nworkers = 2\npool_size = 10\n")
    settings = {"url": database_url, "pool_size": 10, "min_idle": 2, "plan": str(plan)}

    async with running_workers({"default": settings}, tmp_path, 2) as workers:
        statuses: list[int] = []
        found = await watched([workers], _load(workers, statuses))
        state = (await workers.state())["default"]

    assert found == {"default": {}}
    assert set(statuses) == {200}
    assert len(state["workers"]) == 2
    assert state["counters"]["checkouts"] >= len(statuses) == PER_SECOND * SECONDS


async def _load(workers: Workers, statuses: list[int]) -> None:
    mix, turns = cycle(MIX), cycle(range(len(workers.urls)))

    async def send() -> None:
        method, path = next(mix)
        worker = next(turns)
        statuses.append(await workers.ask(f"/default/{path}", worker=worker, method=method))

    await steadily(send, per_second=PER_SECOND, seconds=SECONDS)

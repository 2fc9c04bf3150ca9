"""A plan held against a real service under a real load."""

import asyncio
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import pytest
from fastapi import FastAPI, Header
from sqlalchemy import text
from tests.servers.web import serving

from penstock import Database
from penstock.capacity.verification import Sent
from penstock.cli.commands import app
from penstock.cli.doctor import HEADERS
from penstock.fastapi import ReadSession, install
from penstock.load import Generator
from penstock.planner import plan

RATE = 60
HOLD = 0.02
CONNECTIONS = 2
SECONDS = 3
TOKEN = "Bearer of-the-service"


@pytest.fixture
def application(database_url: str, tmp_path: Path) -> FastAPI:
    """Its one route holds a connection for about as long as was planned."""
    database = Database.from_url(
        database_url,
        environment="testing",
        pool_size=CONNECTIONS,
        max_overflow=0,
        min_idle=CONNECTIONS,
        telemetry_dir=tmp_path,
    )
    service = FastAPI()
    install(service, database)

    @service.get("/nap")
    async def nap(session: ReadSession, authorization: Annotated[str, Header()]) -> None:
        assert authorization == TOKEN
        await session.execute(text(f"SELECT pg_sleep({HOLD})"))

    @service.get("/idle")
    async def idle() -> None:
        """Use no connection."""

    return service


@dataclass
class Command:
    """Runs ``penstock plan`` beside the service, in a thread."""

    capsys: pytest.CaptureFixture[str]

    async def __call__(self, *arguments: str) -> tuple[int | str | None, str, str]:
        with pytest.raises(SystemExit) as ended:
            await asyncio.to_thread(app, ["plan", *arguments])
        return ended.value.code, *self.capsys.readouterr()


@pytest.fixture
def penstock(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Command:
    monkeypatch.setenv(HEADERS, f"Authorization: {TOKEN}")
    return Command(capsys)


def verified(url: str, path: str, *further: str) -> list[str]:
    options = {"--rate": RATE, "--query-time": f"{HOLD}s", "--query-p99": f"{1.2 * HOLD}s"}
    options |= {"--pool-size": CONNECTIONS, "--max-overflow": 0, "--wait": "1s"}
    options |= {"--verify": url, "--path": path, "--seconds": SECONDS}
    return [*(str(each) for pair in options.items() for each in pair), *further]


async def test_what_is_measured_stands_beside_what_was_predicted(
    application: FastAPI, penstock: Command
) -> None:
    async with serving(application) as url:
        status, output, errors = await penstock(*verified(url, "/nap", "--json"))
        _, planned, _ = await penstock("--from", url, "--json")

    assert (status, errors) == (0, "")
    found: dict[str, Any] = json.loads(output)["verification"]
    assert found["requests"] == found["successes"] > RATE
    assert found["is_late"] is (found["late"] > found["requests"] / 100)
    assert found["late_max"] >= 0
    rows = {name: row for name, row in found.items() if isinstance(row, dict)}
    checkouts = rows["checkouts_per_second"]
    assert checkouts["planned"] == RATE
    assert checkouts["measured"] == pytest.approx(found["requests"] / SECONDS, rel=0.2)
    assert rows["hold_time"]["measured"] >= HOLD
    # Little's law holds whatever the distributions are.
    used = rows["utilisation"]
    assert used["measured"] == pytest.approx(used["predicted"], rel=0.05)
    waiting = rows["waiting_probability"]
    assert 0 < waiting["measured"] <= 1
    assert rows["mean_wait"]["measured"] > 0
    assert rows["response_p99"]["measured"] >= HOLD
    made = plan({"rate": RATE, "query_time": HOLD, "query_p99": 1.2 * HOLD, "pool_size": 2})
    assert waiting["planned"] == pytest.approx(
        made.predict(connections=CONNECTIONS).queue.waiting_probability
    )
    assert json.loads(planned)["inputs"]["query_time"] == pytest.approx(
        rows["hold_time"]["measured"], rel=0.05
    )


async def test_requests_that_use_no_connection_verify_nothing(
    application: FastAPI, penstock: Command
) -> None:
    async with serving(application) as url:
        status, output, errors = await penstock(*verified(url, "/idle", "--seconds", "1"))

    assert (status, output) == (3, "")
    assert "--path" in errors


@pytest.mark.parametrize(("late", "is_late"), [(0, False), (10, False), (11, True)])
def test_a_generator_that_is_late_with_more_than_a_hundredth_makes_no_comparison(
    late: int, is_late: bool
) -> None:
    assert Sent(1000, 1000, 0.1, Generator(late=late)).is_late is is_late

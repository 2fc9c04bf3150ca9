"""The plan of a database: by its settings, and by what it has measured."""

import asyncio
from pathlib import Path

import pytest
from sqlalchemy import text

from penstock import Database
from penstock.errors import SettingsError
from penstock.planner import plan

HOLD = 0.02


def test_the_settings_are_inputs() -> None:
    database = Database.from_url(
        "postgresql://user@localhost/app",
        environment="production",
        workers=3,
        instances=2,
        connection_reserve=0.3,
        proxy="aws-rds-proxy",
        command_timeout=20,
    )

    made = database.plan(rate=900, query_time="5ms")

    assert (
        made.settled()
        == plan(
            {
                "rate": 900,
                "query_time": 0.005,
                "workers": 3,
                "instances": 2,
                "reserve": 0.3,
                "proxy": "aws-rds-proxy",
                "statement_timeout": 20,
            }
        ).settled()
    )
    assert made.pool_recycle == 1350


def test_nothing_that_was_measured_is_an_error_that_says_what_is_missing() -> None:
    with pytest.raises(SettingsError, match="query_time"):
        Database.from_url("postgresql://user@localhost/app").plan(rate=5)


@pytest.mark.parametrize("text", ["{}", "[]", '{"rate": 5, "query_time": "x"}', '{"pace": 1}'])
def test_a_file_that_is_no_plan_is_refused_with_its_name(tmp_path: Path, text: str) -> None:
    path = tmp_path / "plan.json"
    path.write_text(text)

    with pytest.raises(SettingsError, match=r"^plan='.*plan\.json'"):
        Database.from_url("postgresql://user@localhost/app", plan=path)


async def test_what_was_measured_is_planned_for(database_url: str, tmp_path: Path) -> None:
    database = Database.from_url(
        database_url, environment="testing", telemetry_dir=tmp_path, pool_size=4
    )
    async with database:
        async with asyncio.timeout(20):
            while "query_time" not in (made := planned(database)):
                await asyncio.gather(*(nap(database) for _ in range(8)))
        twice = database.plan(rate=2 * float(str(made["rate"])))

    assert float(str(made["rate"])) > 0
    assert HOLD <= float(str(made["query_time"])) < 10 * HOLD
    assert twice.rate == pytest.approx(2 * float(str(made["rate"])), rel=0.5)
    assert twice.inputs.max_connections in {None, 100}


async def nap(database: Database) -> None:
    async with database.read() as session:
        await session.execute(text(f"SELECT pg_sleep({HOLD})"))


def planned(database: Database) -> dict[str, object]:
    try:
        return dict(database.plan().inputs.given())
    except SettingsError:
        return {}

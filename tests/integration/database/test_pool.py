"""What a database says of its pool: the pool itself, its numbers, and what is wrong with them."""

from pathlib import Path

import pytest
from sqlalchemy import text

from penstock import Database, Finding, PenstockError, PenstockPool, Severity


async def test_the_pool_is_the_engines_own(database_url: str) -> None:
    async with Database.from_url(database_url, environment="testing") as database:
        assert database.pool is database.engine.pool
        assert isinstance(database.pool, PenstockPool)
        before = database.pool.snapshot()
        async with database.read() as session:
            await session.execute(text("SELECT 1"))
            assert database.pool.snapshot().checked_out == before.checked_out + 1


async def test_the_findings_are_those_of_the_telemetry(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    ill = Finding("shedding", Severity.WARNING, "10 requests were rejected", "raise pool_size")
    rules = {"shedding": lambda reading: ill if reading.workers else None}
    monkeypatch.setattr("penstock.telemetry.rules.rulebook.RULES", rules)
    database = Database.from_url(database_url, environment="testing")

    assert database.diagnose() == []
    async with database:
        assert database.diagnose() == [ill]


async def test_a_database_without_a_pool_says_so(tmp_path: Path) -> None:
    database = Database.from_url(f"sqlite:///{tmp_path}/a.db", environment="serverless")

    with pytest.raises(PenstockError, match=r"serverless.* keeps no pool"):
        _ = database.pool
    assert database.diagnose() == []

"""What becomes of the samples when the clock is set, or the event loop is another one."""

import asyncio
import time
from pathlib import Path

import pytest
from tests.eventually import eventually

from penstock import Database


async def test_samples_are_taken_though_the_clock_was_set_back(
    database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = time.time
    async with Database.from_url(
        database_url, environment="testing", telemetry_dir=tmp_path
    ) as database:
        set_back_at = database.telemetry.read().now.at
        monkeypatch.setattr(time, "time", lambda: clock() - 3600)

        await eventually(lambda: database.telemetry.read().now.at < set_back_at)
        await eventually(lambda: len(database.telemetry.read().history) >= 2)

        moments = [sample.at for sample in database.telemetry.read().history]
        assert moments == sorted(moments)
        assert moments[-1] < set_back_at


def test_samples_go_on_in_another_event_loop(database_url: str, tmp_path: Path) -> None:
    database = Database.from_url(database_url, environment="testing", telemetry_dir=tmp_path)

    async def use_and_dispose() -> None:
        await database.open()
        await database.engine.dispose()

    async def look() -> None:
        async with database:
            before = len(database.telemetry.read().history)
            await eventually(lambda: len(database.telemetry.read().history) > before)
            assert len(database.telemetry.read().workers) == 1

    asyncio.run(use_and_dispose())
    asyncio.run(look())

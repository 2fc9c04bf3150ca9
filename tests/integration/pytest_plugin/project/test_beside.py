"""Two that write the same at the same time, each in a worker of its own."""

import asyncio
import os
from pathlib import Path

import pytest
from sqlalchemy import text
from tests.integration.pytest_plugin.project.service import COUNT, Word

from penstock import Database


@pytest.mark.asyncio
@pytest.mark.parametrize(("own", "other"), [("one", "two"), ("two", "one")])
async def test_two_at_once(penstock_database: Database, own: str, other: str) -> None:
    meeting = Path(os.environ["MEETING_PLACE"])
    async with penstock_database.write() as session:
        session.add(Word(text="the same"))
        await session.flush()
        (meeting / own).touch()
        async with asyncio.timeout(60):
            while not (meeting / other).exists():  # noqa: ASYNC110 - another process makes it
                await asyncio.sleep(0.02)
    assert await penstock_database.reader.scalar(COUNT) == 1


@pytest.mark.asyncio
async def test_for_ever(penstock_database: Database) -> None:
    async with penstock_database.write() as session:
        name = await session.scalar(text("SELECT current_database()"))
        (Path(os.environ["MEETING_PLACE"]) / f"{name}").touch()
        await asyncio.sleep(600)

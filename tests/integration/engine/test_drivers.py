"""Every driver reaches a real database, on asyncio's own event loop and on uvloop."""

import asyncio

import uvloop
from sqlalchemy import Column, Integer, MetaData, String, Table, select
from tests.integration.engine.engines import engine_on, scalar

from penstock.engine import pool_snapshot

rows = Table(
    "rows",
    MetaData(),
    Column("id", Integer, primary_key=True),
    Column("text", String(40), nullable=False),
)


async def test_every_driver_answers(any_url: str) -> None:
    async with engine_on(any_url) as engine:
        assert await scalar(engine, "SELECT 1") == 1
        assert pool_snapshot(engine).checked_in == 1


async def test_a_row_makes_the_round_trip(any_url: str) -> None:
    async with engine_on(any_url) as engine:
        async with engine.begin() as connection:
            await connection.run_sync(rows.metadata.create_all)
            await connection.execute(rows.insert(), {"id": 7, "text": "Schleuse ≈ écluse"})
        async with engine.connect() as connection:
            found = (await connection.execute(select(rows))).one()
    assert (found.id, found.text) == (7, "Schleuse ≈ écluse")


def test_every_driver_answers_on_uvloop(any_url: str) -> None:
    async def ask() -> object:
        async with engine_on(any_url) as engine:
            return await scalar(engine, "SELECT 1")

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        assert runner.run(ask()) == 1

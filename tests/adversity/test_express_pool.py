"""The express lane among a pool's other holders: listeners, leaks, saturation, crowds."""

import asyncio
import gc
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

import pytest
from sqlalchemy import event, text
from sqlalchemy.exc import DBAPIError
from tests.eventually import eventually
from tests.integration.pool.pools import pool_of

from penstock import Database, query
from penstock.errors import NestedCheckout, PoolTimeout
from penstock.pool.events import LeakReport, LeaseLeaked, PoolEvent
from penstock.testing import rollback_after, simulate_exhausted

add = query(text("INSERT INTO notes VALUES (:line) RETURNING line"))
notes = query(text("SELECT line FROM notes ORDER BY line"))
echo = query(text("SELECT CAST(:number AS int) FROM pg_sleep(:seconds)"))
series = query(text("SELECT generate_series(1, CAST(:last AS int))"))


def database_of(url: str, **settings: Any) -> Database:
    return Database.from_url(
        url, **{"environment": "testing", "pool_size": 1, "max_overflow": 0, **settings}
    )


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    async with database_of(database_url) as database:
        await database.writer.execute(text("CREATE TABLE notes (line text)"))
        yield database


async def use_everything(database: Database) -> None:
    assert await database.writer.one(add, line="first") == ("first",)
    assert await database.reader.all(notes) == [("first",)]
    async with database.reader.snapshot() as snapshot:
        assert await snapshot.all(notes) == [("first",)]
    async with database.reader.stream(notes) as rows:
        assert [row.line async for row in rows] == ["first"]
    assert await database.writer.execute(text("DELETE FROM notes")) == 1


EACH_ONCE = 5
"""Statements, snapshots and streams of ``use_everything``."""


@pytest.mark.parametrize("name", ["checkout", "checkin", "reset"])
async def test_who_listens_to_the_pool_is_told_of_every_loan(database: Database, name: str) -> None:
    told: list[Any] = []
    await use_everything(database)

    @event.listens_for(database.engine.sync_engine, name)
    def listen(connection: Any, *_: Any) -> None:
        told.append(connection)

    await use_everything(database)
    assert len(told) == EACH_ONCE
    event.remove(database.engine.sync_engine, name, listen)
    await use_everything(database)
    assert len(told) == EACH_ONCE
    assert database.pool.snapshot().opened_total == 1


async def test_a_listener_may_refuse_a_loan(database: Database) -> None:
    def refuse(*_: object) -> None:
        raise KeyError("the listener's own")

    event.listen(database.engine.sync_engine, "checkout", refuse)
    for work in (database.reader.all(notes), database.writer.one(add, line="refused")):
        with pytest.raises(KeyError, match="the listener's own"):
            await work
    event.remove(database.engine.sync_engine, "checkout", refuse)
    assert database.pool.snapshot().checked_out == 0
    await use_everything(database)


async def test_errors_are_the_same_while_somebody_listens(database: Database) -> None:
    event.listen(database.engine.sync_engine, "checkin", lambda *_: None)
    writes = "WITH added AS (INSERT INTO notes VALUES ('refused') RETURNING line) TABLE added"
    for statement in ("SELECT 1/0", writes):
        with pytest.raises(DBAPIError):
            await database.reader.all(text(statement))
    with pytest.raises(TimeoutError):
        await database.reader.with_timeout(0.1).all(echo, number=1, seconds=60)
    await use_everything(database)
    assert database.pool.snapshot().checked_out == 0


async def test_an_exhausted_pool_refuses_each_kind_of_statement(database: Database) -> None:
    with simulate_exhausted(database):
        for work in (database.reader.all(notes), database.writer.one(add, line="refused")):
            with pytest.raises(PoolTimeout):
                await work
    await use_everything(database)


async def test_an_exhausted_pool_refuses_snapshots_and_streams(database: Database) -> None:
    with simulate_exhausted(database):
        with pytest.raises(PoolTimeout):
            async with database.reader.snapshot():
                pass
        with pytest.raises(PoolTimeout):
            async with database.reader.stream(notes):
                pass
    await use_everything(database)


async def test_undone_work_is_seen_by_readers_and_then_gone(database: Database) -> None:
    async with rollback_after(database):
        assert await database.writer.one(add, line="undone") == ("undone",)
        await database.writer.execute_many(add, [{"line": "many"}])
        assert await database.reader.all(notes) == [("many",), ("undone",)]
        async with database.reader.snapshot() as snapshot:
            assert await snapshot.all(notes) == [("many",), ("undone",)]
        async with database.reader.stream(notes) as rows:
            assert [row.line async for row in rows] == ["many", "undone"]
        async with database.read() as session:
            assert await session.scalar(text("SELECT count(*) FROM notes")) == 2
        with pytest.raises(DBAPIError):
            await database.reader.all(text("INSERT INTO notes VALUES ('x') RETURNING line"))
    assert await database.reader.all(notes) == []
    await use_everything(database)


async def test_an_exhausted_pool_within_undone_work(database: Database) -> None:
    async with rollback_after(database):
        await database.writer.one(add, line="undone")
        with simulate_exhausted(database), pytest.raises(PoolTimeout):
            await database.reader.all(notes)
        assert await database.reader.all(notes) == [("undone",)]
    assert await database.reader.all(notes) == []


@pytest.fixture
async def watched(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[tuple[Database, list[LeakReport]]]:
    """A pool that reports what is checked out for a tenth of a second, and its reports."""
    monkeypatch.setattr("penstock.pool.runtime.TICK_INTERVAL", 0.02)
    reports: list[LeakReport] = []

    def note(what: PoolEvent) -> None:
        if isinstance(what, LeaseLeaked):
            reports.append(what.report)

    async with database_of(database_url, leak_after=0.1, pool_size=2) as database:
        pool_of(database.engine).listeners.add(note)
        yield database, reports


async def test_a_forgotten_snapshot_and_a_forgotten_stream_are_reported(
    watched: tuple[Database, list[LeakReport]],
) -> None:
    database, reports = watched
    async with database.reader.snapshot() as snapshot:
        await snapshot.scalar(text("SELECT 1"))
        await eventually(lambda: len(reports) == 1)
    async with database.reader.stream(series, last=1000).yield_per(10) as rows:
        async for _ in rows:
            break
        await eventually(lambda: len(reports) == 2)
    for report in reports:
        assert __name__.rpartition(".")[2] in report.acquired_at
        assert "src/penstock" not in report.acquired_at
    assert "generate_series" in str(reports[1].statement)


async def test_a_single_statement_is_never_reported_however_long_it_takes(
    watched: tuple[Database, list[LeakReport]],
) -> None:
    database, reports = watched
    async with database.reader.snapshot():
        await database.reader.all(echo, number=1, seconds=0.4)
        await eventually(lambda: bool(reports))
    await database.writer.execute(text("SELECT pg_sleep(0.4)"))
    assert [report.statement for report in reports] == ["(a snapshot)"]


async def test_a_nested_checkout_in_a_snapshot_is_refused_at_once(database_url: str) -> None:
    async def nested(database: Database) -> None:
        async with database.reader.snapshot() as snapshot:
            await snapshot.scalar(text("SELECT 1"))
            await database.reader.scalar(text("SELECT 1"))

    async with database_of(database_url, nested_checkout="refuse") as database:
        for _ in range(2):
            async with asyncio.timeout(5):  # pool_timeout is 30 s
                with pytest.raises(NestedCheckout) as refused:
                    await nested(database)
            assert str(refused.value).count("in nested") == 2
            assert database.pool.snapshot().checked_out == 0


async def test_a_stream_that_nobody_refers_to_any_more_gives_its_connection_back(
    database: Database,
) -> None:
    async def forget() -> None:
        rows = aiter(database.reader.stream(series, last=1000).yield_per(10))
        assert await anext(rows) == (1,)

    await forget()
    gc.collect()
    await eventually(lambda: database.pool.snapshot().checked_out == 0)
    await use_everything(database)


async def test_everybody_in_a_crowd_gets_the_own_answer(database_url: str) -> None:
    async def ask(database: Database, number: int) -> None:
        for turn in range(5):
            own = number * 10 + turn
            assert await database.reader.scalar(echo, number=own, seconds=0) == own
            assert await database.writer.scalar(echo, number=-own, seconds=0) == -own
            async with database.read() as session:
                assert await session.scalar(text(f"SELECT {own}")) == own

    async with database_of(database_url, pool_size=5) as database:
        async with asyncio.TaskGroup() as tasks:
            for number in range(200):
                tasks.create_task(ask(database, number))
        assert database.pool.snapshot().opened_total <= 5
        assert (database.pool.snapshot().checked_out, database.pool.snapshot().waiting) == (0, 0)


async def test_what_is_asked_at_once_of_one_snapshot_is_answered_in_turn(
    database: Database,
) -> None:
    async with database.reader.snapshot() as snapshot:

        async def stream(last: int) -> list[int]:
            async with snapshot.stream(series, last=last).yield_per(3) as rows:
                return [row[0] async for row in rows]

        answers = await asyncio.gather(
            *(snapshot.scalar(echo, number=n, seconds=0.001) for n in range(30)),
            *(stream(last) for last in (5, 10)),
        )
        backends = await asyncio.gather(
            *(snapshot.scalar(text("SELECT pg_backend_pid()")) for _ in range(5))
        )
    assert answers == [*range(30), list(range(1, 6)), list(range(1, 11))]
    assert len(Counter(backends)) == 1

"""The statements of an engine, timed and counted on every driver."""

from collections.abc import Callable
from time import monotonic

import pytest
from sqlalchemy import Column, Integer, MetaData, String, Table, event, insert, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine
from tests.integration.engine.engines import engine_on

from penstock.pool import PenstockPool
from penstock.pool.record import STATEMENT_KEY
from penstock.telemetry import StatementWatch
from penstock.telemetry.sampler import count_idle_in_transaction
from penstock.telemetry.statement_watch import (
    RequestStatements,
    request_statements,
    watch_statements,
)

WORDS = Table(
    "words", MetaData(), Column("id", Integer, primary_key=True), Column("word", String(20))
)


class Told:
    """Every statement, its rows, and the number of calls, for each takes some time."""

    def __init__(self) -> None:
        self.rows: list[tuple[str, int]] = []
        self.watch = StatementWatch(1e-9, self)

    def slow(self, statement: str, route: str, seconds: float, rows: int) -> None:
        assert route == "(no route)"
        assert 0 < seconds < 60
        self.rows.append((statement, rows))

    def repeated(self, statement: str, route: str, times: int) -> None:
        raise AssertionError


async def words_on(engine: AsyncEngine) -> None:
    async with engine.begin() as connection:
        await connection.run_sync(WORDS.metadata.create_all)
        await connection.execute(
            insert(WORDS), [{"id": number, "word": f"secret-{number}"} for number in (1, 2, 3)]
        )


async def test_every_kind_of_statement_is_told_with_its_rows_and_without_values(
    any_url: str,
) -> None:
    told = Told()
    async with engine_on(any_url) as engine:
        await words_on(engine)
        watch_statements(engine, told.watch)
        async with engine.begin() as connection:
            found = await connection.execute(text("SELECT word FROM words WHERE id < 3"))
            assert len(found.all()) == 2
            await connection.execute(
                text("UPDATE words SET word = :word WHERE id > 1"), {"word": "4711"}
            )
            await connection.exec_driver_sql("DELETE FROM words WHERE word = 'secret-1'")
            with pytest.raises(DBAPIError):
                await connection.execute(text("SELECT nothing FROM nowhere"))
        watch_statements(engine, None)
        async with engine.connect() as connection:
            await connection.execute(text("SELECT 1"))

    assert told.rows == [
        ("SELECT word FROM words WHERE id < ?", 2),
        ("UPDATE words SET word = ? WHERE id > ?", 2),
        ("DELETE FROM words WHERE word = ?", 1),
        ("SELECT nothing FROM nowhere", 0),
    ]


async def test_streams_and_lists_of_values_are_told_as_well(any_url: str) -> None:
    told = Told()
    async with engine_on(any_url) as engine:
        await words_on(engine)
        watch_statements(engine, told.watch)
        async with engine.begin() as connection:
            streamed = await connection.stream(text("SELECT word FROM words"))
            assert len([row async for row in streamed]) == 3
            await connection.execute(
                text("INSERT INTO words (id, word) VALUES (:id, :word)"),
                [{"id": number, "word": "4711"} for number in range(10, 30)],
            )

    assert [statement for statement, _ in told.rows] == [
        "SELECT word FROM words",
        "INSERT INTO words (id, word) VALUES (...)",
    ]


async def test_the_batches_of_one_insert_are_no_repetition(database_url: str) -> None:
    watch, statements = StatementWatch(None), RequestStatements()
    async with engine_on(database_url) as engine:
        await words_on(engine)
        watch_statements(engine, watch)
        token = request_statements.set(statements)
        async with engine.begin() as connection:
            await connection.execute(text("SELECT 1"))
            inserted = await connection.execute(
                insert(WORDS).returning(WORDS.c.id),
                [{"word": "x", "id": number} for number in range(10, 30)],
                execution_options={"insertmanyvalues_page_size": 1},
            )
            assert len(inserted.all()) == 20
        request_statements.reset(token)

    assert statements == {watch: {"SELECT 1": 1}}


async def test_a_first_connection_and_a_detached_one_are_watched(database_url: str) -> None:
    told = Told()
    async with engine_on(database_url, leak_after=60) as engine:
        watch_statements(engine, told.watch)
        async with engine.connect() as connection:
            await connection.execute(text("SELECT 1 AS first"))
            raw = await connection.get_raw_connection()
            assert raw.info[STATEMENT_KEY] == "SELECT 1 AS first"
            raw.detach()
            await connection.execute(text("SELECT 1 AS last"))

    assert [told.rows[-2], told.rows[-1]] == [("SELECT ? AS first", 1), ("SELECT ? AS last", 1)]


async def test_listeners_to_the_dialects_events_are_heard_all_the_same(any_url: str) -> None:
    told, heard = Told(), list[str]()
    async with engine_on(any_url) as engine:
        watch_statements(engine, told.watch)

        @event.listens_for(engine.sync_engine, "do_execute")
        def hear(_cursor: object, statement: str, _parameters: object, _context: object) -> None:
            heard.append(statement)

        async with engine.connect() as connection:
            await connection.execute(text("SELECT 1"))

    assert heard[-1:] == ["SELECT 1"]
    assert told.rows[-1] == ("SELECT ?", 1)


async def test_a_transaction_that_does_nothing_is_at_rest(any_url: str) -> None:
    async with engine_on(any_url) as engine:
        watch_statements(engine, StatementWatch(None))
        idle_in_transaction = at_rest_in(engine)
        async with engine.connect() as connection:
            await connection.run_sync(WORDS.metadata.create_all)
            await connection.commit()
            assert idle_in_transaction(60.0) == 0
            await connection.execute(insert(WORDS).values(id=1, word="x"))
            assert (idle_in_transaction(4.0), idle_in_transaction(6.0)) == (0, 1)
            await connection.commit()
            assert idle_in_transaction(60.0) == 0
            await connection.execute(insert(WORDS).values(id=2, word="x"))
            assert idle_in_transaction(60.0) == 1
        assert idle_in_transaction(60.0) == 0
        async with engine.connect():
            assert idle_in_transaction(60.0) == 0


def at_rest_in(engine: AsyncEngine) -> Callable[[float], int]:
    """Return what counts the connections at rest as if so many seconds had passed."""
    pool = engine.pool
    assert isinstance(pool, PenstockPool)
    return lambda seconds: count_idle_in_transaction(pool.ledger, monotonic() + seconds)

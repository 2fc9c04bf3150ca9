"""Reads of one statement that leave together: each gets its own answer, and nobody waits."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from decimal import Decimal
from time import monotonic
from typing import Any

import pytest
from sqlalchemy import (
    ARRAY,
    Double,
    Float,
    Integer,
    Numeric,
    Select,
    String,
    bindparam,
    cast,
    func,
    insert,
    literal_column,
    select,
)
from sqlalchemy.exc import DBAPIError, MultipleResultsFound, NoResultFound
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from tests.eventually import eventually
from tests.integration.exporters.otel_recording import Recording
from tests.integration.express.batches import CROWD, Batches, at_once, learn
from tests.servers.proxy import Proxy

from penstock import Database, query
from penstock.errors import PoolTimeout
from penstock.express import batch, pace
from penstock.telemetry.statement_watch import RequestStatements, request_statements

EXECUTE = b"E\0\0\0\x09\0\0\0\0\0"


class Base(DeclarativeBase):
    """What the table belongs to."""


class Note(Base):
    """Something to be read."""

    __tablename__ = "notes"
    id: Mapped[int] = mapped_column(primary_key=True)
    line: Mapped[str]
    tags: Mapped[list[str]] = mapped_column(ARRAY(String))


note_by_id = query(select(Note).where(Note.id == bindparam("id")))
line_by_id = query(select(Note.id, Note.line).where(Note.id == bindparam("id")))
rows_up_to = query(select(func.generate_series(1, bindparam("last", type_=Integer)).label("n")))
tenth = query(select((10 // bindparam("by", type_=Integer)).label("part")))


@pytest.fixture
def batches(monkeypatch: pytest.MonkeyPatch) -> Batches:
    """The batches that leave during the test."""
    return Batches(monkeypatch)


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    """A hundred notes."""
    async with Database.from_url(database_url, environment="testing", pool_size=10) as database:
        await add_notes(database)
        yield database


async def add_notes(database: Database) -> None:
    async with database.engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
    notes = [{"id": n, "line": f"line {n}", "tags": [str(n)]} for n in range(1, 101)]
    await database.writer.execute_many(insert(Note), notes)


async def test_a_crowd_of_reads_takes_a_few_round_trips(
    proxy: Proxy, database_url: str, batches: Batches
) -> None:
    url = proxy.url(database_url)
    async with Database.from_url(url, environment="testing", pool_size=10) as database:
        await add_notes(database)
        await learn(database, line_by_id, id=1)
        await asyncio.gather(*(database.reader.one(line_by_id, id=1) for _ in range(10)))
        before = proxy.round_trips
        rows = await at_once(database.reader.one(line_by_id, id=n) for n in range(1, CROWD + 1))
        assert [row.line for row in rows] == [f"line {n}" for n in range(1, CROWD + 1)]
        assert sum(batches.sizes) >= CROWD - batch.WORTH
        assert proxy.round_trips - before < CROWD / 2


async def test_who_reads_alone_or_with_few_others_waits_for_nobody(
    database: Database, batches: Batches
) -> None:
    await learn(database, line_by_id, id=1)
    for together in range(1, batch.WORTH + 1):
        await at_once(database.reader.one(line_by_id, id=n) for n in range(1, together + 1))
    assert batches.sizes == []


@pytest.mark.parametrize("way", ["one", "one_or_none", "first", "scalar", "all"])
async def test_each_gets_its_own_rows_however_many(
    database: Database, batches: Batches, way: str
) -> None:
    counts = [n % 4 for n in range(CROWD)]
    await learn(database, rows_up_to, last=1)
    read = getattr(database.reader, way)
    alone = [await asyncio.gather(read(rows_up_to, last=n), return_exceptions=True) for n in counts]
    together = await at_once(read(rows_up_to, last=n) for n in counts)

    assert batches.sizes
    assert [repr(each) for each in together] == [repr(each) for (each,) in alone]
    kinds = {type(each) for each in together}
    if way == "one":
        assert {NoResultFound, MultipleResultsFound} < kinds


async def test_instances_are_each_callers_own(database: Database, batches: Batches) -> None:
    await learn(database, note_by_id, id=1)
    notes = await at_once(database.reader.one(note_by_id, id=1) for _ in range(CROWD))
    for number, note in enumerate(notes):
        note.line = str(number)
        note.tags.append(str(number))
    assert [note.line for note in notes] == [str(number) for number in range(CROWD)]
    assert [note.tags for note in notes] == [["1", str(number)] for number in range(CROWD)]
    assert batches.sizes


# Equal values.


@pytest.fixture
async def executes(proxy: Proxy, database_url: str) -> AsyncIterator[tuple[Database, Counter[str]]]:
    """A database behind a proxy that counts the statements which are run."""
    counts: Counter[str] = Counter()

    def count(data: bytes, is_answer: bool) -> tuple[bytes, bool]:
        if not is_answer:
            counts["executed"] += data.count(EXECUTE)
        return data, True

    url = proxy.url(database_url)
    async with Database.from_url(url, environment="testing", pool_size=10) as database:
        await add_notes(database)
        proxy.alter = count
        yield database, counts


async def test_equal_values_are_sent_once(
    executes: tuple[Database, Counter[str]], batches: Batches
) -> None:
    database, counts = executes
    await learn(database, line_by_id, id=1)
    counts.clear()
    rows = await at_once(database.reader.one(line_by_id, id=n % 3 + 1) for n in range(CROWD))
    assert [row.id for row in rows] == [n % 3 + 1 for n in range(CROWD)]
    assert set(batches.sizes) == {3}
    assert counts["executed"] == batch.WORTH + sum(batches.sizes) < CROWD / 2


ECHOES: dict[str, tuple[Select[str], list[Any]]] = {
    "numbers of other scales": (
        select(cast(bindparam("value", type_=Numeric), String).label("echo")),
        [Decimal(1), Decimal("1.0"), Decimal("1.00"), Decimal("-0"), Decimal(0)],
    ),
    "signed zeros": (
        select(cast(bindparam("value", type_=Double), String).label("echo")),
        [0.0, -0.0],
    ),
    "texts": (
        select(bindparam("value", type_=String).label("echo")),
        ["a", "A", "á", "a\u0301", "", " "],
    ),
}


@pytest.mark.parametrize("name", ECHOES)
async def test_values_that_python_takes_for_equal_keep_apart(
    database: Database, batches: Batches, name: str
) -> None:
    statement, values = ECHOES[name]
    prepared = query(statement)
    await learn(database, prepared, value=values[0])
    alone = [await database.reader.scalar(prepared, value=value) for value in values]
    given = values * (CROWD // len(values))
    together = await at_once(database.reader.scalar(prepared, value=value) for value in given)
    assert together == alone * (CROWD // len(values))
    assert [str(each) for each in together] == [str(a) for a in alone] * (CROWD // len(values))
    assert batches.sizes


CHANGING = {
    "a function": select(func.random().label("value"), bindparam("key", type_=Integer)),
    "a function in a subquery": select(
        select(func.gen_random_uuid().label("value")).subquery(), bindparam("key", type_=Integer)
    ),
    "literal SQL": select(
        literal_column("random()").label("value"), bindparam("key", type_=Integer)
    ),
    "a common table expression": select(
        select(func.random().label("value")).cte().c.value, bindparam("key", type_=Integer)
    ),
}


@pytest.mark.parametrize("name", CHANGING)
async def test_what_may_change_from_call_to_call_is_asked_for_each(
    database: Database, batches: Batches, name: str
) -> None:
    changing = query(CHANGING[name])
    await learn(database, changing, key=1)
    values = await at_once(database.reader.scalar(changing, key=1) for _ in range(CROWD))
    assert len(set(values)) == CROWD
    assert max(batches.sizes) > batch.WORTH


async def test_lists_are_not_shared(database: Database, batches: Batches) -> None:
    tags = query(select(Note.tags).where(Note.id == bindparam("id")))
    await learn(database, tags, id=1)
    lists = await at_once(database.reader.scalar(tags, id=1) for _ in range(CROWD))
    assert len({id(each) for each in lists}) == CROWD
    assert batches.sizes


# Errors, cancellations and limits stay apart.


async def test_an_error_is_its_callers_alone(database: Database, batches: Batches) -> None:
    await learn(database, tenth, by=1)
    with pytest.raises(DBAPIError) as alone:
        await database.reader.scalar(tenth, by=0)
    found = await at_once(database.reader.scalar(tenth, by=n % 8) for n in range(CROWD))
    for number, each in enumerate(found):
        if number % 8:
            assert each == 10 // (number % 8)
        else:
            assert type(each) is type(alone.value)
            assert str(each) == str(alone.value)
    assert batches.sizes


async def test_a_value_that_cannot_be_sent_is_its_callers_alone(
    database: Database, batches: Batches
) -> None:
    await learn(database, line_by_id, id=1)
    values: list[Any] = [1, 2, "three", 4, 2**40, 6] * 6
    found = await at_once(database.reader.one(line_by_id, id=value) for value in values)
    for value, each in zip(values, found, strict=True):
        if value in {1, 2, 4, 6}:
            assert each.id == value
        else:
            assert isinstance(each, DBAPIError)
    assert batches.sizes


@pytest.mark.parametrize("when", [0, 1, 2, 3])
async def test_who_is_cancelled_takes_nobody_along(
    database: Database, batches: Batches, when: int
) -> None:
    await learn(database, line_by_id, id=1)
    tasks = [
        asyncio.ensure_future(database.reader.one(line_by_id, id=n)) for n in range(1, CROWD + 1)
    ]
    for _ in range(when):
        await asyncio.sleep(0)
    for task in tasks[::3]:
        task.cancel()
    found = await at_once(tasks)
    for number, each in enumerate(found):
        if number % 3:
            assert each.id == number + 1
        else:
            assert isinstance(each, asyncio.CancelledError) or each.id == number + 1
    await eventually(lambda: database.pool.snapshot().checked_out == 0)


@pytest.mark.parametrize("when", [0, 1, 2, 3, 4])
async def test_after_all_were_cancelled_others_are_answered(
    database: Database, batches: Batches, when: int
) -> None:
    await learn(database, line_by_id, id=1)
    for _ in range(3):
        tasks = [asyncio.ensure_future(database.reader.one(line_by_id, id=1)) for _ in range(CROWD)]
        for _ in range(when):
            await asyncio.sleep(0)
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        rows = await at_once(database.reader.one(line_by_id, id=n) for n in range(1, CROWD))
        assert [row.id for row in rows] == list(range(1, CROWD))
    await eventually(lambda: database.pool.snapshot().checked_out == 0)


_slept = func.pg_sleep(bindparam("seconds", type_=Float)).table_valued(name="slept")
nap = query(select(bindparam("n", type_=Integer).label("n")).select_from(_slept))


async def test_who_waits_long_does_not_hold_up_the_others(
    database: Database, batches: Batches, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batch, "BATCH_TIMEOUT", 0.05)
    await learn(database, nap, n=0, seconds=0.0)
    order: list[int | None] = []

    async def read(number: int, seconds: float) -> None:
        order.append(await database.reader.scalar(nap, n=number, seconds=seconds))

    await at_once(read(n, 2.0 if n == CROWD // 2 else 0.0) for n in range(CROWD))
    assert set(order) == set(range(CROWD))
    assert order[-1] == CROWD // 2
    assert batches.sizes


async def test_what_takes_the_server_long_leaves_alone(
    database: Database, batches: Batches, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pace, "REST", 600.0)
    await learn(database, nap, n=0, seconds=0.02)
    for _ in range(6):
        await at_once(database.reader.scalar(nap, n=n, seconds=0.02) for n in range(10))
    assert len(batches.sizes) <= pace.SLOW_BATCHES


async def test_a_huge_result_does_not_hold_up_the_others(
    database: Database, batches: Batches
) -> None:
    await learn(database, rows_up_to, last=1)
    found = await at_once(
        database.reader.all(rows_up_to, last=200_000 if n == 20 else 2) for n in range(CROWD)
    )
    assert [len(rows) for rows in found] == [2] * 20 + [200_000] + [2] * (CROWD - 21)
    assert batches.sizes


async def test_limits_end_their_own_calls(database: Database, batches: Batches) -> None:
    await learn(database, nap, n=0, seconds=0.0)
    patient, hasty = database.reader, database.reader.with_timeout(0.2)
    found = await at_once(
        (hasty if n % 2 else patient).scalar(nap, n=n, seconds=0.6 if n in {20, 21} else 0.0)
        for n in range(CROWD)
    )
    assert isinstance(found[21], TimeoutError)
    assert [each for n, each in enumerate(found) if n != 21] == [n for n in range(CROWD) if n != 21]


# What is told of each read.


async def test_spans_and_the_slow_query_log_tell_of_each_read(
    database_url: str, batches: Batches, caplog: pytest.LogCaptureFixture
) -> None:
    recording = Recording()
    async with Database.from_url(
        database_url, environment="testing", pool_size=10, slow_query=0.001
    ) as database:
        await add_notes(database)
        with recording.of(database):
            await learn(database, line_by_id, id=1)
            recording.forget_spans()
            caplog.clear()
            rows = await at_once(database.reader.one(line_by_id, id=n) for n in range(1, CROWD))
    assert [row.id for row in rows] == list(range(1, CROWD))
    assert sum(batches.sizes) >= CROWD - batch.WORTH - 1
    spans = recording.spans("SELECT")
    assert len(spans) == CROWD - 1
    assert {span.attributes["db.response.returned_rows"] for span in spans if span.attributes} == {
        1
    }


async def test_a_request_is_told_of_each_statement(database: Database, batches: Batches) -> None:
    await learn(database, line_by_id, id=1)
    counts: RequestStatements = {}
    token = request_statements.set(counts)
    try:
        await at_once(database.reader.one(line_by_id, id=n) for n in range(1, CROWD + 1))
    finally:
        request_statements.reset(token)
    assert [sum(each.values()) for each in counts.values()] == [CROWD]
    assert batches.sizes


# Contexts and switches.


async def test_tenants_keep_apart(database_url: str, batches: Batches) -> None:
    tenant = query(
        select(
            bindparam("n", type_=Integer).label("n"),
            func.current_setting("app.tenant", True).label("tenant"),
        )
    )
    async with Database.from_url(database_url, environment="testing", pool_size=10) as database:
        readers = [
            database.reader.with_context(settings={"app.tenant": name}) for name in ("a", "b", "c")
        ]
        for reader in readers:
            await reader.one(tenant, n=0)
        rows = await at_once(readers[n % 3].one(tenant, n=n) for n in range(2 * CROWD))
        assert [tuple(row) for row in rows] == [(n, "abc"[n % 3]) for n in range(2 * CROWD)]
        assert not (await database.reader.one(tenant, n=0)).tenant
    assert batches.sizes


async def test_batch_false_and_the_setting_turn_it_off(database_url: str, batches: Batches) -> None:
    alone = query(select(Note.id).where(Note.id == bindparam("id")), batch=False)
    async with Database.from_url(database_url, environment="testing") as database:
        await add_notes(database)
        await learn(database, alone, id=1)
        await at_once(database.reader.scalar(alone, id=1) for _ in range(CROWD))
        assert batches.sizes == []
    async with Database.from_url(
        database_url, environment="testing", batch_reads=False
    ) as database:
        await learn(database, line_by_id, id=1)
        await at_once(database.reader.one(line_by_id, id=1) for _ in range(CROWD))
        assert batches.sizes == []


async def test_a_pool_of_one_connection_answers_a_crowd(
    database_url: str, batches: Batches
) -> None:
    async with Database.from_url(
        database_url, environment="testing", pool_size=1, max_overflow=0
    ) as database:
        await add_notes(database)
        await learn(database, line_by_id, id=1)
        rows = await at_once(database.reader.one(line_by_id, id=n) for n in range(1, 101))
        assert [row.id for row in rows] == list(range(1, 101))
        assert database.pool.snapshot().opened_total == 1
    assert batches.sizes


async def test_a_crowd_waits_no_longer_for_a_connection_than_each_alone(
    database_url: str, batches: Batches
) -> None:
    async with Database.from_url(
        database_url, environment="testing", pool_size=1, max_overflow=0, pool_timeout=2.0
    ) as database:
        await add_notes(database)
        await learn(database, line_by_id, id=1)
        await at_once(database.reader.one(line_by_id, id=n) for n in range(1, CROWD))
        async with database.connection() as held:
            began = monotonic()
            found = await at_once(database.reader.one(line_by_id, id=n) for n in range(1, CROWD))
            waited = monotonic() - began
            await held.execute(select(1))
        assert {type(each) for each in found} == {PoolTimeout}
        assert 2.0 <= waited < 3.5
        assert (await database.reader.one(line_by_id, id=7)).id == 7

"""The express lane beside the sessions of its request: on their connection, or in its own right."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import ForeignKey, event, func, insert, select, text, update
from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlalchemy.ext.asyncio import AsyncAttrs, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, relationship
from tests.eventually import eventually
from tests.integration.fastapi.notes import Note, Onlooker

import penstock
from penstock import Database
from penstock.errors import NestedCheckout, SelfDeadlock
from penstock.fastapi.request_sessions import RequestSessions
from penstock.testing import rollback_after

BACKEND = text("SELECT pg_backend_pid()")
TEXTS = select(Note.text).order_by(Note.id)
SETTING = text("SELECT current_setting('app.tenant', true)")
SET_TENANT = text("SELECT set_config('app.tenant', 'a', true)")


@dataclass
class Request:
    """What a route is given, without a server."""

    reading: Any
    writing: Any
    reader: penstock.express.Reader
    writer: penstock.express.Writer
    units: RequestSessions

    async def commit(self) -> None:
        """End as a request that succeeds."""
        await self.units.commit()
        await self.units.end()


def request_on(database: Database) -> Request:
    units = RequestSessions({"default": database})
    unit = units.unit("default")
    return Request(
        unit.reader, unit.writer, units.reader("default"), units.writer("default"), units
    )


@pytest.fixture(params=["asyncpg", "psycopg"])
async def one(request: pytest.FixtureRequest, tables: str) -> AsyncIterator[Database]:
    """A pool of one connection, on each driver."""
    url = tables.replace("asyncpg", request.param)
    async with Database.from_url(
        url, environment="testing", pool_size=1, max_overflow=0, pool_timeout=20
    ) as database:
        yield database


@pytest.fixture(params=["asyncpg", "psycopg"])
async def two(request: pytest.FixtureRequest, tables: str) -> AsyncIterator[Database]:
    """A pool of two connections, on each driver."""
    url = tables.replace("asyncpg", request.param)
    async with Database.from_url(
        url, environment="production", pool_size=2, max_overflow=0, pool_timeout=20
    ) as database:
        yield database


async def test_a_reader_sees_what_the_session_has_flushed(one: Database) -> None:
    request = request_on(one)
    request.writing.add(Note(text="flushed"))
    await request.writing.flush()
    found = await request.reader.all(TEXTS)
    request.writing.add(Note(text="later"))
    await request.commit()

    assert [row.text for row in found] == ["flushed"]
    assert len(await one.reader.all(TEXTS)) == 2


async def test_a_reader_reads_what_was_set_for_the_sessions_transaction(one: Database) -> None:
    request = request_on(one)
    await request.reading.execute(SET_TENANT)
    tenant = await request.reader.scalar(SETTING)
    await request.units.end()

    assert tenant == "a"


async def test_nothing_of_a_read_stays_in_the_transaction(one: Database) -> None:
    request = request_on(one)
    await request.writing.execute(SET_TENANT)
    assert await request.reader.scalar(text("SELECT set_config('app.tenant', 'b', true)")) == "b"
    assert await request.writing.scalar(SETTING) == "a"
    await request.units.end()


@pytest.mark.parametrize(
    "statement",
    [
        "WITH w AS (INSERT INTO notes (text) VALUES ('x') RETURNING id) SELECT id FROM w",
        "SELECT setval('notes_id_seq', 1)",
        "SELECT id FROM notes FOR UPDATE",
    ],
)
async def test_the_server_refuses_a_read_that_writes_in_the_open_transaction(
    one: Database, onlooker: Onlooker, statement: str
) -> None:
    request = request_on(one)
    await request.writing.execute(insert(Note).values(text="before"))
    with pytest.raises(DBAPIError) as refused:
        await request.reader.all(text(statement))
    await request.writing.execute(insert(Note).values(text="after"))
    await request.commit()

    assert getattr(refused.value.orig, "sqlstate", None) == "25006"
    assert await onlooker.texts() == ["before", "after"]


async def test_a_read_that_fails_or_is_given_up_spoils_nothing(
    lone: Database, onlooker: Onlooker
) -> None:
    request = request_on(lone)
    await request.writing.execute(insert(Note).values(text="before"))
    with pytest.raises(DBAPIError):
        await request.reader.scalar(text("SELECT 1/0"))
    with pytest.raises(penstock.errors.ParameterError):
        await request.reader.scalar(text("SELECT :missing"))
    with pytest.raises(DBAPIError):
        await request.reader.scalar(select(func.abs(text(":n").bindparams(n="none"))))
    with pytest.raises(TimeoutError):
        await request.reader.with_timeout(0.05).scalar(text("SELECT pg_sleep(30)"))
    await request.writing.execute(insert(Note).values(text="after"))
    assert await request.reader.scalar(select(func.count()).select_from(Note)) == 2
    await request.commit()

    assert await onlooker.texts() == ["before", "after"]
    await eventually(lambda: lone.pool.snapshot().checked_out == 0)


async def test_reads_at_once_wait_for_their_turn(one: Database) -> None:
    request = request_on(one)
    own = await request.writing.scalar(BACKEND)
    found = await asyncio.gather(
        *(request.reader.scalar(BACKEND) for _ in range(10)),
        request.writing.scalar(BACKEND),
        request.reading.scalar(BACKEND),
    )
    await request.commit()

    assert set(found) == {own}


async def test_a_read_while_the_session_commits_runs_before_or_after(
    one: Database, onlooker: Onlooker
) -> None:
    request = request_on(one)
    await request.writing.execute(insert(Note).values(text="kept"))
    *_, found = await asyncio.gather(
        request.reader.scalar(text("SELECT pg_sleep(0.05)::text")),
        request.writing.commit(),
        request.reader.scalar(select(Note.text)),
    )
    await request.commit()

    assert found == "kept"
    assert await onlooker.texts() == ["kept"]


async def test_a_read_that_nobody_awaits_does_not_keep_a_request_from_committing(
    one: Database, onlooker: Onlooker
) -> None:
    request = request_on(one)
    await request.writing.execute(insert(Note).values(text="kept"))
    stray = asyncio.create_task(request.reader.scalar(text("SELECT 1 FROM pg_sleep(0.1)")))
    await asyncio.sleep(0.02)
    await request.commit()

    assert await stray == 1
    assert await onlooker.texts() == ["kept"]
    await eventually(lambda: one.pool.snapshot().checked_out == 0)


async def test_a_read_where_the_sessions_transaction_has_failed_fails_as_well(
    lone: Database,
) -> None:
    request = request_on(lone)
    await request.writing.execute(insert(Note).values(text="twice"))
    with pytest.raises(IntegrityError):
        await request.writing.execute(insert(Note).values(text="twice"))
    with pytest.raises(DBAPIError) as failed:
        await request.reader.scalar(text("SELECT 1"))
    await request.units.end()

    assert getattr(failed.value.orig, "sqlstate", None) == "25P02"
    assert await lone.reader.scalar(text("SELECT 1")) == 1


async def test_a_session_that_commits_by_itself_has_no_transaction_to_read_in(
    database: Database,
) -> None:
    request = request_on(database)
    await request.writing.connection(execution_options={"isolation_level": "AUTOCOMMIT"})
    own = await request.writing.scalar(BACKEND)
    found = await request.reader.scalar(BACKEND), await request.reading.scalar(BACKEND)
    await request.units.end()

    assert own not in found


async def test_a_read_sees_through_a_changed_table(lone: Database, onlooker: Onlooker) -> None:
    request = request_on(lone)
    statement = text("SELECT * FROM notes")
    await request.reader.all(statement)
    await onlooker.execute("ALTER TABLE notes ADD COLUMN extra int DEFAULT 7")
    await request.writing.execute(text("SELECT 1"))
    await request.writing.execute(insert(Note).values(text="new"))
    rows = await request.reader.all(statement)
    await request.commit()

    assert [(row.text, row.extra) for row in rows] == [("new", 7)]


async def test_a_read_within_a_stream_or_a_snapshot_is_on_its_connection(one: Database) -> None:
    request = request_on(one)
    await one.writer.execute_many(insert(Note), [{"text": str(number)} for number in range(9)])
    async with request.reader.stream(TEXTS).yield_per(2) as rows:
        for expected in range(9):
            row = await anext(rows)
            with pytest.raises(DBAPIError):
                await request.reader.scalar(text("SELECT 1/0"))
            assert await request.reader.scalar(select(func.count()).select_from(Note)) == 9
            assert row.text == str(expected)
    async with request.reader.snapshot() as moment:
        assert await moment.scalar(BACKEND) == await request.reader.scalar(BACKEND)
    await request.units.end()


async def test_a_session_that_only_read_makes_way_for_what_needs_a_transaction(
    one: Database,
) -> None:
    request = request_on(one)
    for _ in range(2):
        assert await request.reading.scalar(select(func.count()).select_from(Note)) == 0
        assert await request.writer.execute(text("UPDATE notes SET text = ''")) == 0
        async with request.reader.snapshot() as moment:
            assert await moment.all(TEXTS) == []
        async with request.reader.stream(TEXTS) as rows:
            assert [row async for row in rows] == []
    await request.units.end()


@pytest.mark.parametrize(
    "statement",
    [
        "SET LOCAL app.tenant = 'a'",
        "SELECT set_config('app.tenant', 'a', true)",
        "SELECT pg_advisory_xact_lock(1), set_config('app.tenant', 'a', true)",
    ],
)
async def test_what_was_set_for_a_transaction_is_not_given_up(
    two: Database, statement: str
) -> None:
    request = request_on(two)
    await request.reading.execute(text(statement))
    await request.writer.execute(text("UPDATE notes SET text = ''"))
    await request.writing.execute(insert(Note).values(text="by the session"))
    tenant = await request.reading.scalar(SETTING)
    await request.commit()

    assert tenant == "a"


async def test_where_that_takes_the_last_connection_it_is_said_at_once(one: Database) -> None:
    request = request_on(one)
    await request.reading.execute(SET_TENANT)
    with pytest.raises(NestedCheckout):
        await request.writer.execute(text("UPDATE notes SET text = ''"))
    assert await request.reading.scalar(SETTING) == "a"
    await request.units.end()


async def test_a_stream_or_snapshot_that_waits_for_its_own_sessions_lock_is_told_so(
    two: Database,
) -> None:
    request = request_on(two)
    await request.writing.execute(text("LOCK TABLE notes IN ACCESS EXCLUSIVE MODE"))
    async with asyncio.timeout(15):  # and not command_timeout, of 30 s
        with pytest.raises(SelfDeadlock):
            async with request.reader.snapshot() as moment:
                await moment.all(TEXTS)
        with pytest.raises(SelfDeadlock):
            async with request.reader.stream(TEXTS) as rows:
                assert [row async for row in rows] == []
        assert await request.writing.scalar(text("SELECT count(*) FROM notes")) == 0
    await request.units.end()


@pytest.mark.parametrize("statement", ["COMMIT", "ROLLBACK", "END", "/**/ABORT AND CHAIN"])
async def test_a_reading_session_cannot_end_the_writing_ones_transaction(
    two: Database, onlooker: Onlooker, statement: str
) -> None:
    request = request_on(two)
    await request.writing.execute(insert(Note).values(text="by the session"))
    with pytest.raises(DBAPIError, match="cannot end"):
        await request.reading.execute(text(statement))
    assert await onlooker.texts() == []
    assert await request.writing.scalar(TEXTS) == "by the session"
    await request.commit()
    assert await onlooker.texts() == ["by the session"]


async def test_a_writer_that_waits_for_its_own_sessions_lock_is_told_so(
    two: Database, onlooker: Onlooker
) -> None:
    await onlooker.execute("INSERT INTO notes (text) VALUES ('one')")
    request = request_on(two)
    await request.writing.execute(update(Note).values(text="by the session"))
    attempts = (
        lambda: request.writer.execute(update(Note).values(text="by the writer")),
        lambda: request.writer.execute(insert(Note).values(text="by the session")),
        lambda: request.writer.scalar(update(Note).values(text="x").returning(Note.text)),
        lambda: request.writer.execute_many(insert(Note), [{"text": "by the session"}]),
        lambda: request.writer.copy_in(Note, [{"text": "by the session"}]),
        lambda: request.writer.execute(text("TRUNCATE notes CASCADE")),
    )
    async with asyncio.timeout(15):  # and not command_timeout, of 30 s
        for attempt in attempts:
            with pytest.raises(SelfDeadlock, match=r"session\.commit\(\)"):
                await attempt()
    await request.commit()
    await request.writer.execute(insert(Note).values(text="free"))

    assert await onlooker.texts() == ["by the session", "free"]
    await eventually(lambda: two.pool.snapshot().checked_out == 0)


async def test_a_writer_that_waits_by_way_of_another_is_told_so(
    two: Database, tables: str, onlooker: Onlooker
) -> None:
    await onlooker.execute("INSERT INTO notes (text) VALUES ('one'), ('two')")
    another = create_async_engine(tables)
    request = request_on(two)
    await request.writing.execute(update(Note).where(Note.text == "one").values(text="1"))

    async def wait_with_a_lock() -> None:
        async with another.begin() as connection:
            await connection.execute(update(Note).where(Note.text == "two").values(text="2"))
            await connection.execute(update(Note).where(Note.text == "one").values(text="one!"))

    waiting = asyncio.create_task(wait_with_a_lock())
    await onlooker_sees_a_waiter(onlooker)
    async with asyncio.timeout(15):
        with pytest.raises(SelfDeadlock):
            await request.writer.execute(update(Note).where(Note.text == "two").values(text="x"))
    await request.commit()
    await waiting
    await another.dispose()

    assert sorted(await onlooker.texts()) == ["1", "2"]


async def onlooker_sees_a_waiter(onlooker: Onlooker) -> None:
    async with asyncio.timeout(10):
        while not await onlooker.waiters():  # noqa: ASYNC110 - the server tells nobody
            await asyncio.sleep(0.01)


async def test_a_writer_waits_for_what_others_have_locked(
    two: Database, tables: str, onlooker: Onlooker
) -> None:
    await onlooker.execute("INSERT INTO notes (text) VALUES ('one')")
    another = create_async_engine(tables)
    request = request_on(two)
    await request.writing.execute(insert(Note).values(text="by the session"))
    async with another.begin() as connection:
        await connection.execute(update(Note).where(Note.text == "one").values(text="two"))
        write = asyncio.create_task(
            request.writer.execute(update(Note).where(Note.text == "one").values(text="three"))
        )
        await asyncio.sleep(0.5)
        assert not write.done()
    assert await write == 0  # it looked before the other had committed
    await request.commit()
    await another.dispose()

    assert await onlooker.texts() == ["two", "by the session"]


class Model(AsyncAttrs, DeclarativeBase):
    """What the tables below belong to."""


class Parent(Model):
    """Has children, which are loaded when they are asked for."""

    __tablename__ = "parents"
    id: Mapped[int] = mapped_column(primary_key=True)
    children: Mapped[list["Child"]] = relationship()


class Child(Model):
    """Belongs to a parent."""

    __tablename__ = "children"
    id: Mapped[int] = mapped_column(primary_key=True)
    parent_id: Mapped[int] = mapped_column(ForeignKey("parents.id"))


@pytest.fixture
async def family(one: Database) -> Database:
    """A pool of one connection, and a parent with one child."""
    async with one.write() as session:
        connection = await session.connection()
        await connection.run_sync(Model.metadata.create_all)
        session.add(Parent(id=1, children=[Child(id=1)]))
    return one


async def test_a_lazy_load_needs_no_second_connection(family: Database) -> None:
    request = request_on(family)
    first = await request.reading.get(Parent, 1)
    assert len(await first.awaitable_attrs.children) == 1
    await request.units.end()

    request = request_on(family)
    first = await request.reading.get(Parent, 1)
    request.writing.add(Child(id=2, parent_id=1))
    await request.writing.flush()
    assert len(await first.awaitable_attrs.children) == 2
    request.writing.add(Child(id=3, parent_id=1))
    await request.writing.flush()
    assert await request.reader.scalar(select(func.count()).select_from(Child)) == 3
    await request.commit()

    request = request_on(family)
    written = await request.writing.get(Parent, 1)
    await request.writing.commit()
    assert await request.reading.get(Parent, 1) is not None
    assert len(await written.awaitable_attrs.children) == 3
    assert await request.reader.scalar(select(func.count()).select_from(Child)) == 3
    await request.commit()

    assert await family.reader.scalar(select(func.count()).select_from(Child)) == 3


async def test_lazy_loads_at_once_with_writes_take_turns(family: Database) -> None:
    request = request_on(family)
    first = await request.reading.get(Parent, 1)
    await request.writing.execute(insert(Child).values(id=2, parent_id=1))
    await asyncio.gather(
        first.awaitable_attrs.children,
        request.writing.execute(insert(Child).values(id=3, parent_id=1)),
        request.reader.scalar(select(func.count()).select_from(Child)),
    )
    await request.commit()

    assert await family.reader.scalar(select(func.count()).select_from(Child)) == 3


async def test_a_listener_that_sets_the_tenant_needs_no_second_connection(one: Database) -> None:
    def set_tenant(_session: Any, _transaction: Any, connection: Any) -> None:
        connection.execute(SET_TENANT)

    event.listen(Session, "after_begin", set_tenant)
    try:
        request = request_on(one)
        assert await request.reading.scalar(SETTING) == "a"
        assert await request.reader.scalar(SETTING) == "a"
        await request.writing.execute(insert(Note).values(text="kept"))
        assert await request.reading.scalar(SETTING) == "a"
        assert await request.writing.scalar(SETTING) == "a"
        await request.commit()
    finally:
        event.remove(Session, "after_begin", set_tenant)


async def test_all_of_it_works_within_a_test_that_is_undone(one: Database) -> None:
    async with rollback_after(one):
        request = request_on(one)
        await request.reading.execute(SET_TENANT)
        await request.writing.execute(insert(Note).values(text="by the session"))
        assert await request.reader.scalar(select(Note.text)) == "by the session"
        await request.writer.execute(insert(Note).values(text="by the writer"))
        assert len((await request.reading.execute(TEXTS)).all()) == 2
        assert await request.reader.scalar(select(func.count()).select_from(Note)) == 2
        await request.commit()
    assert await one.reader.all(TEXTS) == []


async def test_on_sqlite_a_reader_sees_what_was_flushed_as_well(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'notes.db'}"
    async with Database.from_url(url, environment="testing", pool_size=1, max_overflow=0) as one:
        async with one.engine.begin() as connection:
            await connection.run_sync(Note.metadata.create_all)
        request = request_on(one)
        assert (await request.reading.execute(TEXTS)).all() == []
        assert await request.reader.all(TEXTS) == []
        request.writing.add(Note(text="flushed"))
        await request.writing.flush()
        assert len(await request.reader.all(TEXTS)) == 1
        request.writing.add(Note(text="later"))
        await request.commit()
        await request.writer.execute(insert(Note).values(text="by the writer"))
        found = [row.text for row in await one.reader.all(TEXTS)]

    assert found == ["flushed", "later", "by the writer"]


async def test_a_session_that_streams_lends_its_connection_to_reads(one: Database) -> None:
    await one.writer.execute_many(insert(Note), [{"text": str(number)} for number in range(300)])
    request = request_on(one)
    read = 0
    async for (line,) in await request.reading.stream(TEXTS):
        assert line == str(read)
        read += 1
        if read % 50 == 0:
            assert await request.reader.scalar(select(func.count()).select_from(Note)) == 300
    own = await request.reading.scalar(BACKEND)
    assert await request.reader.scalar(BACKEND) == own
    await request.units.end()

    assert read == 300


async def test_a_stream_and_reads_of_other_tasks_take_turns(one: Database) -> None:
    await one.writer.execute_many(insert(Note), [{"text": str(number)} for number in range(300)])
    request = request_on(one)
    rows = await request.reading.stream(TEXTS)

    async def all_rows() -> int:
        return len([row async for row in rows])

    counted, *read = await asyncio.gather(
        all_rows(), *(request.reader.scalar(text("SELECT 1")) for _ in range(20))
    )
    await request.units.end()

    assert (counted, set(read)) == (300, {1})

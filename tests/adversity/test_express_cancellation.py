"""A statement of the express lane, cancelled at any of its awaits: nothing is lost by it."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Generator
from types import coroutine
from typing import Any

import pytest
from sqlalchemy import ForeignKey, bindparam, event, func, insert, select
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship, selectinload
from tests.adversity.backends import counting_backends
from tests.eventually import eventually
from tests.integration.pool.pools import pool_of

from penstock import Database, query
from penstock.pool.events import ConnectionClosed, PoolEvent

ROWS = 3
"""What every operation that writes adds, or nothing of it."""


class Base(DeclarativeBase):
    """What the table belongs to."""


class Note(Base):
    """Something to be written and read."""

    __tablename__ = "notes"
    id: Mapped[int] = mapped_column(primary_key=True)
    line: Mapped[str]
    marks: Mapped[list["Mark"]] = relationship()


class Mark(Base):
    """Belongs to a note."""

    __tablename__ = "marks"
    id: Mapped[int] = mapped_column(primary_key=True)
    note_id: Mapped[int] = mapped_column(ForeignKey("notes.id"))


by_id = query(select(Note.line).where(Note.id == bindparam("note_id")))
lines = query(select(Note.line).order_by(Note.id))
numbers = query(select(func.generate_series(1, bindparam("last"))))
count = query(select(func.count()).select_from(Note))
add = query(
    insert(Note).values([{"line": "first"}, {"line": "second"}, {"line": "third"}]),
)
add_one = query(insert(Note).values(line=bindparam("line")))
add_returning = query(
    insert(Note)
    .values([{"line": "first"}, {"line": "second"}, {"line": "third"}])
    .returning(Note.id)
)

with_marks = query(select(Note).where(Note.id == 1).options(selectinload(Note.marks)))
add_with_marks = query(
    insert(Note)
    .values([{"line": "first"}, {"line": "second"}, {"line": "third"}])
    .returning(Note)
    .options(selectinload(Note.marks))
)
add_rows = query(insert(Note).values(line=bindparam("line")).returning(Note.line))

Operation = Callable[[Database], Coroutine[Any, Any, object]]


async def read(database: Database) -> None:
    assert await database.reader.scalar(by_id, note_id=1) == "kept"


async def read_what_is_not_prepared(database: Database) -> None:
    assert await database.reader.scalar(select(func.length("kept"))) == 4


async def write(database: Database) -> None:
    assert len(await database.writer.all(add_returning)) == ROWS


async def execute(database: Database) -> None:
    assert await database.writer.execute(add) == ROWS


async def execute_many(database: Database) -> None:
    await database.writer.execute_many(add_one, [{"line": str(n)} for n in range(ROWS)])


async def read_related(database: Database) -> None:
    assert (await database.reader.one(with_marks)).marks == []


async def stream_related(database: Database) -> None:
    async with database.reader.stream(with_marks) as rows:
        assert [note.marks async for note in rows] == [[]]


async def write_related(database: Database) -> None:
    assert [note.marks for note in await database.writer.all(add_with_marks)] == [[]] * ROWS


async def write_rows(database: Database) -> None:
    rows = [{"line": str(number)} for number in range(ROWS)]
    assert await database.writer.all(add_rows, rows) == [("0",), ("1",), ("2",)]


async def copy_in(database: Database) -> None:
    async def rows() -> AsyncIterator[dict[str, str]]:
        for number in range(ROWS):
            await asyncio.sleep(0)
            yield {"line": str(number)}

    assert await database.writer.copy_in(Note, rows()) == ROWS


async def stream(database: Database) -> None:
    async with database.reader.stream(numbers, last=5).yield_per(2) as rows:
        assert [row[0] async for row in rows] == [1, 2, 3, 4, 5]


async def stream_by_itself(database: Database) -> None:
    rows = database.reader.stream(numbers, last=5).yield_per(2)
    assert [row[0] async for row in rows] == [1, 2, 3, 4, 5]


async def snapshot(database: Database) -> None:
    async with database.reader.snapshot() as moment:
        assert await moment.scalar(by_id, note_id=1) == "kept"
        async with moment.stream(numbers, last=3).yield_per(2) as rows:
            assert [row[0] async for row in rows] == [1, 2, 3]
        assert await moment.exists(select(Note.id))


async def read_and_write(database: Database) -> None:
    await read(database)
    await execute(database)
    await read(database)


OPERATIONS: list[Operation] = [
    read,
    read_what_is_not_prepared,
    write,
    execute,
    execute_many,
    read_related,
    stream_related,
    write_related,
    write_rows,
    copy_in,
    stream,
    stream_by_itself,
    snapshot,
    read_and_write,
]


def by_the_way(task: "asyncio.Task[Any]", _: Any) -> None:
    """Cancel while nothing has been answered."""
    task.cancel()


def with_the_answer(task: "asyncio.Task[Any]", awaited: Any) -> None:
    """Cancel when the answer is there, before the task has seen it."""
    if awaited is None:
        task.cancel()
    else:
        awaited.add_done_callback(lambda _: task.cancel())


def a_moment_later(task: "asyncio.Task[Any]", _: Any) -> None:
    """Cancel at the event loop's next turn."""
    asyncio.get_running_loop().call_soon(task.cancel)


Moment = Callable[["asyncio.Task[Any]", Any], None]


class Suspensions:
    """Runs coroutines, and cancels the task at one of the moments at which it waits.

    Args:
        at: The number of that moment, from 1 on.
        moment: How it is cancelled then.
    """

    def __init__(self, at: int, moment: Moment) -> None:
        self._at = at
        self._moment = moment
        self.count = 0

    @coroutine
    def of(self, work: Awaitable[Any]) -> Generator[Any, Any, Any]:
        """Run ``work``, and count how often it waits."""
        steps = work.__await__()
        failure: BaseException | None = None
        while True:
            try:
                awaited = next(steps) if failure is None else steps.throw(failure)
            except StopIteration as end:
                return end.value
            failure = None
            self.count += 1
            if self.count == self._at and (task := asyncio.current_task()):
                self._moment(task, awaited)
            try:
                yield awaited
            except BaseException as error:  # noqa: BLE001 - it is the work's
                failure = error


async def cancelled_at(number: int, moment: Moment, work: Awaitable[Any]) -> bool:
    """Cancel ``work`` when it waits for the nth time; tell whether it did so often."""
    suspensions = Suspensions(number, moment)
    task = asyncio.ensure_future(_awaited(suspensions, work))
    await asyncio.wait({task}, timeout=20)
    assert task.done()
    if not task.cancelled() and (error := task.exception()) is not None:
        raise error
    return suspensions.count >= number


async def _awaited(suspensions: Suspensions, work: Awaitable[Any]) -> None:
    await suspensions.of(work)


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    """A pool of one connection, with one note to be read."""
    async with Database.from_url(
        database_url, environment="testing", pool_size=1, max_overflow=0, pool_timeout=20
    ) as database:
        async with database.engine.begin() as connection:
            await connection.run_sync(Base.metadata.create_all)
        await database.writer.execute(add_one, line="kept")
        yield database


@pytest.mark.parametrize("moment", [by_the_way, a_moment_later, with_the_answer])
@pytest.mark.parametrize("operation", OPERATIONS)
async def test_no_await_is_unsafe_to_cancel(
    database: Database, database_url: str, operation: Operation, moment: Moment
) -> None:
    closed: list[PoolEvent] = []
    pool_of(database.engine).listeners.add(
        lambda event: closed.append(event) if isinstance(event, ConnectionClosed) else None
    )
    with counting_backends(database_url) as backends:
        assert await cancelled_everywhere(database, operation, moment) > 0
        await eventually(lambda: backends.idle_in_transaction == 0)

    assert backends.most <= 1
    assert not closed  # each was saved, none replaced
    assert database.pool.snapshot().opened_total == 1


@pytest.mark.parametrize(
    "operation", [read, execute, read_related, write_related, stream, snapshot]
)
async def test_no_await_is_unsafe_to_cancel_while_somebody_listens_to_the_pool(
    database: Database, operation: Operation
) -> None:
    pool = database.engine.sync_engine.pool
    for name in ("checkout", "checkin", "reset"):
        event.listen(pool, name, lambda *_: None)

    assert await cancelled_everywhere(database, operation, a_moment_later) > 0


async def cancelled_everywhere(database: Database, operation: Operation, moment: Moment) -> int:
    """Cancel an operation at each of its awaits, and use the pool after each."""
    await operation(database)
    number, saved = 1, await database.reader.one(count)
    while await cancelled_at(number, moment, operation(database)):
        await eventually(lambda: database.pool.snapshot().checked_out == 0)
        assert await database.writer.execute(add_one, line="used") == 1
        before, saved = saved, await database.reader.one(count)
        assert saved[0] - before[0] in {1, 1 + ROWS}
        await operation(database)
        saved = await database.reader.one(count)
        number += 1
    return number - 1


async def test_a_stream_that_is_left_midway_gives_its_connection_back(database: Database) -> None:
    async with database.reader.stream(numbers, last=10_000).yield_per(2) as rows:
        async for _ in rows:
            break
    assert database.pool.snapshot().checked_out == 0
    async for _ in database.reader.stream(numbers, last=10_000).yield_per(2):
        break
    await eventually(lambda: database.pool.snapshot().checked_out == 0)
    await read_and_write(database)
    assert database.pool.snapshot().opened_total == 1


async def test_rows_that_cannot_be_made_leave_nothing_of_a_copy(database: Database) -> None:
    async def rows() -> AsyncIterator[dict[str, str]]:
        for number in range(5000):
            yield {"line": str(number)}
        raise KeyError("the caller's own")

    for following in (read, execute, copy_in):
        with pytest.raises(KeyError, match="the caller's own"):
            await database.writer.copy_in(Note, rows())
        assert database.pool.snapshot().checked_out == 0
        await following(database)
    assert await database.reader.scalar(count) == 1 + 2 * ROWS
    assert database.pool.snapshot().opened_total == 1


@pytest.mark.parametrize("kind", [KeyError, OSError, TimeoutError])
async def test_the_callers_own_error_in_a_snapshot_leaves_the_connection_usable(
    database: Database, kind: type[Exception]
) -> None:
    async def fail(database: Database) -> None:
        async with database.reader.snapshot() as moment:
            await read_in(moment)
            raise kind("the caller's own")

    async def read_in(reader: Any) -> None:
        assert await reader.scalar(by_id, note_id=1) == "kept"

    for _ in range(2):
        await read(database)
        with pytest.raises(kind, match="the caller's own"):
            await fail(database)
        assert database.pool.snapshot().checked_out == 0
        await execute(database)
    assert database.pool.snapshot().opened_total == 1

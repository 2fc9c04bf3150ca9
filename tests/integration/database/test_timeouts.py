"""Whatever limit a statement meets: the error names it, and its connection is as it was."""

import asyncio
import gc
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager, suppress
from itertools import product
from time import monotonic
from typing import Any

import psycopg
import pytest
from sqlalchemy import func, select, text
from sqlalchemy.exc import DBAPIError, OperationalError
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from tests.eventually import eventually
from tests.integration.engine.engines import with_driver
from tests.servers.postgres import PostgresServer

from penstock import Database, PenstockError, deadlines
from penstock.deadlines import Deadline, Limits, current_limits
from penstock.errors import (
    CommitOutcomeUnknown,
    DeadlineExceeded,
    LockTimeout,
    PoolTimeout,
    StatementTimeout,
    TransactionTimeout,
)

DRIVERS = ("asyncpg", "psycopg")
LOCK = 4711
SCHEMA = f"""
CREATE FUNCTION wait() RETURNS trigger LANGUAGE plpgsql AS
$$ BEGIN PERFORM pg_advisory_xact_lock({LOCK}); RETURN NEW; END $$;
CREATE TABLE lines (id serial PRIMARY KEY, line text NOT NULL);
CREATE TABLE late_lines (id serial PRIMARY KEY, line text NOT NULL);
CREATE TRIGGER waits BEFORE INSERT ON lines FOR EACH ROW EXECUTE FUNCTION wait();
CREATE CONSTRAINT TRIGGER waits AFTER INSERT ON late_lines DEFERRABLE INITIALLY DEFERRED
FOR EACH ROW EXECUTE FUNCTION wait();
"""
WRITTEN = "SELECT (SELECT count(*) FROM lines) + (SELECT count(*) FROM late_lines)"
WAIT = select(func.pg_advisory_xact_lock(LOCK))
INSERT = "INSERT INTO lines (line) VALUES (:line)"


class Model(DeclarativeBase):
    """The registry of the table below."""


class Line(Model):
    """A row whose INSERT waits for the lock."""

    __tablename__ = "lines"
    id: Mapped[int] = mapped_column(primary_key=True)
    line: Mapped[str]


async def session_read(database: Database, seconds: float | None) -> None:
    async with database.read(timeout=seconds) as session:
        await session.execute(WAIT)


async def session_write(database: Database, seconds: float | None) -> None:
    async with database.write(timeout=seconds) as session:
        await session.execute(text(INSERT), {"line": "x"})


async def flush(database: Database, seconds: float | None) -> None:
    async with database.write(timeout=seconds) as session:
        session.add(Line(line="x"))
        await session.flush()


async def commit(database: Database, seconds: float | None) -> None:
    async with database.write(timeout=seconds) as session:
        await session.execute(text("INSERT INTO late_lines (line) VALUES ('x')"))


async def commit_by_hand(database: Database, seconds: float | None) -> None:
    async with database.write(timeout=seconds) as session, session.begin():
        await session.execute(text("INSERT INTO late_lines (line) VALUES ('x')"))


async def express_read(database: Database, seconds: float | None) -> None:
    await database.reader.with_timeout(seconds).all(WAIT)


async def express_write(database: Database, seconds: float | None) -> None:
    await database.writer.with_timeout(seconds).execute(text(INSERT), {"line": "x"})


async def express_many(database: Database, seconds: float | None) -> None:
    await database.writer.with_timeout(seconds).execute_many(text(INSERT), [{"line": "x"}] * 2)


async def express_copy(database: Database, seconds: float | None) -> None:
    await database.writer.with_timeout(seconds).copy_in(Line, [{"line": "x"}] * 2)


async def express_stream(database: Database, seconds: float | None) -> None:
    if seconds is not None:  # of which it has no argument
        with of_a_request(timeout=seconds):
            await express_stream(database, None)
        return
    async with database.reader.stream(WAIT) as rows:
        async for _ in rows:
            pass


async def express_snapshot(database: Database, seconds: float | None) -> None:
    async with database.reader.snapshot() as moment:
        await moment.with_timeout(seconds).all(WAIT)


Operation = Callable[[Database, float | None], Awaitable[None]]
OPERATIONS: tuple[Operation, ...] = (
    session_read,
    session_write,
    flush,
    commit,
    commit_by_hand,
    express_read,
    express_write,
    express_many,
    express_copy,
    express_stream,
    express_snapshot,
)
COMMITS = (commit, commit_by_hand)
"""To which PostgreSQL does not apply ``statement_timeout``."""
EXPRESS_WRITES = (express_write, express_many, express_copy)


@contextmanager
def of_a_request(
    statement_timeout: float | None = None,
    timeout: float | None = None,
    deadline: Deadline | None = None,
) -> Iterator[None]:
    """Bound the block as a request, or one call, bounds its work."""
    deadline = deadline or (None if timeout is None else Deadline.after(timeout))
    token = current_limits.set(Limits(statement_timeout, deadline))
    try:
        yield
    finally:
        current_limits.reset(token)


@asynccontextmanager
async def without(database: Database) -> AsyncIterator[float | None]:
    """No limit but those of the settings."""
    yield None


@asynccontextmanager
async def by_call(database: Database) -> AsyncIterator[float | None]:
    yield 0.3


@asynccontextmanager
async def by_route(database: Database) -> AsyncIterator[float | None]:
    with of_a_request(statement_timeout=0.3):
        yield None


@asynccontextmanager
async def by_caller(database: Database) -> AsyncIterator[float | None]:
    deadline = Deadline(monotonic() + 0.3, "the caller's X-Request-Timeout: 0.3", is_callers=True)
    with of_a_request(deadline=deadline):
        yield None


@asynccontextmanager
async def cancelled_by_somebody(database: Database) -> AsyncIterator[float | None]:
    canceller = asyncio.create_task(cancel_whatever_waits(database))
    try:
        yield None
    finally:
        canceller.cancel()
        with suppress(asyncio.CancelledError):
            await canceller


async def cancel_whatever_waits(database: Database) -> None:
    url = with_driver(database.settings.url.get_secret_value(), "asyncpg")
    async with await psycopg.AsyncConnection.connect(
        url.replace("+asyncpg", ""), autocommit=True
    ) as onlooker:
        while True:
            await onlooker.execute(
                "SELECT pg_cancel_backend(pid) FROM pg_locks WHERE locktype = 'advisory'"
                " AND NOT granted AND database = "
                "(SELECT oid FROM pg_database WHERE datname = current_database())"
            )
            await asyncio.sleep(0.05)  # as impatient people do


@asynccontextmanager
async def by_the_callers_own_timeout(database: Database) -> AsyncIterator[float | None]:
    async with asyncio.timeout(0.3):
        yield None


Limit = Callable[[Database], AbstractAsyncContextManager[float | None]]
Expected = tuple[type[BaseException], str]


def client_side(driver: str, operation: Operation) -> Expected:
    """``command_timeout``: asyncpg's own timer, and on psycopg the server's but for a COMMIT."""
    if operation in COMMITS or (driver == "asyncpg" and operation in EXPRESS_WRITES):
        return CommitOutcomeUnknown, "command_timeout=0.3 s"
    return StatementTimeout, "command_timeout=0.3 s"


def deadline(message: str) -> Callable[[str, Operation], Expected]:
    def expected(_driver: str, operation: Operation) -> Expected:
        return CommitOutcomeUnknown if operation in COMMITS else DeadlineExceeded, message

    return expected


def ended(driver: str, operation: Operation) -> Expected:
    """``transaction_timeout``; libpq forgets what the server says during many statements."""
    if driver == "psycopg" and operation in (express_many, express_copy):
        return OperationalError, "server closed the connection"
    return TransactionTimeout, "transaction_timeout"


def always(kind: type[BaseException], message: str) -> Callable[[str, Operation], Expected]:
    return lambda _driver, _operation: (kind, message)


def but_for_commits(
    kind: type[BaseException], message: str
) -> Callable[[str, Operation], Expected | None]:
    return lambda _driver, operation: None if operation in COMMITS else (kind, message)


LIMITS: dict[str, tuple[dict[str, Any], Limit, Callable[[str, Operation], Expected | None]]] = {
    "command_timeout": ({"command_timeout": 0.3}, without, client_side),
    "the call's": ({}, by_call, deadline("timeout=0.3 s")),
    "the route's": ({}, by_route, but_for_commits(StatementTimeout, "statement_timeout=0.3 s")),
    "the caller's": ({}, by_caller, deadline("X-Request-Timeout: 0.3")),
    "statement_timeout": (
        {"server_settings": {"statement_timeout": "300"}},
        without,
        but_for_commits(StatementTimeout, "statement_timeout"),
    ),
    "lock_timeout": (
        {"server_settings": {"lock_timeout": "300"}},
        without,
        always(LockTimeout, "lock_timeout"),
    ),
    "transaction_timeout": (
        {"server_settings": {"transaction_timeout": "300"}},
        without,
        ended,
    ),
    "pg_cancel_backend": ({}, cancelled_by_somebody, always(DBAPIError, "user request")),
    "asyncio.timeout": ({}, by_the_callers_own_timeout, always(TimeoutError, "")),
}


@contextmanager
def locked(url: str) -> Iterator[None]:
    """Hold the lock for which every operation waits."""
    with psycopg.connect(url.replace("+asyncpg", ""), autocommit=True) as holder:
        holder.execute(f"SELECT pg_advisory_lock({LOCK})")
        yield


@pytest.fixture(autouse=True)
def long_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the server end a statement long before the client would, however busy the machine."""
    monkeypatch.setattr(deadlines, "ANSWER_SHARE", 0.5)
    monkeypatch.setattr(deadlines, "ANSWER_TIME", 10.0)


@pytest.fixture
def schema(postgres: PostgresServer, database_url: str) -> str:
    with psycopg.connect(database_url.replace("+asyncpg", "")) as connection:
        connection.execute(SCHEMA.encode())
    return database_url


@asynccontextmanager
async def of_one_connection(url: str, driver: str, **settings: Any) -> AsyncIterator[Database]:
    async with Database.from_url(
        with_driver(url, driver), environment="testing", pool_size=1, max_overflow=0, **settings
    ) as database:
        yield database


async def outcome(database: Database, operation: Operation, limit: Limit) -> BaseException:
    with pytest.raises(Exception) as raised:  # noqa: PT011 - the kind is what is found out
        async with limit(database) as seconds:
            await operation(database, seconds)
    return raised.value


async def statement_timeout_of_next_lease(database: Database) -> list[str]:
    shown = [await database.reader.scalar(text("SHOW statement_timeout"))]
    async with database.read() as session:
        shown.append(await session.scalar(text("SHOW statement_timeout")))
    async with database.engine.connect() as connection:
        shown.append(await connection.scalar(text("SHOW statement_timeout")))
    return shown


@pytest.mark.filterwarnings("ignore:.*AsyncServerCursor.*:ResourceWarning")  # left by SQLAlchemy
@pytest.mark.filterwarnings("ignore:.*ServerCursorMixin.*:pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize(("driver", "limit"), list(product(DRIVERS, LIMITS)))
async def test_the_error_names_the_limit_and_the_connection_is_as_it_was(
    schema: str, postgres: PostgresServer, driver: str, limit: str
) -> None:
    settings, applied, expected = LIMITS[limit]
    if "transaction_timeout" in str(settings) and postgres.execute("SHOW server_version_num") < [
        ("170000",)
    ]:
        pytest.skip("transaction_timeout is PostgreSQL 17's")
    found, wanted = {}, {}
    async with of_one_connection(schema, driver, **settings) as database:
        before = await statement_timeout_of_next_lease(database)
        for operation in OPERATIONS:
            if (told := expected(driver, operation)) is None:
                continue
            with locked(schema):
                kind, message = told
                error = await outcome(database, operation, applied)
                found[operation.__name__] = (type(error), message in str(error))
                wanted[operation.__name__] = (kind, True)
                if kind is DBAPIError:
                    assert not isinstance(error, PenstockError)
                    found[operation.__name__] = (DBAPIError, isinstance(error, DBAPIError))
                await eventually(lambda: waiting_for_lock(postgres) == 0)
                assert database.pool.snapshot().checked_out == 0
            assert await statement_timeout_of_next_lease(database) == before
        written = await database.reader.scalar(text(WRITTEN))
        assert database.pool.snapshot().checked_out == 0
    del error
    gc.collect()  # of psycopg's cursors, while it may complain
    assert found == wanted
    assert written == 0


def waiting_for_lock(postgres: PostgresServer) -> int:
    waiting = "SELECT 1 FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
    return len(postgres.execute(waiting))


NEEDS_A_WAIT = {
    "the call's": (by_call, DeadlineExceeded, "timeout=0.3 s"),
    "the route's": (by_route, PoolTimeout, "statement_timeout=0.3 s"),
    "the caller's": (by_caller, DeadlineExceeded, "X-Request-Timeout: 0.3"),
    "pool_timeout": (without, PoolTimeout, "pool_timeout=0.3 s"),
}


@pytest.mark.parametrize(("driver", "limit"), list(product(DRIVERS, NEEDS_A_WAIT)))
async def test_the_wait_for_a_connection_is_bounded_by_the_same_limits(
    schema: str, driver: str, limit: str
) -> None:
    applied, kind, message = NEEDS_A_WAIT[limit]
    seconds = 0.3 if limit == "pool_timeout" else 30
    found = {}
    # A snapshot is opened without a limit of its own.
    operations = [each for each in OPERATIONS if applied is not by_call or each != express_snapshot]
    async with (
        of_one_connection(schema, driver, pool_timeout=seconds) as database,
        database.engine.connect(),
    ):
        for operation in operations:
            error = await asyncio.create_task(outcome(database, operation, applied))
            found[operation.__name__] = type(error) is kind and message in str(error)
        assert database.pool.snapshot().waiting == 0
    assert found == {operation.__name__: True for operation in operations}

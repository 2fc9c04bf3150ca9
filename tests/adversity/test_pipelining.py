"""A BEGIN that travels ahead and a ROLLBACK that travels behind, on a server that refuses them."""

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from itertools import count
from random import Random
from typing import Any

import asyncpg
import pytest
from sqlalchemy import make_url, text
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from tests.eventually import eventually
from tests.integration.engine.engines import with_driver
from tests.servers.postgres import PostgresServer
from tests.servers.proxy import Proxy, proxy_before

from penstock import Database, PenstockError
from penstock.drivers.driver import BeginOptions

INSERT = text("INSERT INTO written VALUES (:key)")
ERRORS = (SQLAlchemyError, PenstockError, asyncpg.PostgresError, OSError, TimeoutError)


@asynccontextmanager
async def opened(url: str, **settings: Any) -> AsyncIterator[Database]:
    """Open a database with a pool of one connection, unless told otherwise."""
    some = {"pool_size": 1, "max_overflow": 0, "pool_timeout": 20, **settings}
    async with Database.from_url(url, environment="testing", **some) as database:
        yield database


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    """A pool of one connection, and an empty table."""
    async with opened(database_url) as database:
        async with database.engine.begin() as connection:
            await connection.execute(text("CREATE TABLE written (key bigint)"))
        yield database


def written(postgres: PostgresServer, database: Database) -> set[object]:
    """Return what anybody else sees in the table."""
    rows = postgres.execute("SELECT key FROM written", database.engine.url.database or "")
    return {key for (key,) in rows}


REFUSED = {
    "a role that does not exist": (("role", "nobody_of_this_name"),),
    "a value that is none": (("work_mem", "much"),),
    "a setting that does not exist": (("no_setting_of_this_name", "1"),),
    "a good one and a bad one": (("app.tenant", "a"), ("work_mem", "much")),
}


@pytest.mark.parametrize("reading", [False, True])
@pytest.mark.parametrize("settings", REFUSED.values(), ids=REFUSED)
async def test_what_is_behind_a_begin_that_fails_does_not_run(
    database: Database, postgres: PostgresServer, settings: Any, reading: bool
) -> None:
    options = BeginOptions(reading=reading, settings=settings)
    unit = database.unit(options)
    session = unit.reader if reading else unit.writer
    for key in range(3):
        with pytest.raises(DBAPIError):
            await session.execute(INSERT, {"key": key})
    with suppress(*ERRORS):
        await unit.commit()
    await unit.end("the test is over")
    assert written(postgres, database) == set()
    await is_as_new(database)


async def is_as_new(database: Database) -> None:
    """Have the next lease use the driver's own transactions, SQLAlchemy's, and the lane."""
    async with database.engine.connect() as connection:
        driver = (await connection.get_raw_connection()).driver_connection
        assert driver is not None
        assert not driver.is_in_transaction()
        async with driver.transaction():
            assert driver.is_in_transaction()
            assert await driver.fetchval("SELECT current_setting('transaction_read_only')") == "off"
        assert not driver.is_in_transaction()
        assert await connection.scalar(text("SELECT 1")) == 1
        assert driver.is_in_transaction()
        await connection.rollback()
        assert not driver.is_in_transaction()
    assert await database.reader.scalar(text("SELECT 1")) == 1


@asynccontextmanager
async def proxied(database_url: str, **settings: Any) -> AsyncIterator[tuple[Database, Proxy]]:
    """Open a database through a proxy."""
    url = make_url(database_url)
    async with (
        proxy_before(url.host or "", url.port or 0) as proxy,
        opened(proxy.url(database_url), **settings) as database,
    ):
        async with database.engine.begin() as connection:
            await connection.execute(text("CREATE TABLE written (key bigint)"))
        yield database, proxy


class Rejection:
    """Has the server refuse the next BEGIN that passes: a syntax error in its place."""

    def __init__(self) -> None:
        self.is_over = False

    def __call__(self, data: bytes, is_answer: bool) -> tuple[bytes, bool]:
        if is_answer or self.is_over or b"BEGIN" not in data:
            return data, True
        self.is_over = True
        return data.replace(b"BEGIN", b"BEGUN", 1), True


Work = Callable[[Any], Awaitable[Any]]


async def one_insert(run: Any) -> None:
    await run.execute(INSERT, {"key": 1})


async def an_insert_that_is_prepared(run: Any) -> None:
    await run.execute(INSERT, {"key": 5})


async def many(run: Any) -> None:
    await run.execute(INSERT, [{"key": 1}, {"key": 2}])


async def a_savepoint(run: Any) -> None:
    async with run.begin_nested():
        await run.execute(INSERT, {"key": 1})


async def a_stream(run: Any) -> None:
    statement = text("INSERT INTO written VALUES (1) RETURNING key")
    async for _ in await run.stream(statement):
        pass


async def a_value_that_is_none(run: Any) -> None:
    await run.execute(INSERT, {"key": "no number"})


async def several_values_of_which_one_is_none(run: Any) -> None:
    await run.execute(INSERT, [{"key": 1}, {"key": "no number"}])


FIRST: list[Work] = [
    one_insert,
    an_insert_that_is_prepared,
    many,
    a_savepoint,
    a_stream,
    a_value_that_is_none,
    several_values_of_which_one_is_none,
]


@pytest.mark.parametrize("by", ["session", "connection"])
@pytest.mark.parametrize("first", FIRST)
async def test_nothing_is_committed_by_itself_after_a_begin_that_was_refused(
    postgres: PostgresServer, database_url: str, first: Work, by: str
) -> None:
    async with proxied(database_url) as (database, proxy):
        if first is an_insert_that_is_prepared:
            async with database.engine.connect() as connection:
                await connection.execute(INSERT, {"key": 5})
        proxy.alter = refusal = Rejection()
        unit = database.unit()
        async with AsyncExitStack() as stack:
            run: Any = unit.writer
            if by == "connection":
                run = await stack.enter_async_context(database.engine.connect())
            with suppress(*ERRORS):
                await first(run)
            for key in range(10, 13):
                with suppress(*ERRORS):
                    await run.execute(INSERT, {"key": key})
                assert written(postgres, database) == set()
            await run.rollback()
        await unit.end("the test is over")
        assert refusal.is_over
        assert written(postgres, database) == set()
        proxy.heal()
        await is_as_new(database)
        assert database.pool.snapshot().opened_total == 1


@pytest.mark.parametrize("first", FIRST)
async def test_a_session_goes_on_after_a_begin_that_was_refused(
    postgres: PostgresServer, database_url: str, first: Work
) -> None:
    async with proxied(database_url) as (database, proxy):
        proxy.alter = Rejection()
        unit = database.unit(BeginOptions(isolation="SERIALIZABLE", settings=(("a.b", "c"),)))
        with suppress(*ERRORS):
            await first(unit.writer)
        await unit.writer.execute(INSERT, {"key": 10})
        assert await unit.writer.scalar(text("SHOW transaction_isolation")) == "serializable"
        assert await unit.writer.scalar(text("SHOW a.b")) == "c"
        await unit.commit()
        await unit.end("the test is over")
        assert 10 in written(postgres, database)


# Cancelled at any moment.

CANCELLATIONS = int(os.environ.get("CANCELLATIONS", "10000")) // 4
KEYS = count(1)


class Judge:
    """What was acknowledged, and what must not be there."""

    def __init__(self) -> None:
        self.there: set[int] = set()
        self.not_there: set[int] = set()
        self.together: list[set[int]] = []
        """Of which all are there, or none: the answer to the COMMIT is not known."""

    def holds(self, found: set[object]) -> None:
        assert self.there <= found
        assert not self.not_there & found
        for keys in self.together:
            assert keys <= found or not keys & found


async def write_by_a_session(database: Database, random: Random, judge: Judge) -> None:
    """Go on after errors, as a route may, and commit or not."""
    unit, keys = database.unit(), set[int]()
    judge.not_there |= (tried := {next(KEYS) for _ in range(random.randint(1, 3))})
    try:
        for key in tried:
            with suppress(*ERRORS):
                await unit.writer.execute(INSERT, {"key": key})
                keys.add(key)
        if random.random() < 0.5:
            return
        judge.not_there -= keys
        judge.together.append(keys)
        await unit.commit()
        judge.there |= keys
    except ERRORS:
        pass
    finally:
        await unit.end("the test is over")


async def write_by_a_connection(database: Database, random: Random, judge: Judge) -> None:
    key = next(KEYS)
    judge.not_there.add(key)
    with suppress(*ERRORS):
        async with database.engine.connect() as connection:
            for _ in range(2):
                with suppress(*ERRORS):
                    await connection.execute(INSERT, {"key": key})
            with suppress(*ERRORS):
                await connection.execute(text("SELECT pg_sleep(0.001)"))
            await connection.rollback()


async def read_by_a_session(database: Database, random: Random, judge: Judge) -> None:
    with suppress(*ERRORS):
        async with database.read() as session:
            await session.execute(text("SELECT pg_sleep(0.0005)"))


async def write_by_the_lane(database: Database, random: Random, judge: Judge) -> None:
    key = next(KEYS)
    try:
        await database.writer.execute(text(f"INSERT INTO written VALUES ({key})"))
    except ERRORS:
        return
    judge.there.add(key)


async def write_by_the_driver(database: Database, random: Random, judge: Judge) -> None:
    key = next(KEYS)
    judge.not_there.add(key)
    with suppress(*ERRORS, ZeroDivisionError):
        async with database.engine.connect() as connection:
            driver: Any = (await connection.get_raw_connection()).driver_connection
            assert not driver.is_in_transaction()
            async with driver.transaction():
                await driver.execute(f"INSERT INTO written VALUES ({key})")
                raise ZeroDivisionError


WORKS = [
    write_by_a_session,
    write_by_a_session,
    write_by_a_connection,
    read_by_a_session,
    read_by_a_session,
    write_by_the_lane,
    write_by_the_driver,
]


async def cancel_again_and_again(postgres: PostgresServer, name: str, random: Random) -> None:
    """Cancel whatever a database's connections are at, at random moments."""
    url = make_url(postgres.url()).set(drivername="postgresql")
    connection = await asyncpg.connect(url.render_as_string(hide_password=False))
    sent = 0
    try:
        while sent < CANCELLATIONS:
            await asyncio.sleep(random.random() * 0.001)
            sent += await connection.fetchval(
                "SELECT count(pg_cancel_backend(pid)) FROM pg_stat_activity"
                " WHERE datname = $1 AND backend_type = 'client backend'",
                name,
            )
    finally:
        await connection.close()


@pytest.mark.timeout(600)
@pytest.mark.parametrize("driver", ["asyncpg", "psycopg"])
async def test_what_is_cancelled_at_random_moments_is_there_or_not_as_was_said(
    postgres: PostgresServer, database_url: str, driver: str
) -> None:
    random, judge = Random(5), Judge()
    url = with_driver(database_url, driver)
    works = WORKS if driver == "asyncpg" else WORKS[:5]
    async with opened(url, pool_size=3) as database:
        async with database.engine.begin() as connection:
            await connection.execute(text("CREATE TABLE written (key bigint)"))

        async def work() -> None:
            while not canceller.done():
                await random.choice(works)(database, random, judge)

        name = database.engine.url.database or ""
        canceller = asyncio.create_task(cancel_again_and_again(postgres, name, random))
        async with asyncio.TaskGroup() as group:
            for _ in range(6):
                group.create_task(work())
        canceller.result()
        judge.holds(written(postgres, database))
    assert judge.there
    assert judge.not_there


# Cut off at any byte.

LONGEST, STEP = 500, 5


class Cut:
    """Resets one connection, when so many bytes have passed in one direction.

    Args:
        after: Bytes.
        answers: Whether those are the server's, or the client's.
    """

    def __init__(self, after: int, *, answers: bool) -> None:
        self._left = after
        self._answers = answers

    def __call__(self, data: bytes, is_answer: bool) -> tuple[bytes, bool]:
        if is_answer is not self._answers or self._left == 0:
            return data, True
        passes = data[: self._left]
        self._left -= len(passes)
        return passes, self._left > 0


async def a_read_and_the_lane(database: Database, random: Random, judge: Judge) -> None:
    await read_by_a_session(database, random, judge)
    with suppress(*ERRORS):
        await database.reader.scalar(text("SELECT 1"))


@pytest.mark.timeout(600)
@pytest.mark.parametrize("answers", [False, True], ids=["said", "answered"])
@pytest.mark.parametrize("work", [write_by_a_session, write_by_a_connection, a_read_and_the_lane])
async def test_what_is_cut_off_at_any_byte_is_there_or_not_as_was_said(
    postgres: PostgresServer, database_url: str, work: Any, answers: bool
) -> None:
    judge = Judge()
    async with proxied(database_url) as (database, proxy):
        await work(database, Random(1), judge)
        for after in range(1, LONGEST, STEP):
            proxy.alter = Cut(after, answers=answers)
            await work(database, Random(after), judge)
            proxy.heal()
            await is_as_new_soon(database)
        assert database.pool.snapshot().checked_out == 0
        judge.holds(written(postgres, database))


async def is_as_new_soon(database: Database) -> None:
    """Have the next lease fail at most once, by a connection that is cut off unseen."""
    with suppress(*ERRORS):
        async with database.engine.connect() as connection:
            await connection.execute(text("SELECT 1"))
    async with database.engine.connect() as connection:
        assert await connection.scalar(text("SELECT count(*) FROM written WHERE key < 0")) == 0


# What is not waited for.


async def test_a_rollback_that_is_not_waited_for_takes_nobodys_timeout(database_url: str) -> None:
    async with opened(database_url, command_timeout=2.0) as database:
        for _ in range(3):
            async with database.read() as session:
                await session.execute(text("SELECT 1"))
            async with database.engine.connect() as connection:
                await connection.execute(text("SELECT pg_sleep(0.9)"))
        assert database.pool.snapshot().opened_total == 1


NAP = text("SELECT pg_sleep(100)")


async def by_connection(database: Database) -> None:
    async with database.engine.connect() as connection:
        await connection.execute(NAP)


async def by_session(database: Database) -> None:
    async with database.read() as session:
        await session.execute(NAP)


async def by_lane(database: Database) -> None:
    await database.reader.all(NAP)


async def by_driver(database: Database) -> None:
    async with database.engine.connect() as connection:
        driver: Any = (await connection.get_raw_connection()).driver_connection
        await driver.execute(NAP.text)


@pytest.mark.parametrize("nap", [by_connection, by_session, by_lane, by_driver])
async def test_a_statement_after_it_has_its_own_timeout(
    database_url: str, nap: Callable[[Database], Awaitable[None]]
) -> None:
    async with opened(database_url, command_timeout=0.2) as database:
        for _ in range(2):
            async with database.read() as session:
                await session.execute(text("SELECT 1"))
            with pytest.raises(TimeoutError):
                await nap(database)


async def test_a_statement_after_it_can_be_cancelled(
    postgres: PostgresServer, database: Database
) -> None:
    for _ in range(3):
        async with database.read() as session:
            await session.execute(text("SELECT 1"))
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(by_connection(database), 0.1)
        await is_as_new(database)
    assert database.pool.snapshot().opened_total == 1


async def test_a_rollback_that_the_server_refuses_closes_the_connection(database_url: str) -> None:
    async with proxied(database_url) as (database, proxy):
        async with database.read() as session:
            await session.execute(text("SELECT 1"))
            proxy.alter = lambda data, _: (data.replace(b"ROLLBACK", b"ROLLBAKC"), True)
        await eventually(lambda: is_cut_off(database))
        proxy.heal()
        await is_as_new(database)
        assert database.pool.snapshot().opened_total == 2


@pytest.mark.parametrize("end", ["COMMIT", "ROLLBACK"])
async def test_nobody_gets_a_transaction_whose_end_the_server_refused(
    postgres: PostgresServer, database_url: str, end: str
) -> None:
    async with proxied(database_url) as (database, proxy):
        async with database.engine.connect() as connection:
            await connection.execute(INSERT, {"key": 1})
            proxy.alter = lambda data, _: (data.replace(end.encode(), end[::-1].encode()), True)
            ended = connection.commit() if end == "COMMIT" else connection.rollback()
            with pytest.raises(DBAPIError, match="syntax error"):
                await ended
            proxy.heal()
        await is_as_new(database)
        assert written(postgres, database) == set()


class HeldBack:
    """Passes a notification on in two pieces, the second with what the server says next.

    Args:
        size: Of the first piece, from the notification's first byte.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._rest = b""
        self.cuts = 0

    def __call__(self, data: bytes, is_answer: bool) -> tuple[bytes, bool]:
        if not is_answer:
            return data, True
        data, self._rest = self._rest + data, b""
        at = data.find(b"news\0long")
        if at >= 0 and not self.cuts:
            self.cuts += 1
            at += self._size - len(b"A....") - len(b"....")
            data, self._rest = data[:at], data[at:]
        return data, True


@pytest.mark.parametrize("size", [1, 3, 5, 7, 100])
async def test_a_notification_that_is_cut_is_heard_whole(
    postgres: PostgresServer, database_url: str, size: int
) -> None:
    heard: list[object] = []
    async with proxied(database_url) as (database, proxy):
        async with database.engine.connect() as connection:
            driver: Any = (await connection.get_raw_connection()).driver_connection
            await driver.add_listener("news", lambda *each: heard.append(each[-1]))
            proxy.alter = held_back = HeldBack(size)
            postgres.execute(
                "SELECT pg_notify('news', repeat('long ', 1000))", driver._params.database
            )
            await eventually(lambda: held_back.cuts == 1)
            await asyncio.sleep(0.05)
            assert await connection.scalar(text("SELECT 1")) == 1
            await connection.commit()
            assert heard == ["long " * 1000]
        await is_as_new(database)


def is_cut_off(database: Database) -> bool:
    pool: Any = database.engine.pool
    return all(slot.content.is_closed() for slot in pool.ledger)


async def test_the_driver_knows_of_no_transaction_after_a_rollback_that_was_not_waited_for(
    database: Database,
) -> None:
    for _ in range(3):
        async with database.read() as session:
            await session.execute(text("SELECT 1"))
        await is_as_new(database)
    assert database.pool.snapshot().opened_total == 1

"""PgBouncer without a server, paused, full and restarted: our own limits end each wait."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from itertools import count
from typing import Any

import psycopg
import pytest
from sqlalchemy import make_url, text
from starlette.requests import HTTPConnection
from tests.eventually import eventually
from tests.servers.parts import require_part
from tests.servers.pgbouncer import (
    Era,
    PgbouncerServer,
    RestartablePgbouncer,
    pgbouncer_of,
    restartable_pgbouncer,
)
from tests.servers.postgres import RestartablePostgres, postgres_programs, restartable_postgres

from penstock import Database
from penstock.errors import CommitOutcomeUnknown, ConnectFailed
from penstock.fastapi.errors import answer_to
from penstock.pool import FailureReason

SERVERS = 4
LIMIT = 1.0
"""Seconds of our limits, and half as many again of pool_timeout; PgBouncer waits for 120 s."""
SLACK = 5.0
"""Seconds that a busy machine may take beyond them."""
READ, WRITE = text("SELECT 1"), text("INSERT INTO notes VALUES (:mark)")
QUERY_WAIT_TIMEOUT = 1
"""Seconds."""


@dataclass(frozen=True)
class Outage:
    """A PostgreSQL and a PgBouncer in front of it, both of which may be restarted."""

    postgres: RestartablePostgres
    pooler: RestartablePgbouncer

    @property
    def server(self) -> PgbouncerServer:
        return self.pooler.server

    @property
    def url(self) -> str:
        return self.server.url(self.postgres.server.url())

    async def run(self, command: str) -> None:
        await asyncio.to_thread(self.server.admin, command)

    async def notes(self, mark: str) -> list[Any]:
        found = f"SELECT mark FROM notes WHERE mark LIKE '{mark}%'"
        rows = await asyncio.to_thread(self.postgres.server.execute, found)
        return [row[0] for row in rows]

    async def start_postgres(self) -> None:
        self.postgres.start()
        answers = self.postgres.server.answers
        await asyncio.to_thread(self.postgres.process.wait_until, answers)


@pytest.fixture(scope="module", params=Era)
def outage(request: pytest.FixtureRequest) -> Iterator[Outage]:
    programs = postgres_programs()
    require_part("PostgreSQL", present=programs, remedy="set TEST_POSTGRES_BIN")
    assert programs is not None
    with (
        restartable_postgres(programs) as postgres,
        restartable_pgbouncer(
            postgres.server,
            pgbouncer_of(request.param),
            {
                "pool_mode": "transaction",
                "default_pool_size": str(SERVERS),
                "query_wait_timeout": "120",
                "max_client_conn": "40",
            },
        ) as pooler,
    ):
        postgres.server.execute("CREATE TABLE notes (mark text)")
        yield Outage(postgres, pooler)


def database_on(url: str, driver: str, **settings: Any) -> Database:
    return Database.from_url(
        url.replace("asyncpg", driver),
        **{
            "environment": "testing",
            "proxy": "pgbouncer",
            "pool_size": len(WAYS[driver]),
            "max_overflow": 0,
            "connect_timeout": LIMIT,
            "command_timeout": LIMIT,
            "pool_timeout": 1.5 * LIMIT,
            "telemetry": False,
            "slow_query": None,
            **settings,
        },
    )


async def read_in_session(database: Database) -> None:
    async with database.read() as session:
        await session.execute(READ)


async def write_in_session(database: Database) -> None:
    async with database.write() as session:
        await session.execute(WRITE, {"mark": "session"})


async def connect(database: Database) -> None:
    async with database.connection() as connection:
        await connection.execute(READ)


async def read(database: Database) -> None:
    await database.reader.scalar(READ)


async def write(database: Database) -> None:
    await database.writer.execute(WRITE, mark="express")


async def stream(database: Database) -> None:
    async with database.reader.stream(READ) as rows:
        assert [row async for row in rows]


async def snapshot(database: Database) -> None:
    async with database.reader.snapshot() as moment:
        await moment.scalar(READ)


SESSIONS = (read_in_session, write_in_session, connect)
WAYS: dict[str, tuple[Callable[[Database], Awaitable[None]], ...]] = {
    "asyncpg": (*SESSIONS, read, write, stream, snapshot),
    "psycopg": SESSIONS,
}


@asynccontextmanager
async def no_server(outage: Outage) -> AsyncIterator[None]:
    await asyncio.to_thread(outage.postgres.stop)
    try:
        yield
    finally:
        await outage.start_postgres()


@asynccontextmanager
async def paused(outage: Outage) -> AsyncIterator[None]:
    await outage.run("PAUSE postgres")
    try:
        yield
    finally:
        await outage.run("RESUME postgres")


@asynccontextmanager
async def killed(outage: Outage) -> AsyncIterator[None]:
    await outage.run("KILL postgres")
    try:
        yield
    finally:
        await outage.run("RESUME postgres")


@asynccontextmanager
async def full(outage: Outage) -> AsyncIterator[None]:
    """Take every place of max_client_conn."""
    address = make_url(outage.url).set(drivername="postgresql").render_as_string(False)
    clients: list[psycopg.Connection[Any]] = []
    try:
        with suppress(psycopg.OperationalError):
            while True:
                clients.append(await asyncio.to_thread(psycopg.connect, address))
        yield
    finally:
        for client in clients:
            client.close()


TROUBLES = {"no server": no_server, "paused": paused, "killed": killed, "full": full}
STATES = ("pooled", "pinged", "new", "first")


async def fill_pool(database: Database) -> None:
    async def hold() -> None:
        async with database.connection() as connection:
            await connection.execute(READ)
            await asyncio.sleep(0.05)

    await asyncio.gather(*(hold() for _ in range(database.pool.snapshot().limit)))


async def empty_pool(database: Database) -> None:
    database.pool.evict_all()
    await eventually(lambda: database.pool.snapshot().opened_total == closed(database))


def closed(database: Database) -> int:
    return database.pool.snapshot().closed_total


async def outcome(work: Awaitable[None]) -> Exception | None:
    """Return the error with which work ends, within our own limits."""
    try:
        async with asyncio.timeout(SLACK) as limit:
            await work
    except Exception as error:  # noqa: BLE001 - it is what the test asks about
        assert not limit.expired(), "nothing of ours has ended it"
        return error
    return None


def answer(error: Exception | None) -> tuple[int, str, bool] | None:
    """Return the status, the code, and whether it says when to ask again."""
    request = HTTPConnection({"type": "http", "path_params": {}, "headers": [], "path": "/"})
    found = None if error is None else answer_to(error, request)
    if found is None:
        return None
    return int(found.status), found.code, found.retry_after is not None


async def healed(database: Database, driver: str) -> None:
    async with asyncio.timeout(30):
        while await outcome(read_in_session(database)) is not None:
            pass
    assert [await outcome(way(database)) for way in WAYS[driver]] == [None] * len(WAYS[driver])
    await eventually(lambda: database.pool.snapshot().checked_out == 0)


# Where nothing was sent, or PgBouncer says that it has passed nothing on, asking again is safe.
AGAIN = {(503, "database_unavailable", True), (503, "pool_exhausted", True)}
UNANSWERED = {(503, "statement_timeout", False)}
UNKNOWN = {(503, "commit_outcome_unknown", False)}


def allowed(trouble: str, state: str, way: Any) -> set[tuple[int, str, bool]]:
    if trouble in {"killed", "full"} or state == "first":
        return AGAIN
    return AGAIN | (UNKNOWN if way is write else UNANSWERED)


@pytest.mark.parametrize("trouble", TROUBLES)
async def test_each_wait_ends_within_our_limits_and_the_pool_heals(
    outage: Outage, trouble: str
) -> None:
    states = STATES if trouble != "full" else ("new", "first")
    async with AsyncExitStack() as stack:
        databases = {
            (state, driver): database_on(outage.url, driver, pool_pre_ping=state == "pinged")
            for state in states
            for driver in WAYS
        }
        for database in databases.values():
            stack.push_async_callback(database.close)
        used = [each for (state, _), each in databases.items() if state != "first"]
        for database in used:
            await fill_pool(database)
        await asyncio.sleep(0.55)  # what was used later is not pinged
        await asyncio.gather(
            *(fill_pool(each) for (state, _), each in databases.items() if state == "pooled")
        )
        new = [each for (state, _), each in databases.items() if state == "new"]
        await asyncio.gather(*map(empty_pool, new))
        failures = [each.pool.snapshot().open_failures_total for each in new]
        asked = [
            (state, way, database)
            for (state, driver), database in databases.items()
            for way in (WAYS[driver][:1] if state == "first" else WAYS[driver])
        ]
        async with TROUBLES[trouble](outage):
            errors = await asyncio.gather(*(outcome(way(database)) for _, way, database in asked))
            later = [each.pool.snapshot().open_failures_total for each in new]
        told = [
            (state, way, answer(error))
            for (state, way, _), error in zip(asked, errors, strict=True)
        ]
        wrong = [each for each in told if each[2] not in allowed(trouble, *each[:2])]
        assert wrong == []
        # One attempt at a time, each later than the one before.
        assert max(after - before for before, after in zip(failures, later, strict=True)) <= 10
        await asyncio.gather(
            *(healed(database, driver) for (_, driver), database in databases.items())
        )


SLOW = text("SELECT pg_sleep(5)")


async def slow_session(database: Database) -> None:
    async with database.read() as session:
        await session.execute(SLOW)


async def slow_write(database: Database) -> None:
    await database.writer.execute(SLOW)


async def slow_commit(database: Database) -> None:
    async with database.write() as session:
        await session.execute(text("INSERT INTO slow_notes VALUES (1)"))


async def test_what_is_under_way_at_kill_may_have_run(outage: Outage) -> None:
    for statement in (
        "CREATE TABLE IF NOT EXISTS slow_notes (id int)",
        (
            "CREATE OR REPLACE FUNCTION sleep_on() RETURNS trigger LANGUAGE plpgsql AS "
            "'BEGIN PERFORM pg_sleep(5); RETURN NULL; END'"
        ),
        (
            "CREATE CONSTRAINT TRIGGER slow AFTER INSERT ON slow_notes "
            "DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION sleep_on()"
        ),
    ):
        await asyncio.to_thread(outage.postgres.server.execute, statement)
    sleeping = "SELECT count(*)::int FROM pg_stat_activity WHERE wait_event = 'PgSleep'"
    async with database_on(outage.url, "asyncpg", command_timeout=30) as database:
        ways = (slow_session, slow_write, slow_commit)
        under_way = asyncio.gather(*(outcome(way(database)) for way in ways))
        await eventually(lambda: outage.postgres.server.execute(sleeping) == [(len(ways),)])
        async with killed(outage):
            told = [answer(error) for error in await under_way]
        await healed(database, "asyncpg")

    assert told == [(503, "database_connection_lost", False), *UNKNOWN, *UNKNOWN]


@pytest.mark.parametrize("driver", WAYS)
async def test_what_waited_in_vain_for_a_server_connection_has_not_been_run(
    outage: Outage, driver: str
) -> None:
    await outage.run(f"SET query_wait_timeout = {QUERY_WAIT_TIMEOUT}")
    address = make_url(outage.url).set(drivername="postgresql").render_as_string(False)
    before = await outage.notes("")
    try:
        async with database_on(outage.url, driver, command_timeout=20, pool_timeout=10) as database:
            with ExitStack() as busy:
                for _ in range(SERVERS):
                    client = busy.enter_context(psycopg.connect(address))
                    client.execute("SELECT 1")
                errors = await asyncio.gather(*(outcome(way(database)) for way in WAYS[driver]))
            assert {type(error) for error in errors} == {ConnectFailed}
            assert {getattr(error, "reason", None) for error in errors} == {FailureReason.NOT_READY}
            assert {answer(error) for error in errors} <= AGAIN
            assert await outage.notes("") == before
            await healed(database, driver)
    finally:
        await outage.run("SET query_wait_timeout = 120")


class Load:
    """Workers that read and write in every way, and what became of each of their writes."""

    def __init__(self, database: Database, name: str) -> None:
        self.database, self.name = database, name
        self.saved: set[str] = set()
        self.unknown: set[str] = set()
        self.failed: set[str] = set()
        self.errors: Counter[tuple[str, str]] = Counter()
        self.is_over = False

    async def run(self, trouble: Callable[[], Awaitable[None]]) -> None:
        async with asyncio.TaskGroup() as tasks:
            for number in range(3):
                for way in (self.read, self.write, self.read_in_session, self.write_in_session):
                    tasks.create_task(self._work(way, f"{self.name}-{way.__name__}-{number}"))
            await eventually(lambda: len(self.saved) > 20)
            await trouble()
            so_far = len(self.saved)
            await eventually(lambda: len(self.saved) > so_far + 20, 30)
            self.is_over = True

    async def _work(self, way: Callable[[str], Awaitable[None]], worker: str) -> None:
        for turn in count():
            if self.is_over:
                return
            mark = f"{worker}-{turn}"
            try:
                await way(mark)
            except Exception as error:  # noqa: BLE001 - counted
                self.errors[way.__name__, type(error).__name__] += 1
                is_unknown = isinstance(error, CommitOutcomeUnknown)
                (self.unknown if is_unknown else self.failed).add(mark)
            else:
                if way in {self.write, self.write_in_session}:
                    self.saved.add(mark)

    async def read(self, _: str) -> None:
        assert await self.database.reader.scalar(READ) == 1

    async def write(self, mark: str) -> None:
        await self.database.writer.execute(WRITE, mark=mark)

    async def read_in_session(self, _: str) -> None:
        async with self.database.read() as session:
            assert await session.scalar(READ) == 1

    async def write_in_session(self, mark: str) -> None:
        async with self.database.write() as session:
            await session.execute(WRITE, {"mark": mark})


@pytest.mark.parametrize("command", ["RECONNECT", "RELOAD", "restart"])
async def test_what_the_operator_does_under_load_loses_and_repeats_nothing(
    outage: Outage, command: str
) -> None:
    async def do() -> None:
        if command != "restart":
            await outage.run(command)
            return
        outage.pooler.process.kill()
        await asyncio.sleep(0.3)
        outage.pooler.process.start_again()

    settings = {"connect_timeout": 5, "command_timeout": 20, "pool_timeout": 20}
    async with database_on(outage.url, "asyncpg", **settings) as database:
        load = Load(database, command)
        await load.run(do)
        await eventually(lambda: database.pool.snapshot().checked_out == 0)

    if command == "restart":
        # What was under way: the lane's reads are sent again, and its writes have said so.
        assert load.errors.keys() <= {
            ("write", "CommitOutcomeUnknown"),
            ("write_in_session", "CommitOutcomeUnknown"),
            ("write_in_session", "DBAPIError"),
            ("read_in_session", "DBAPIError"),
        }
    else:
        assert load.errors == {}
    stored = Counter(await outage.notes(command))
    assert set(stored.values()) == {1}
    assert load.saved <= stored.keys() <= load.saved | load.unknown

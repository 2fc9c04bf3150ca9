"""Slow and repeated statements of a service, on both lanes."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from time import monotonic
from typing import Any

import pytest
from fastapi import BackgroundTasks, FastAPI
from sqlalchemy import Float, String, bindparam, func, select, text
from starlette.responses import StreamingResponse
from tests.servers.web import client_of

from penstock import Database, PenstockPool, query
from penstock.fastapi import Reader, ReadSession, install
from penstock.telemetry import StatementUse
from penstock.telemetry.sampler import count_idle_in_transaction

LANES = ["session", "express"]
SLEEP = select(
    func.pg_sleep(bindparam("seconds", type_=Float)).is_(None), bindparam("secret", type_=String)
)
sleep = query(SLEEP)
SHAPE = "SELECT pg_sleep(?::FLOAT) IS NULL AS anon_1, ?::VARCHAR AS anon_2"


@pytest.fixture
async def database(database_url: str, tmp_path: Path) -> AsyncIterator[Database]:
    """One whose statements are slow from a twentieth of a second on."""
    database = Database.from_url(
        database_url, environment="testing", slow_query=0.05, telemetry_dir=tmp_path
    )
    async with database:
        yield database


@pytest.fixture
def app(database: Database) -> FastAPI:
    """A service that sleeps on the server, by either lane, so often as it is asked to."""
    app = FastAPI()
    install(app, database)

    @app.get("/session/{secret}")
    async def by_session(session: ReadSession, secret: str, seconds: float, times: int = 1) -> None:
        for _ in range(times):
            await session.execute(SLEEP, {"seconds": seconds, "secret": secret})

    @app.get("/express/{secret}")
    async def by_express(reader: Reader, secret: str, seconds: float, times: int = 1) -> None:
        for _ in range(times):
            await reader.one(sleep, seconds=seconds, secret=secret)

    async def answers() -> AsyncIterator[bytes]:
        for _ in range(12):
            yield f"{await database.reader.one(sleep, seconds=0, secret='')}\n".encode()

    @app.get("/stream")
    async def stream() -> StreamingResponse:
        return StreamingResponse(answers())

    @app.get("/task")
    async def task(tasks: BackgroundTasks) -> None:
        tasks.add_task(_exhaust, answers())

    return app


async def _exhaust(answers: AsyncIterator[bytes]) -> None:
    async for _ in answers:
        pass


def lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [
        record.getMessage() for record in caplog.records if record.name == "penstock.slow_queries"
    ]


def uses(database: Database) -> list[StatementUse]:
    return [use for use in database.telemetry.read().statements if "pg_sleep" in use.statement]


@pytest.mark.parametrize("lane", LANES)
async def test_a_slow_statement_is_logged_once_with_its_route_and_never_its_values(
    app: FastAPI, database: Database, lane: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with client_of(app) as client:
        await client.get(f"/{lane}/4711-secret", params={"seconds": 0})
        caplog.clear()
        await client.get(f"/{lane}/4711-secret", params={"seconds": 0.1})
        (use,) = uses(database)

    (line,) = lines(caplog)
    start, _, statement = line.partition(": ")
    assert start.startswith(f"GET /{lane}/{{secret}} took 1")
    assert start.endswith(" ms, 1 rows")
    assert statement == SHAPE
    assert (use.statement, use.route) == (SHAPE, f"GET /{lane}/{{secret}}")
    assert (use.calls, use.rows, use.most_in_request) == (1, 1, 0)
    assert 0.1 <= use.longest < 10


@pytest.mark.parametrize("lane", LANES)
async def test_a_quick_statement_is_not_logged(
    app: FastAPI, database: Database, lane: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with client_of(app) as client:
        await client.get(f"/{lane}/x", params={"seconds": 0})
        caplog.clear()
        await client.get(f"/{lane}/x", params={"seconds": 0})

        assert lines(caplog) == []
        assert database.telemetry.read().counters.slow == 0


@pytest.mark.parametrize("lane", LANES)
async def test_a_statement_that_a_request_repeats_is_found(
    app: FastAPI, database: Database, lane: str
) -> None:
    async with client_of(app) as client:
        await client.get(f"/{lane}/x", params={"seconds": 0, "times": 9})
        assert uses(database) == []
        await client.get(f"/{lane}/x", params={"seconds": 0, "times": 12})
        (use,) = uses(database)

    assert (use.statement, use.route) == (SHAPE, f"GET /{lane}/{{secret}}")
    assert (use.calls, use.most_in_request) == (0, 12)


@pytest.mark.parametrize("path", ["/stream", "/task"])
async def test_what_runs_after_the_response_has_left_repeats_nothing_of_the_request(
    app: FastAPI, database: Database, path: str
) -> None:
    async with client_of(app) as client:
        async with client.stream("GET", path) as answer:
            await answer.aread()
        # Another request on the same connection begins when the first is over.
        await client.get("/express/x", params={"seconds": 0})

        assert uses(database) == []


async def by_session(database: Database) -> None:
    async with database.read() as session:
        await session.execute(SLEEP, {"seconds": 30, "secret": "4711-secret"})


async def by_express(database: Database) -> None:
    await database.reader.one(sleep, seconds=30, secret="4711-secret")


async def in_a_snapshot(database: Database) -> None:
    async with database.reader.snapshot() as snapshot:
        await snapshot.one(sleep, seconds=30, secret="4711-secret")


@pytest.mark.parametrize("run", [by_session, by_express, in_a_snapshot])
async def test_a_slow_statement_that_is_cancelled_is_logged_as_well(
    database: Database,
    run: Callable[[Database], Awaitable[None]],
    caplog: pytest.LogCaptureFixture,
) -> None:
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.2):
            await run(database)

    (line,) = lines(caplog)
    assert line.startswith("(no route) took ")
    assert line.endswith(f" ms, 0 rows: {SHAPE}")


async def test_a_short_command_timeout_and_a_listener_make_no_difference(
    database_url: str, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    async with Database.from_url(
        database_url,
        environment="testing",
        slow_query=0.05,
        command_timeout=5,
        telemetry_dir=tmp_path,
    ) as database:
        await database.reader.one(sleep, seconds=0.1, secret="x")

    (line,) = lines(caplog)
    assert line.endswith(f" ms, 1 rows: {SHAPE}")


async def test_without_telemetry_slow_statements_are_logged_all_the_same(
    database_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with Database.from_url(
        database_url, environment="testing", slow_query=0.05, telemetry=False
    ) as database:
        await database.reader.one(sleep, seconds=0.1, secret="x")
        async with database.read() as session:
            await session.execute(text("SELECT pg_sleep(0.1), 'secret'"))

    assert [line.rpartition(": ")[2] for line in lines(caplog)] == [
        SHAPE,
        "SELECT pg_sleep(?), ?",
    ]


async def test_nothing_is_attached_where_both_are_off(
    database_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with Database.from_url(
        database_url, environment="testing", slow_query="off", telemetry=False
    ) as database:
        await database.reader.one(sleep, seconds=0.2, secret="x")
        async with database.read() as session:
            await session.execute(SLEEP, {"seconds": 0.2, "secret": "x"})

        assert "do_execute" not in vars(database.engine.dialect)
    assert lines(caplog) == []


async def test_a_long_statement_is_cut_at_200_characters(
    database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    columns = ", ".join(f"1 AS column_{number}" for number in range(100))
    async with database.read() as session:
        await session.execute(text(f"SELECT pg_sleep(0.1), {columns}"))

    (line,) = lines(caplog)
    assert len(line.partition(" rows: ")[2]) == 200


async def test_a_snapshot_and_a_stream_are_at_rest_between_two_statements(
    database: Database,
) -> None:
    pool = database.engine.pool
    assert isinstance(pool, PenstockPool)

    def idle_in_transaction() -> int:
        return count_idle_in_transaction(pool.ledger, monotonic() + 6)

    async with database.reader.snapshot() as snapshot:
        assert idle_in_transaction() == 1
        running = asyncio.create_task(snapshot.one(sleep, seconds=0.2, secret="x"))
        await asyncio.sleep(0)
        assert idle_in_transaction() == 0
        await running
        assert idle_in_transaction() == 1
    async with stream_of(database) as rows:
        assert [row.n async for row in rows] == [1, 2, 3]
        assert idle_in_transaction() == 1
    assert idle_in_transaction() == 0
    await database.reader.one(sleep, seconds=0, secret="x")
    assert idle_in_transaction() == 0


@asynccontextmanager
async def stream_of(database: Database) -> AsyncIterator[AsyncIterator[Any]]:
    numbers = query(select(func.generate_series(1, 3).label("n")))
    async with database.reader.stream(numbers).yield_per(2) as rows:
        yield rows

"""Which errors of the database are answers, in which form, and what the log has of them."""

import asyncio
import logging
from collections.abc import AsyncIterator, Collection
from typing import Any

import pytest
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response
from sqlalchemy import select, text
from sqlalchemy.exc import DBAPIError, IntegrityError, NoResultFound, SQLAlchemyError
from sqlalchemy.ext.asyncio import create_async_engine
from tests.integration.fastapi.things import Base, Thing, add_routes
from tests.servers.web import client_of

from penstock import Database, PenstockError
from penstock.fastapi import ReadSession, WriteSession, install

TOO_LARGE = 2**31
MUCH_TOO_LARGE = 10**20


@pytest.fixture(params=["asyncpg", "psycopg"])
async def database(request: pytest.FixtureRequest, database_url: str) -> AsyncIterator[Database]:
    """A pool of two connections, by each driver of PostgreSQL."""
    engine = create_async_engine(database_url)
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
        await connection.execute(text("INSERT INTO parents VALUES (1)"))
        await connection.execute(
            text("INSERT INTO things (id, short, long, version) VALUES (100, 'a', 'taken', 1)")
        )
    await engine.dispose()
    url = database_url.replace("asyncpg", request.param)
    database = Database.from_url(url, environment="testing", pool_size=2, max_overflow=0)
    yield database
    await database.close()


@pytest.fixture
def app(database: Database) -> FastAPI:
    app = FastAPI()
    install(app, database)
    add_routes(app)
    return app


async def answered(app: FastAPI, method: str, path: str, **arguments: Any) -> Any:
    async with client_of(app) as client:
        return await client.request(method, path, **arguments)


def said(answer: Any) -> tuple[int, str]:
    assert answer.headers["content-type"] == "application/problem+json", answer.text
    problem = answer.json()
    assert problem.keys() == {"title", "status", "code", "detail"}
    assert problem["status"] == answer.status_code
    return answer.status_code, problem["code"]


@pytest.mark.parametrize("thing_id", [-TOO_LARGE - 1, TOO_LARGE, 2**63, MUCH_TOO_LARGE])
@pytest.mark.parametrize("way", ["reader", "session"])
async def test_a_number_in_the_path_that_no_key_can_be_names_no_record(
    app: FastAPI, way: str, thing_id: int
) -> None:
    assert said(await answered(app, "GET", f"/{way}/{thing_id}")) == (404, "not_found")


async def test_a_text_in_the_path_that_no_column_can_hold_names_no_record(app: FastAPI) -> None:
    assert said(await answered(app, "GET", "/text/a%00b")) == (404, "not_found")


@pytest.mark.parametrize("path", ["/flushed", "/committed"])
@pytest.mark.parametrize(
    ("thing", "code"),
    [
        ({"short": "too long"}, "invalid_value"),
        ({"short": "a\0"}, "invalid_value"),
        ({"long": "a\0"}, "invalid_value"),
        ({"short": "a", "number": TOO_LARGE}, "invalid_value"),
        ({"short": "a", "number": -MUCH_TOO_LARGE}, "invalid_value"),
        ({"short": "a", "data": {"key": "a\0"}}, "invalid_value"),
        ({"short": "a", "long": None}, "value_too_large"),
    ],
    ids=["too-long", "nul", "nul-in-text", "int4", "beyond-int8", "nul-in-json", "index-row"],
)
async def test_a_value_that_the_database_refuses_is_a_422(
    app: FastAPI, path: str, thing: dict[str, Any], code: str
) -> None:
    if code == "value_too_large":
        # What cannot be compressed, and so does not fit into an index.
        thing = {
            **thing,
            "long": "".join(chr(0x4E00 + (i * i * 7919) % 20000) for i in range(40000)),
        }

    assert said(await answered(app, "POST", path, json=thing)) == (422, code)


async def test_a_value_of_the_express_lane_is_a_422_as_well(app: FastAPI) -> None:
    answer = await answered(app, "POST", "/writer", json={"short": "too long"})
    assert said(answer) == (422, "invalid_value")


@pytest.mark.parametrize("parameters", ["limit=-1", "offset=-1", f"limit={MUCH_TOO_LARGE}"])
async def test_a_value_of_the_query_is_a_422(app: FastAPI, parameters: str) -> None:
    assert said(await answered(app, "GET", f"/page?{parameters}")) == (422, "invalid_value")


@pytest.mark.parametrize(
    "statement",
    ["SELECT 1/0", "SELECT 'x'::int", "SELECT * FROM missing", "SELECT 99999999999::int"],
)
async def test_what_is_wrong_without_any_value_is_the_programs_fault(
    app: FastAPI, statement: str
) -> None:
    answer = await answered(app, "GET", "/ask", params={"statement": statement})
    assert (answer.status_code, answer.text) == (500, "Internal Server Error")


async def test_a_value_of_the_wrong_type_is_the_programs_fault(app: FastAPI) -> None:
    @app.get("/typed")
    async def typed(session: ReadSession) -> None:
        await session.scalar(select(Thing).where(Thing.id == [1]))

    assert (await answered(app, "GET", "/typed")).status_code == 500


@pytest.mark.parametrize(
    ("thing", "code"),
    [
        ({"short": "a", "long": "taken"}, "unique_violation"),
        ({"short": "a", "parent": 7}, "foreign_key_violation"),
        ({"short": None}, "not_null_violation"),
        ({"short": "a", "number": 13}, "check_violation"),
    ],
)
@pytest.mark.parametrize("path", ["/flushed", "/committed"])
async def test_a_violated_constraint_is_one_line_in_the_log_that_names_it(
    app: FastAPI, caplog: pytest.LogCaptureFixture, path: str, thing: dict[str, Any], code: str
) -> None:
    caplog.set_level(logging.INFO, "penstock.fastapi.errors")

    assert said(await answered(app, "POST", path, json=thing)) == (409, code)

    (record,) = [line for line in caplog.records if line.name == "penstock.fastapi.errors"]
    assert record.getMessage().startswith(f"Answered 409 {code}: POST {path}, ")
    named = {
        "unique_violation": "constraint things_long_key of table things",
        "foreign_key_violation": "constraint things_parent_fkey of table things",
        "not_null_violation": "short",
        "check_violation": "constraint no_thirteen of table things",
    }
    assert named[code] in record.getMessage()
    is_programs = code in ("not_null_violation", "check_violation")
    assert record.levelno == (logging.ERROR if is_programs else logging.INFO)
    assert bool(record.exc_info) is is_programs


async def test_no_row_is_one_line_in_the_log_with_its_route(
    app: FastAPI, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "penstock.fastapi.errors")

    await answered(app, "GET", "/session/7")

    lines = [line.getMessage() for line in caplog.records if line.name == "penstock.fastapi.errors"]
    assert lines == ["Answered 404 not_found: GET /session/{thing_id}, NoResultFound"]


async def test_no_refused_value_is_in_the_log(
    app: FastAPI, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "penstock.fastapi.errors")

    await answered(app, "POST", "/flushed", json={"short": "a", "number": MUCH_TOO_LARGE})
    await answered(app, "POST", "/flushed", json={"short": "secret value"})

    assert len(caplog.messages) == 2
    assert not any("secret" in line or "0000" in line for line in caplog.messages)
    assert not any(record.exc_info for record in caplog.records)


async def test_an_update_that_another_has_overtaken_is_a_409(app: FastAPI) -> None:
    async with client_of(app) as client:
        answers = await asyncio.gather(
            client.put("/things/100?number=1"), client.put("/things/100?number=2")
        )

    first, second = sorted(answers, key=lambda answer: answer.status_code)
    assert first.status_code == 200
    assert said(second) == (409, "stale_data")


async def test_a_row_that_is_locked_is_a_503_that_invites_another_try(app: FastAPI) -> None:
    async with client_of(app) as client:
        answers = await asyncio.gather(client.post("/locked"), client.post("/locked"))

    first, second = sorted(answers, key=lambda answer: answer.status_code)
    assert first.status_code == 200
    assert said(second) == (503, "lock_not_available")
    assert second.headers["retry-after"] == "1"


@pytest.mark.parametrize(
    ("sqlstate", "answer"),
    [
        ("23001", (409, "restrict_violation")),
        ("23P01", (409, "exclusion_violation")),
        ("23999", (409, "integrity_violation")),
        ("40001", (503, "transaction_conflict")),
        ("44000", (409, "check_violation")),
        ("53100", (503, "database_out_of_resources")),
        ("53200", (503, "database_out_of_resources")),
        ("55P03", (503, "lock_not_available")),
        ("57014", (503, "statement_cancelled")),
    ],
)
async def test_what_the_server_says_by_its_sqlstate_is_answered(
    app: FastAPI, sqlstate: str, answer: tuple[int, str]
) -> None:
    block = (
        f"DO $$ BEGIN RAISE EXCEPTION 'due to user request' USING ERRCODE = '{sqlstate}'; END $$"
    )

    @app.post("/raise")
    async def raise_it(session: WriteSession) -> None:
        await session.execute(text(block))

    assert said(await answered(app, "POST", "/raise")) == answer


# What an application has of its own.


async def teapot(request: Request, error: Exception) -> Response:
    return JSONResponse({"own": type(error).__name__}, 418)


def plain_teapot(request: Request, error: Exception) -> Response:
    return JSONResponse({"own": type(error).__name__}, 418)


@pytest.mark.parametrize("comes", ["before", "after"])
@pytest.mark.parametrize("handler", [teapot, plain_teapot])
@pytest.mark.parametrize(
    ("kind", "statuses"),
    [
        (IntegrityError, (418, 418, 404)),
        (DBAPIError, (418, 418, 404)),
        (SQLAlchemyError, (418, 418, 418)),
        (NoResultFound, (409, 409, 418)),
        (PenstockError, (409, 409, 404)),
        (Exception, (409, 409, 404)),
    ],
)
async def test_an_own_handler_of_a_base_class_takes_precedence(
    database: Database, kind: type[Exception], statuses: tuple[int, ...], handler: Any, comes: str
) -> None:
    app = FastAPI()
    if comes == "before":
        app.add_exception_handler(kind, handler)
    install(app, database)
    add_routes(app)
    if comes == "after":
        app.add_exception_handler(kind, handler)
    duplicate = {"short": "a", "long": "taken"}

    answers = [
        await answered(app, "POST", "/flushed", json=duplicate),
        await answered(app, "POST", "/committed", json=duplicate),
        await answered(app, "GET", "/session/7"),
    ]

    assert tuple(answer.status_code for answer in answers) == statuses


@pytest.mark.parametrize(
    ("answers", "duplicate", "no_row"),
    [
        (True, 409, 404),
        (False, 500, 500),
        (["not_found"], 500, 404),
        ({"unique_violation"}, 409, 500),
    ],
)
async def test_answers_can_be_turned_off_and_narrowed(
    database: Database, answers: bool | Collection[str], duplicate: int, no_row: int
) -> None:
    app = FastAPI()
    install(app, database, answers=answers)
    add_routes(app)

    written = await answered(app, "POST", "/flushed", json={"short": "a", "long": "taken"})
    read = await answered(app, "GET", "/session/7")

    assert (written.status_code, read.status_code) == (duplicate, no_row)


@pytest.mark.parametrize("answers", ["not_found", 404, None, ["no_such_code"], [404]])
def test_answers_that_are_none_are_refused(database: Database, answers: Any) -> None:
    with pytest.raises(PenstockError, match="answers"):
        install(FastAPI(), database, answers=answers)

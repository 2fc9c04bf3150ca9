"""The live page's routes: what they say, to whom, and what they cost."""

import asyncio
import itertools
import json
import re
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import Depends, FastAPI, HTTPException
from sqlalchemy import text
from tests.servers.web import client_of, serving

from penstock import Database
from penstock.fastapi import ReadSession, install
from penstock.fastapi.live import add_live_routes
from penstock.fastapi.routes import Access
from penstock.telemetry.rules.rulebook import RULES

PAGE = Path(__file__).parents[3] / "src/penstock/fastapi/page"


@pytest.fixture
async def watched(database_url: str, tmp_path: Path) -> AsyncIterator[Database]:
    """A pool of one connection, whose telemetry is the test's own."""
    database = Database.from_url(
        database_url,
        environment="testing",
        pool_size=1,
        max_overflow=0,
        pool_timeout=1,
        telemetry_dir=tmp_path,
    )
    yield database
    await database.close()


@pytest.fixture
def app(watched: Database) -> FastAPI:
    """An application over it, with a route that uses the connection."""
    return application(watched)


def application(database: Database, *guards: Any, **options: Any) -> FastAPI:
    app = FastAPI()
    install(app, database, routes=False, **options)
    add_live_routes(app, app.state.penstock, Access(guards, shows_all=bool(guards)))

    @app.get("/users/{user_id}")
    async def user(user_id: int, session: ReadSession) -> int:
        return int(await session.scalar(text("SELECT 1")))

    return app


async def state(client: httpx.AsyncClient, path: str = "/pool/state") -> list[dict[str, Any]]:
    """What the service says of each database."""
    answer = await client.get(path)
    assert answer.status_code == 200, answer.text
    databases: list[dict[str, Any]] = answer.json()["databases"]
    return databases


async def test_the_state_has_what_the_service_did_and_may_do(app: FastAPI) -> None:
    async with client_of(app) as client:
        before = (await state(client))[0]["counters"]["checkouts"]
        for _ in range(7):
            await client.get("/users/1")
        await asyncio.sleep(1.1)  # for which a document is kept
        (database,) = await state(client)

    assert database["name"] == "default"
    assert database["now"]["limit"] == 1
    assert database["counters"]["checkouts"] - before == 7
    assert database["times"]["hold"]["count"] - before == 7
    route = next(use for use in database["routes"] if use["route"] == "GET /users/{user_id}")
    assert route["checkouts"] == 7
    assert len(database["workers"]) == 1


async def test_only_the_seconds_after_since_are_sent(app: FastAPI) -> None:
    async with client_of(app) as client:
        (whole,) = await until_seconds(client, 3)
        first, *later = whole["history"]["at"]
        (rest,) = await state(client, f"/pool/state?since={first}")
        (none,) = await state(client, f"/pool/state?since={later[-1] + 30}")

    assert set(rest) == set(whole) - {"growth"}
    assert rest["history"]["at"][: len(later)] == later
    assert len(set(map(len, rest["history"].values()))) == 1
    assert none["history"]["at"] == []
    assert none["counters"]["checkouts"] == whole["counters"]["checkouts"]


async def until_seconds(client: httpx.AsyncClient, seconds: int) -> list[dict[str, Any]]:
    """Ask until the history has so many seconds."""
    async with asyncio.timeout(20):
        while len((databases := await state(client))[0]["history"]["at"]) < seconds:  # noqa: ASYNC110 - no event
            await asyncio.sleep(0.2)
    return databases


@pytest.mark.parametrize("since", ["-1", "-1e300", "0", "0.5", "%2B0", "1e300", "9" * 300])
async def test_a_moment_that_no_viewer_can_have_gives_the_whole_history(
    app: FastAPI, since: str
) -> None:
    async with client_of(app) as client:
        (whole,) = await until_seconds(client, 2)
        (answered,) = await state(client, f"/pool/state?since={since}")

    assert answered["history"]["at"][:2] == whole["history"]["at"][:2]


@pytest.mark.parametrize(
    "since", ["", "nan", "-NaN", "inf", "-Infinity", "now", "0x10", "9" * 400, "1,5", "%00", "[]"]
)
async def test_what_is_no_moment_is_answered_by_problem_details(app: FastAPI, since: str) -> None:
    async with client_of(app) as client:
        answer = await client.get(f"/pool/state?since={since}")

    assert answer.status_code == 422
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.headers["cache-control"] == "no-store"
    assert answer.json()["code"] == "invalid_since"


async def test_viewers_of_the_same_second_are_sent_the_same_bytes(app: FastAPI) -> None:
    async with client_of(app) as client:
        answers = await asyncio.gather(*(client.get("/pool/state") for _ in range(20)))
        after = json.loads(answers[0].content)["at"]
        await asyncio.sleep(1.1)
        later = (await client.get("/pool/state")).json()["at"]

    # A second may end in between.
    assert len({answer.content for answer in answers}) <= 2
    assert later > after


async def test_a_viewer_that_has_the_document_is_not_sent_it_again(app: FastAPI) -> None:
    async with client_of(app) as client:
        async with asyncio.timeout(10):
            answer = await client.get("/pool/state")
            tag = answer.headers["etag"]
            while (await client.get("/pool/state")).headers["etag"] != tag:
                tag = (await client.get("/pool/state")).headers["etag"]
        known = await client.get("/pool/state", headers={"If-None-Match": tag})
        other = await client.get("/pool/state", headers={"If-None-Match": '"other"'})
        await asyncio.sleep(1.1)
        newer = await client.get("/pool/state", headers={"If-None-Match": tag})

    assert (known.status_code, known.content, known.headers["etag"]) == (304, b"", tag)
    assert (other.status_code, newer.status_code) == (200, 200)


async def test_a_viewer_holds_no_connection_even_if_its_access_was_read_from_the_database(
    watched: Database,
) -> None:
    async def access(session: ReadSession) -> None:
        await session.execute(text("SELECT 1"))

    app = application(watched, Depends(access))
    async with client_of(app) as client:
        for _ in range(3):
            await state(client)
            assert watched.pool.snapshot().checked_out == 0
        assert (await client.get("/users/1")).status_code == 200


async def test_the_server_stops_although_viewers_ask(app: FastAPI) -> None:
    async with httpx.AsyncClient(trust_env=False, timeout=30) as client, AsyncExitStack() as server:
        url = await server.enter_async_context(serving(app))
        viewers = [asyncio.create_task(_look(client, url)) for _ in range(20)]
        await asyncio.sleep(1.5)
        stopping = time.monotonic()
        await server.aclose()
        assert time.monotonic() - stopping < 4.5  # after 5 s it would cut requests off
        assert min(await asyncio.gather(*viewers)) >= 2


async def _look(client: httpx.AsyncClient, url: str) -> int:
    """Ask again and again until the server has stopped; returns how many answers there were."""
    for answers in itertools.count():
        try:
            assert (await client.get(f"{url}/pool/state")).status_code == 200
        except httpx.TransportError:
            return answers
        await asyncio.sleep(0.1)
    raise AssertionError("unreachable")


async def test_the_page_may_load_nothing_from_elsewhere(app: FastAPI) -> None:
    async with client_of(app) as client:
        answer = await client.get("/pool")

    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert answer.headers["cache-control"] == "no-store"
    policy = answer.headers["content-security-policy"]
    assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self'; ")
    assert "unsafe" not in policy
    assert not re.findall(r"""(?:src|href)=["'](?:https?:)?//""", answer.text)


async def test_every_answer_is_safe_to_look_at(app: FastAPI) -> None:
    async with client_of(app) as client:
        for path in ("/pool", "/pool/state", "/pool/assets/page.js"):
            headers = (await client.get(path)).headers
            assert headers["x-content-type-options"] == "nosniff"
            assert headers["referrer-policy"] == "no-referrer"
        assert (await client.get("/pool/state")).headers["cache-control"] == "no-store"


async def test_what_the_page_asks_for_is_there_and_nothing_else(app: FastAPI) -> None:
    html = (PAGE / "index.html").read_text()
    scripts = "".join(path.read_text() for path in PAGE.glob("[a-z]*.js"))
    wanted = {*re.findall(r'"pool/assets/([^"]+)"', html), *re.findall(r'"\./([^"]+)"', scripts)}
    kinds = {"css": "text/css; charset=utf-8", "js": "text/javascript; charset=utf-8"}

    assert len(wanted) >= 10
    async with client_of(app) as client:
        for name in wanted:
            answer = await client.get(f"/pool/assets/{name}")
            assert answer.content == (PAGE / name).read_bytes()
            assert answer.headers["content-type"] == kinds[name.rpartition(".")[2]]
        for name in ("index.html", "uPlot.LICENSE.txt", "..%2flive.py", "%2e%2e/live.py", ""):
            assert (await client.get(f"/pool/assets/{name}")).status_code == 404


async def test_every_finding_has_an_explanation(app: FastAPI) -> None:
    async with client_of(app) as client:
        told = (await client.get("/pool/assets/findings.json")).json()

    assert set(RULES) <= set(told)
    for identifier in RULES:
        terms = dict(told[identifier])
        assert list(terms) == ["Condition", "Impact", "Remedy", "Thresholds"], identifier
        assert all(len(text) > 20 for text in terms.values()), identifier
        assert not re.search(r"[`*]|\]\(", "".join(terms.values())), identifier


async def test_it_works_below_a_path(app: FastAPI) -> None:
    outer = FastAPI(lifespan=app.router.lifespan_context)
    outer.mount("/shop/api", app)

    async with client_of(outer) as client:
        html = (await client.get("/shop/api/pool")).text
        for asset in re.findall(r'(?:src|href)="(pool/[^"]+)"', html):
            assert (await client.get(f"/shop/api/{asset}")).status_code == 200, asset
        assert (await state(client, "/shop/api/pool/state"))[0]["now"]["limit"] == 1


async def test_without_a_guard_only_development_is_shown(
    watched: Database, database_url: str, tmp_path: Path
) -> None:
    app = application(watched)
    secret = Database.from_url(
        database_url,
        environment="production",
        pool_size=1,
        max_overflow=0,
        telemetry_dir=tmp_path,
    )
    install(app, secret, name="secret")

    async with client_of(app) as client:
        assert [each["name"] for each in await state(client)] == ["default"]


async def test_a_guard_stands_before_everything_that_says_something(
    watched: Database, database_url: str, tmp_path: Path
) -> None:
    async def access(token: str = "") -> None:
        if token != "right":
            raise HTTPException(401)

    app = application(watched, Depends(access))
    production = Database.from_url(
        database_url,
        environment="production",
        pool_size=1,
        max_overflow=0,
        telemetry_dir=tmp_path,
    )
    install(app, production, name="production")

    async with client_of(app) as client:
        for path in ("/pool", "/pool/state", "/pool/state?since=1", "/pool/state?since=x"):
            assert (await client.get(path)).status_code == 401
        shown = await state(client, "/pool/state?token=right")
        assert [each["name"] for each in shown] == ["default", "production"]


async def test_a_database_without_telemetry_is_shown_without_workers(database_url: str) -> None:
    silent = Database.from_url(
        database_url, environment="testing", pool_size=1, max_overflow=0, telemetry=False
    )

    async with client_of(application(silent)) as client:
        (database,) = await state(client)

    assert database["workers"] == []
    assert database["now"]["limit"] == 0


async def test_no_password_is_in_the_state(app: FastAPI, database_url: str) -> None:
    password = httpx.URL(database_url.replace("+asyncpg", "")).password

    async with client_of(app) as client:
        await client.get("/users/1")
        assert password
        assert password not in (await client.get("/pool/state")).text

"""Every route that ``install`` adds: who may see it, and what it never says.

The routes are those that an application has, so that none is forgotten.
"""

import asyncio
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI, HTTPException
from sqlalchemy import make_url, text
from tests.servers.proxy import Proxy
from tests.servers.web import client_of

from penstock import Database
from penstock.fastapi import ReadSession, install
from penstock.fastapi.routes import OperationsRoute
from penstock.telemetry import Telemetry

OPERATIONS = Path(__file__).parents[3] / "docs/operations.md"
OPEN = ("development", "testing")
GUARDED = ("production", "serverless")
METHODS = ("GET", "HEAD", "POST", "OPTIONS")
CHANGING = ("date", "x-process-time")
TOKEN = "an operator's own"
RIGHT = {"Authorization": f"Bearer {TOKEN}"}
HOST = "127.83.19.71"
"""An address of the loopback interface that stands nowhere else."""


class Services:
    """Makes applications, each with a database of an environment."""

    def __init__(self, url: str, directory: Path) -> None:
        self.url = url
        self._directory = directory

    def database(self, environment: str) -> Database:
        return Database.from_url(
            self.url,
            environment=environment,
            pool_size=1,
            max_overflow=0,
            connect_timeout=1,
            pool_timeout=1,
            slow_query=0.0001,
            telemetry_dir=self._directory,
        )

    def app(self, environment: str, access: Any = None) -> FastAPI:
        app = FastAPI()
        install(app, self.database(environment), access=access)
        return app

    def all_routes(self) -> list[str]:
        """The paths that ``install`` adds in development, which are all that it can."""
        paths = routes_of(self.app("development"))
        assert {"/health", "/pool-stats", "/metrics", "/pool", "/pool/state"} < set(paths)
        return paths


@pytest.fixture
def services(database_url: str, tmp_path: Path) -> Services:
    return Services(database_url, tmp_path)


@pytest.fixture
def access(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The documentation's own, with a token."""
    monkeypatch.setenv("OPERATIONS_TOKEN", TOKEN)
    blocks = re.findall(r"```python\n(.*?)```", OPERATIONS.read_text(), re.DOTALL)
    names: dict[str, Any] = {}
    exec(next(block for block in blocks if "OPERATIONS_TOKEN" in block), names)
    return names["require_operator"]


def routes_of(app: FastAPI) -> list[str]:
    """All that ``install`` has added."""
    return [route.path for route in app.routes if isinstance(route, OperationsRoute)]


def is_health(path: str) -> bool:
    return path.startswith("/health")


def is_asset(path: str) -> bool:
    return path.startswith("/pool/assets/")


def tells(path: str) -> bool:
    """Whether it says what is for operators only."""
    return not is_health(path) and not is_asset(path)


async def ask(
    client: httpx.AsyncClient, path: str, *, method: str = "GET", **options: Any
) -> tuple[httpx.Response, str]:
    """Ask, and read the answer's body, or of events the first."""
    body = ""
    async with client.stream(method, path, **options) as answer:
        async for line in answer.aiter_lines():
            body += line
            if line.startswith("data: "):
                break
    return answer, body


@pytest.mark.parametrize("environment", OPEN)
async def test_in_development_and_testing_everybody_sees_everything(
    services: Services, environment: str
) -> None:
    app = services.app(environment)
    assert routes_of(app) == services.all_routes()

    async with client_of(app) as client:
        for path in routes_of(app):
            assert (await ask(client, path))[0].status_code == 200, path


@pytest.mark.parametrize("environment", GUARDED)
async def test_elsewhere_there_is_only_the_health_without_access(
    services: Services, environment: str
) -> None:
    app = services.app(environment)
    assert routes_of(app) == [path for path in services.all_routes() if is_health(path)]

    async with client_of(app) as client:
        for path in services.all_routes():
            status = (await ask(client, path))[0].status_code
            assert status == (200 if is_health(path) else 404), path


async def test_a_missing_route_answers_as_a_path_that_never_was(services: Services) -> None:
    missing = [path for path in services.all_routes() if not is_health(path)]

    async with client_of(services.app("production")) as client:
        for method in METHODS:
            nothing = _told(await ask(client, "/never-was", method=method))
            for path in missing:
                assert _told(await ask(client, path, method=method)) == nothing, path
                assert _told(await ask(client, f"{path}/", method=method)) == nothing, path


def _told(answer: tuple[httpx.Response, str]) -> tuple[int, list[tuple[str, str]], str]:
    response, body = answer
    headers = [each for each in response.headers.items() if each[0] not in CHANGING]
    return response.status_code, headers, body


@pytest.mark.parametrize("environment", [*OPEN, *GUARDED])
async def test_with_access_each_route_that_tells_something_asks_for_the_token(
    services: Services, environment: str, access: Any
) -> None:
    app = services.app(environment, access)
    assert routes_of(app) == services.all_routes()

    async with client_of(app) as client:
        for path in routes_of(app):
            refused = 401 if tells(path) else 200
            assert (await ask(client, path))[0].status_code == refused, path
            assert (await ask(client, path, headers=RIGHT))[0].status_code == 200, path


async def test_the_documented_access_knows_the_token_however_it_is_sent_and_no_other(
    services: Services, access: Any
) -> None:
    async with client_of(services.app("production", access)) as client:
        for wrong in ("Bearer", "Bearer wrong", f"Bearer {TOKEN}s", TOKEN, "Basic Og=="):
            answer, _ = await ask(client, "/pool-stats", headers={"Authorization": wrong})
            assert answer.status_code == 401, wrong
        assert answer.headers["www-authenticate"].startswith("Basic")
        as_browser, _ = await ask(client, "/pool-stats", auth=("anybody", TOKEN))
        assert as_browser.status_code == 200


async def test_nothing_but_get_is_answered(services: Services, access: Any) -> None:
    app = services.app("production", access)

    async with client_of(app) as client:
        for path in routes_of(app):
            for method in METHODS[1:]:
                answer, _ = await ask(client, path, method=method, headers=RIGHT)
                assert answer.status_code == 405, (method, path)


async def test_what_is_said_of_the_service_is_not_to_be_stored(services: Services) -> None:
    app = services.app("testing")

    async with client_of(app) as client:
        for path in routes_of(app):
            stored = "no-cache" if is_asset(path) else "no-store"
            assert (await ask(client, path))[0].headers["cache-control"] == stored, path


async def test_who_is_refused_is_refused_before_anything_is_computed(
    services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    noted: list[str] = []

    async def access(token: str = "") -> None:
        noted.append("access")
        if token != "right":
            raise HTTPException(403)

    pool = vars(Database)["pool"].fget
    monkeypatch.setattr(Database, "pool", property(_noting(pool, "pool", noted)))
    monkeypatch.setattr(Telemetry, "read", _noting(Telemetry.read, "read", noted))
    app = services.app("production", access)
    asked = [path for path in routes_of(app) if tells(path)]

    async with client_of(app) as client:
        noted.clear()
        for path in asked:
            assert (await ask(client, path))[0].status_code == 403, path
        assert noted == ["access"] * len(asked)
        for path in asked:
            await ask(client, f"{path}?token=right")
    assert {"access", "read", "pool"} == set(noted)


def _noting(function: Any, name: str, noted: list[str]) -> Callable[..., Any]:
    def noting(*arguments: Any) -> Any:
        noted.append(name)
        return function(*arguments)

    return noting


async def test_a_second_database_in_production_is_not_shown_by_routes_that_are_open(
    services: Services, access: Any
) -> None:
    app, guarded = services.app("development"), services.app("development", access)
    for each in (app, guarded):
        install(each, services.database("production"), name="vault")

    async with client_of(app) as client:
        for path in filter(tells, routes_of(app)):
            answer, body = await ask(client, path)
            assert answer.status_code == 200
            assert "vault" not in body, path
    async with client_of(guarded) as client:
        for path in ("/pool-stats", "/metrics", "/pool/state"):
            assert "vault" in (await ask(client, path, headers=RIGHT))[1], path


async def test_a_second_database_in_development_opens_nothing_of_one_in_production(
    services: Services, access: Any
) -> None:
    app = services.app("production")
    install(app, services.database("development"), name="second", access=access)

    assert all(map(is_health, routes_of(app)))


@asynccontextmanager
async def behind_a_proxy(services: Services) -> AsyncIterator[Proxy]:
    """Let the services connect to an address that can be recognised, for a block."""
    url = make_url(services.url)
    proxy = Proxy(str(url.host), url.port or 5432)
    async with await asyncio.start_server(proxy.admit, HOST, 0) as listener:
        proxy.port = listener.sockets[0].getsockname()[1]
        services.url = url.set(host=HOST, port=proxy.port).render_as_string(False)
        try:
            yield proxy
        finally:
            listener.close()
            await proxy.close()


async def test_no_answer_names_the_databases_password_user_or_host(
    services: Services, access: Any
) -> None:
    url = make_url(services.url)
    secrets = [HOST, str(url.username), str(url.password), str(url.database)]
    async with behind_a_proxy(services) as proxy:
        app = services.app("production", access)

        @app.get("/work")
        async def work(session: ReadSession) -> None:
            await session.execute(text("SELECT pg_sleep(0.001)"))

        async with client_of(app) as client:
            assert (await ask(client, "/work"))[0].status_code == 200
            said = [await ask(client, path, headers=RIGHT) for path in routes_of(app)]
            proxy.refusing = True
            proxy.cut()
            assert (await ask(client, "/work"))[0].status_code == 503
            said += [await ask(client, path, headers=RIGHT) for path in routes_of(app)]
            said += [await ask(client, path) for path in routes_of(app)]

    assert {answer.status_code for answer, _ in said} == {200, 401, 503}
    assert any("GET /work" in body and "pg_sleep" in body for _, body in said)
    assert any(re.search('"open_failures":[1-9]', body) for _, body in said)
    for answer, body in said:
        told = f"{answer.headers.raw} {body}"
        assert not [secret for secret in secrets if secret in told], answer.url

"""Instrumentation of others, put around the application before install() and after it."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import logfire
import pytest
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse
from opentelemetry.instrumentation.fastapi import FastAPIInstrumentor
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode
from sqlalchemy import text
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from tests.integration.fastapi.notes import Note, Onlooker
from tests.servers.web import client_of

from penstock import Database
from penstock.fastapi import WriteSession, install

STATUS = "http.response.status_code"


@pytest.fixture
def exporter() -> InMemorySpanExporter:
    return InMemorySpanExporter()


@pytest.fixture(params=["opentelemetry", "logfire"])
def instrument(
    request: pytest.FixtureRequest, exporter: InMemorySpanExporter
) -> Iterator[Callable[[FastAPI], Any]]:
    """Instruments an application, by each of those that take its middleware apart."""
    instrumented = []
    if request.param == "opentelemetry":
        provider = TracerProvider()
        provider.add_span_processor(SimpleSpanProcessor(exporter))

        def instrument(app: FastAPI) -> None:
            FastAPIInstrumentor.instrument_app(app, tracer_provider=provider)
            instrumented.append(app)
    else:
        ours = logfire.configure(
            local=True,
            send_to_logfire=False,
            console=False,
            additional_span_processors=[SimpleSpanProcessor(exporter)],
        )

        def instrument(app: FastAPI) -> None:
            ours.instrument_fastapi(app)
            instrumented.append(app)

    yield instrument
    for app in instrumented:
        FastAPIInstrumentor.uninstrument_app(app)


def add_routes(app: FastAPI) -> None:
    @app.post("/saved")
    async def saved(session: WriteSession) -> None:
        session.add(Note(text="saved"))

    @app.post("/refused")
    async def refused(session: WriteSession) -> None:
        session.add_all([Note(text="twice"), Note(text="twice")])

    @app.post("/broken")
    async def broken(session: WriteSession) -> None:
        session.add(Note(text="broken"))
        await session.flush()
        raise RuntimeError("broken")

    @app.exception_handler(Exception)
    async def apologise(request: Request, error: Exception) -> JSONResponse:
        return JSONResponse({"sorry": True}, 500)


@pytest.mark.parametrize("comes", ["before", "after"])
async def test_requests_are_traced_and_settled_in_either_order(
    database: Database,
    onlooker: Onlooker,
    instrument: Callable[[FastAPI], Any],
    exporter: InMemorySpanExporter,
    comes: str,
) -> None:
    app = FastAPI()
    add_routes(app)
    if comes == "before":
        instrument(app)
    install(app, database)
    if comes == "after":
        instrument(app)

    async with client_of(app) as client:
        answers = [await client.post(path) for path in ("/saved", "/refused", "/broken")]

    assert [answer.status_code for answer in answers] == [200, 409, 500]
    assert answers[2].json() == {"sorry": True}
    assert all("x-process-time" in answer.headers for answer in answers)
    assert await onlooker.texts() == ["saved"]
    spans = {
        str(span.name): dict(span.attributes or {})
        for span in exporter.get_finished_spans()
        if span.parent is None and str(span.name).startswith("POST")
    }
    assert spans.keys() == {"POST /saved", "POST /refused", "POST /broken"}
    statuses = {
        name: attributes.get(STATUS, attributes.get("http.status_code"))
        for name, attributes in spans.items()
    }
    assert statuses == {"POST /saved": 200, "POST /refused": 409, "POST /broken": 500}


async def test_an_exception_that_nobody_handles_is_in_the_span(
    database: Database, exporter: InMemorySpanExporter
) -> None:
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    app = FastAPI()
    install(app, database)
    FastAPIInstrumentor.instrument_app(app, tracer_provider=provider)

    @app.get("/broken")
    async def broken(session: WriteSession) -> None:
        await session.execute(text("SELECT 1"))
        raise RuntimeError("broken")

    async with client_of(app) as client:
        assert (await client.get("/broken")).status_code == 500
    FastAPIInstrumentor.uninstrument_app(app)

    (span,) = [span for span in exporter.get_finished_spans() if span.name == "GET /broken"]
    assert span.status.status_code is StatusCode.ERROR


# Headers, which ASGI has as any iterable of pairs.


class Answering:
    """Answers by itself, with the headers of some kind of iterable."""

    def __init__(self, app: ASGIApp, kind: Callable[[list[Any]], Iterable[Any]]) -> None:
        self._app = app
        self._kind = kind

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_as(message: Message) -> None:
            if "headers" in message:
                message["headers"] = self._kind(list(message["headers"]))
            await send(message)

        await self._app(scope, receive, send_as)


@pytest.mark.parametrize("kind", [list, tuple, iter, lambda pairs: dict(pairs).items()])
@pytest.mark.parametrize("path", ["/saved", "/refused"])
async def test_headers_may_be_any_iterable(
    database: Database, kind: Callable[[list[Any]], Iterable[Any]], path: str
) -> None:
    app = FastAPI()
    install(app, database)
    add_routes(app)
    app.add_middleware(Answering, kind=kind)

    async with client_of(app) as client:
        answer = await client.post(path)

    assert answer.status_code == (200 if path == "/saved" else 409)
    assert float(answer.headers["x-process-time"]) > 0


async def test_headers_of_a_request_may_be_read_once_only(database: Database) -> None:
    app = FastAPI()
    install(app, database, deadline_header="X-Request-Timeout")

    @app.get("/")
    async def see(request: Request) -> str:
        return request.headers["x-mine"]

    async def once(scope: Scope, receive: Receive, send: Send) -> None:
        if "headers" in scope:
            scope["headers"] = iter(list(scope["headers"]))
        await app(scope, receive, send)

    async with client_of(once) as client:
        answer = await client.get("/", headers={"X-Mine": "7", "X-Request-Timeout": "5"})
    assert answer.json() == "7"

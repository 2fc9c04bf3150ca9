"""What a list of a hundred rows costs a route: rows and its response model, or PostgreSQL's JSON."""

import gc
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import uvloop
from benchmarks.dataset import roomy_server, users_database
from benchmarks.peers.users import User, UserOut
from benchmarks.progress import progress
from benchmarks.result import Ratio, Result, median
from benchmarks.workers import Turn, Worker, measure_in_turns
from fastapi import FastAPI
from sqlalchemy import func, select

from penstock import Database, query
from penstock.express import JsonQuery
from penstock.fastapi import JSONBytes, Reader, install

ROWS = 100
WAYS = ("response_model", "json")
users = query(select(User).order_by(User.id).limit(ROWS))
users_as_json = JsonQuery(users, UserOut)


@dataclass(frozen=True)
class Lengths:
    """Rounds, and requests in each."""

    rounds: int
    requests: int


LONG = Lengths(rounds=60, requests=300)
SHORT = Lengths(rounds=2, requests=50)


def run(short: bool) -> Result:
    """Measure both routes without an HTTP server, in turn, on uvloop.

    Args:
        short: Whether it is enough to see it work.

    Returns:
        Microseconds of CPU per request, of the application and of PostgreSQL; medians of the
        rounds and their ratios.
    """
    lengths = SHORT if short else LONG
    with (
        roomy_server() as server,
        users_database(server) as url,
        progress("json_list", lengths.rounds) as advance,
    ):
        names = [f"{way} {where}" for way in WAYS for where in ("application", "both")]
        worker = Worker(names, _open, (url, lengths.requests), uvloop.new_event_loop)
        measured = measure_in_turns([worker], lengths.rounds, advance)
    by_where = {
        where: {way: measured[f"{way} {where}"] for way in WAYS} for where in ("application", "both")
    }
    ratios = {
        where: Ratio.of(each["response_model"], each["json"]) for where, each in by_where.items()
    }
    return Result(
        "json_list",
        {"rows": ROWS, "rounds": lengths.rounds, "requests_per_round": lengths.requests},
        {
            f"{where}_us": {way: median(rounds, 1) for way, rounds in each.items()}
            for where, each in by_where.items()
        },
        {
            "application_us_over_json": ratios["application"].target(at_least=4.0),
            "both_us_over_json": ratios["both"].target(),
        },
        charts=("both_us",),
    )


@asynccontextmanager
async def _open(url: str, requests: int) -> AsyncIterator[Mapping[str, Turn]]:
    database = Database.from_url(url, environment="production", pool_size=1, max_overflow=0)
    app = FastAPI()
    install(app, database)

    @app.get("/response_model")
    async def response_model(reader: Reader) -> list[UserOut]:
        return await reader.all(users)  # type: ignore[return-value]  # FastAPI makes them

    @app.get("/json", response_model=list[UserOut])
    async def json(reader: Reader) -> JSONBytes:
        return JSONBytes(await reader.json(users_as_json))

    async with app.router.lifespan_context(app):
        pid = await database.reader.scalar(select(func.pg_backend_pid()))
        yield {
            f"{way} {where}": partial(_request_us, app, f"/{way}", requests, server)
            for way in WAYS
            for where, server in (("application", None), ("both", pid))
        }


async def _request_us(app: FastAPI, path: str, requests: int, server: int | None) -> float:
    gc.collect()
    begun = _cpu(server)
    for _ in range(requests):
        await _request(app, path)
    return (_cpu(server) - begun) / requests * 1e6


def _cpu(server: int | None) -> float:
    """Return the seconds that this process, and one of the server's, were on a core."""
    seconds = time.process_time()
    if server is not None:
        seconds += int(Path(f"/proc/{server}/schedstat").read_text().split()[0]) / 1e9
    return seconds


async def _request(app: FastAPI, path: str) -> None:
    scope: dict[str, Any] = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "GET",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "headers": [],
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 80),
        "scheme": "http",
        "root_path": "",
    }

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Any) -> None:
        if message["type"] == "http.response.start":
            assert message["status"] == 200

    await app(scope, receive, send)

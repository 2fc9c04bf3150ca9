"""What a list of a hundred rows costs by its response model, and as JSON that PostgreSQL writes."""

import gc
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
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
from pydantic import TypeAdapter
from sqlalchemy import func, select

from penstock import Database, query
from penstock.express import JsonQuery
from penstock.fastapi import JSONBytes, Reader, install

ROWS = 100
WAYS = ("response_model", "json")
COSTS = ("list_application", "list_both", "route_application", "route_both")
"""Of the list alone and of a request's whole route; of the application, and with PostgreSQL's."""
users = query(select(User).order_by(User.id).limit(ROWS))
users_as_json = JsonQuery(users, UserOut)
adapter = TypeAdapter(list[UserOut])


@dataclass(frozen=True)
class Lengths:
    """Rounds, and lists in each."""

    rounds: int
    lists: int


LONG = Lengths(rounds=60, lists=300)
SHORT = Lengths(rounds=2, lists=20)


def run(short: bool) -> Result:
    """Measure both ways, alone and as routes without an HTTP server, in turn, on uvloop.

    Args:
        short: Whether it is enough to see it work.

    Returns:
        Microseconds of CPU for each list; medians of the rounds, and their ratios.
    """
    lengths = SHORT if short else LONG
    with (
        roomy_server() as server,
        users_database(server) as url,
        progress("json_list", lengths.rounds) as advance,
    ):
        names = [f"{cost} {way}" for cost in COSTS for way in WAYS]
        worker = Worker(names, _open, (url, lengths.lists), uvloop.new_event_loop)
        measured = measure_in_turns([worker], lengths.rounds, advance)
    by_cost = {cost: {way: measured[f"{cost} {way}"] for way in WAYS} for cost in COSTS}
    ratios = {cost: Ratio.of(us["response_model"], us["json"]) for cost, us in by_cost.items()}
    return Result(
        "json_list",
        {"rows": ROWS, "rounds": lengths.rounds, "lists_per_round": lengths.lists},
        {
            f"{cost}_us": {way: median(rounds, 1) for way, rounds in us.items()}
            for cost, us in by_cost.items()
        },
        {
            f"{cost}_over_json": ratio.target(at_least=4.0 if cost == "list_application" else None)
            for cost, ratio in ratios.items()
        },
        charts=("list_both_us", "route_both_us"),
    )


@asynccontextmanager
async def _open(url: str, lists: int) -> AsyncIterator[Mapping[str, Turn]]:
    database = Database.from_url(url, environment="production", pool_size=1, max_overflow=0)
    app = _application(database)

    async def response_model() -> None:
        found = await database.reader.all(users)
        adapter.dump_json(adapter.validate_python(found, from_attributes=True), by_alias=True)

    async def json() -> None:
        await database.reader.json(users_as_json)

    async with app.router.lifespan_context(app):
        pid = await database.reader.scalar(select(func.pg_backend_pid()))
        actions: dict[str, Callable[[], Awaitable[None]]] = {
            "list response_model": response_model,
            "list json": json,
            **{f"route {way}": partial(_request, app, f"/{way}") for way in WAYS},
        }
        yield {
            name.replace(" ", f"_{where} "): partial(_list_us, action, lists, server)
            for name, action in actions.items()
            for where, server in (("application", None), ("both", pid))
        }


def _application(database: Database) -> FastAPI:
    app = FastAPI()
    install(app, database)

    @app.get("/response_model", response_model=list[UserOut])
    async def response_model(reader: Reader) -> Any:
        return await reader.all(users)

    @app.get("/json", response_model=list[UserOut])
    async def json(reader: Reader) -> JSONBytes:
        return JSONBytes(await reader.json(users_as_json))

    return app


async def _list_us(action: Callable[[], Awaitable[None]], lists: int, server: int | None) -> float:
    gc.collect()
    begun = _cpu(server)
    for _ in range(lists):
        await action()
    return (_cpu(server) - begun) / lists * 1e6


def _cpu(server: int | None) -> float:
    """Return the seconds that this process, and one of the server's, have run for."""
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
        if message.get("status", 200) != 200:
            raise RuntimeError(f"{path} answered {message}")

    await app(scope, receive, send)

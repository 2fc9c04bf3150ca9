"""What each layer between no database and the whole of Penstock costs a GET of one user."""

import asyncio
import gc
import os
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from itertools import pairwise
from statistics import quantiles
from typing import Any

import uvloop
from benchmarks.dataset import roomy_server, users_database
from benchmarks.http_load import CLIENTS
from benchmarks.progress import progress
from benchmarks.result import Figures, Result
from benchmarks.workers import Turn, Worker, measure_in_turns
from fastapi import FastAPI

LADDERS = (
    ("no_database", "middleware", "dependency", "checkout", "statement", "express"),
    ("middleware", "session", "orm"),
)
"""The routes of ``peers.waterfall``, each with one thing more than the one before."""
STEPS = tuple(dict.fromkeys(step for ladder in LADDERS for step in ladder))


@dataclass(frozen=True)
class Lengths:
    """Rounds, and requests of each step in each of them."""

    rounds: int
    requests: int


LONG = Lengths(rounds=60, requests=640)
SHORT = Lengths(rounds=2, requests=64)


def run(short: bool) -> Result:
    """Have each step serve 32 tasks in turn, in one process without an HTTP server.

    An HTTP server that has to wait for its client wakes up for fewer requests at a time, which
    costs each of them more than a step.

    Args:
        short: Whether it is enough to see it work.

    Returns:
        Microseconds of the process's CPU for a request, by step, and those that each adds to the
        one before: medians of the rounds, with their quartiles.
    """
    lengths = SHORT if short else LONG
    with (
        roomy_server() as server,
        users_database(server) as url,
        progress("waterfall", lengths.rounds) as advance,
    ):
        worker = Worker(STEPS, _open, (url, lengths.requests), uvloop.new_event_loop)
        measured = measure_in_turns([worker], lengths.rounds, advance)
    added = {
        step: [one - other for one, other in zip(measured[step], measured[below], strict=True)]
        for ladder in LADDERS
        for below, step in pairwise(ladder)
    }
    return Result(
        "waterfall",
        {"tasks": CLIENTS, "rounds": lengths.rounds, "requests_per_round": lengths.requests},
        {**_with_quartiles("request_us", measured), **_with_quartiles("added_us", added)},
        charts=("request_us",),
    )


def _with_quartiles(name: str, measured: Mapping[str, Sequence[float]]) -> Figures:
    figures = {
        step: [round(cut, 1) for cut in quantiles(each, method="inclusive")]
        for step, each in measured.items()
    }
    return {
        name: {step: middle for step, (_, middle, _) in figures.items()},
        f"{name}_range": {step: [lower, upper] for step, (lower, _, upper) in figures.items()},
    }


@asynccontextmanager
async def _open(url: str, requests: int) -> AsyncIterator[Mapping[str, Turn]]:
    os.environ |= {"DATABASE_URL": url, "ENVIRONMENT": "production"}
    steps: Mapping[str, FastAPI] = import_module("benchmarks.peers.waterfall").steps
    async with AsyncExitStack() as stack:
        for app in steps.values():
            await stack.enter_async_context(app.router.lifespan_context(app))
        yield {step: partial(_request_us, app, requests) for step, app in steps.items()}


async def _request_us(app: FastAPI, requests: int) -> float:
    gc.collect()
    begun = time.process_time()
    await asyncio.gather(*(_ask(app, requests // CLIENTS, task) for task in range(CLIENTS)))
    return (time.process_time() - begun) / requests * 1e6


async def _ask(app: FastAPI, requests: int, task: int) -> None:
    for number in range(1, requests + 1):
        path = f"/users/{number * CLIENTS + task}"
        scope = {"type": "http", "method": "GET", "path": path, "query_string": b"", "headers": []}
        await app(scope, _receive, _send)


async def _receive() -> Any:
    return {"type": "http.disconnect"}


async def _send(message: Any) -> None:
    if message.get("status", 200) != 200:
        raise RuntimeError(f"a step answered {message}")

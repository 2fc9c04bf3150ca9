"""Requests per second of one read and one write: Penstock's sessions against the tutorial's."""

import asyncio
from collections.abc import Callable
from contextlib import ExitStack
from random import Random
from typing import Any

from benchmarks.progress import progress
from benchmarks.result import Result, median
from benchmarks.service import serving
from tests.servers.postgres import PostgresServer, postgres_server

from penstock.load import Request, RequestKind, Scenario, run_closed_loop

__all__ = ["run"]

PEERS = ("tutorial", "sessions")
CLIENTS = 32
LONG = (5, 4.0)
SHORT = (1, 0.5)
READ = Scenario((RequestKind("read", 1, lambda _: Request("/users/1")),))
WRITE = Scenario((RequestKind("write", 1, lambda _: Request("/users", "POST", {"name": "ada"})),))
SCENARIOS = {"read": READ, "write": WRITE}


def run(short: bool) -> Result:
    """Measure both peers in turn, on one server.

    Args:
        short: Whether it is enough to see it work.

    Returns:
        Median requests per second by scenario and peer, and their ratios with the spread of the
        rounds. Its targets belong to a later change: until then it compares and decides nothing.
    """
    rounds, seconds = SHORT if short else LONG
    with (
        postgres_server() as server,
        ExitStack() as stack,
        progress("http_sessions", len(SCENARIOS) * rounds) as advance,
    ):
        urls = {peer: _serve(peer, server, stack) for peer in PEERS}
        figures = {
            f"{name}_requests_per_second": _measure(scenario, urls, rounds, seconds, advance)
            for name, scenario in SCENARIOS.items()
        }
    return Result(
        "http_sessions", {"clients": CLIENTS, "rounds": rounds, "seconds": seconds}, figures
    )


def _serve(peer: str, server: PostgresServer, stack: ExitStack) -> str:
    database_url = stack.enter_context(server.database())
    url = stack.enter_context(serving(f"benchmarks.peers.{peer}", database_url))
    _load(url, WRITE, 1.0)
    return url


def _measure(
    scenario: Scenario,
    urls: dict[str, str],
    rounds: int,
    seconds: float,
    advance: Callable[[], None],
) -> dict[str, Any]:
    turns: dict[str, list[float]] = {peer: [] for peer in urls}
    for _ in range(rounds):
        for peer, url in urls.items():
            turns[peer].append(_load(url, scenario, seconds))
        advance()
    ratios = [ours / theirs for ours, theirs in zip(*(turns[p] for p in PEERS[::-1]), strict=True)]
    return {
        **{peer: median(speeds, 0) for peer, speeds in turns.items()},
        "ratio": median(ratios, 2),
        "ratio_range": [round(min(ratios), 2), round(max(ratios), 2)],
    }


def _load(url: str, scenario: Scenario, seconds: float) -> float:
    result = asyncio.run(
        run_closed_loop(url, scenario, random=Random(1), clients=CLIENTS, seconds=seconds)  # noqa: S311 - load, no secret
    )
    if result.total.success_rate < 1.0:
        raise RuntimeError(f"{url} answered with errors: {dict(result.total.errors)}")
    return result.total.requests_per_second

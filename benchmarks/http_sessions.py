"""Requests per second of one read and one write: Penstock's sessions against the tutorial's."""

import asyncio
import statistics
from contextlib import ExitStack
from random import Random
from typing import Any

from benchmarks.service import serving
from tests.servers.postgres import PostgresServer, postgres_server

from penstock.load import Request, RequestKind, Scenario, run_closed_loop

__all__ = ["run"]

PEERS = ("tutorial", "sessions")
CLIENTS = 32
READ = Scenario((RequestKind("read", 1, lambda _: Request("/users/1")),))
WRITE = Scenario((RequestKind("write", 1, lambda _: Request("/users", "POST", {"name": "ada"})),))
SCENARIOS = {"read": READ, "write": WRITE}


def run(rounds: int, seconds: float) -> dict[str, Any]:
    """Measure both peers in turn, on one server.

    Args:
        rounds: How often each peer has its turn; the medians of the rounds are compared.
        seconds: Length of one turn.

    Returns:
        Median requests per second by scenario and peer, and their ratios with the spread of the
        rounds. It decides nothing: targets belong to the measures that have one.
    """
    with postgres_server() as server, ExitStack() as stack:
        urls = {peer: _serve(peer, server, stack) for peer in PEERS}
        figures = {
            name: _measure(scenario, urls, rounds, seconds) for name, scenario in SCENARIOS.items()
        }
    return {"clients": CLIENTS, "rounds": rounds, "seconds": seconds, "figures": figures}


def _serve(peer: str, server: PostgresServer, stack: ExitStack) -> str:
    database_url = stack.enter_context(server.database())
    url = stack.enter_context(serving(f"benchmarks.peers.{peer}", database_url))
    _load(url, WRITE, 1.0)
    return url


def _measure(
    scenario: Scenario, urls: dict[str, str], rounds: int, seconds: float
) -> dict[str, Any]:
    turns: dict[str, list[float]] = {peer: [] for peer in urls}
    for _ in range(rounds):
        for peer, url in urls.items():
            turns[peer].append(_load(url, scenario, seconds))
    ratios = [ours / theirs for ours, theirs in zip(*(turns[p] for p in PEERS[::-1]), strict=True)]
    return {
        "requests_per_second": {p: round(statistics.median(t)) for p, t in turns.items()},
        "ratio": round(statistics.median(ratios), 2),
        "ratio_range": [round(min(ratios), 2), round(max(ratios), 2)],
    }


def _load(url: str, scenario: Scenario, seconds: float) -> float:
    result = asyncio.run(
        run_closed_loop(url, scenario, random=Random(1), clients=CLIENTS, seconds=seconds)  # noqa: S311 - load, no secret
    )
    if result.total.success_rate < 1.0:
        raise RuntimeError(f"{url} answered with errors: {dict(result.total.errors)}")
    return result.total.requests_per_second

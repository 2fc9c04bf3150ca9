"""Latency where the database is a millisecond away, at a rate that every peer can serve."""

import statistics
import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import psycopg
from benchmarks.contest import Contest, Lengths, contest
from benchmarks.dataset import roomy_server, users_database
from benchmarks.delay_proxy import delayed
from benchmarks.http_read import BY_HAND, PEERS, READ
from benchmarks.http_write import WRITE
from benchmarks.progress import progress
from benchmarks.result import Figures, Result
from sqlalchemy import make_url

AWAY = 0.001
"""Seconds that each direction takes longer."""
ARRIVALS = 100.0
"""Per second: a request of the slowest peer would have to cost 10 ms of CPU to be too many."""
NAMES = ("tutorial", *BY_HAND, "sessions", "express_orm", "express")
SHORT_NAMES = ("tutorial", "asyncpg_by_hand", "asyncpg_without_reset_gc", "sessions", "express")
TRAFFICS = {"read": replace(READ, rate=ARRIVALS), "write": replace(WRITE, rate=ARRIVALS)}
LONG = Lengths(generations=2, rounds=2, seconds=4.0, warm_up=1.0)
SHORT = Lengths(generations=1, rounds=1, seconds=0.1, warm_up=0.0)
TRIPS = 50


def run(short: bool) -> Result:
    """Measure peers in turn, before their database a proxy of our own.

    Args:
        short: Whether it is enough to see it work.

    Returns:
        By kind of request and peer the medians of p50 and p99 from when a request was due, with the
        spread of the rounds, and the share of a core that the server used.
    """
    lengths = SHORT if short else LONG
    peers = {name: PEERS[name] for name in (SHORT_NAMES if short else NAMES)}
    with (
        roomy_server() as server,
        users_database(server) as url,
        delayed(server.host, server.port, AWAY) as port,
        progress("rtt", lengths.turns(len(peers), len(TRAFFICS))) as advance,
    ):
        distant = make_url(url).set(host="127.0.0.1", port=port).render_as_string(False)
        added = _round_trip_ms(distant) - _round_trip_ms(url)
        measured = contest(peers, TRAFFICS, lengths, distant, advance)
    latencies = ("read_p50_ms", "read_p99_ms", "write_p50_ms", "write_p99_ms")
    return Result(
        "rtt",
        {
            "added_ms_each_way": AWAY * 1000,
            "measured_round_trip_adds_ms": round(added, 2),
            "arrivals_per_second": ARRIVALS,
            "rounds": lengths.turns(1),
            "seconds": lengths.seconds,
            "driver_share_at_most": max(each.busiest_driver() for each in measured.values()),
        },
        _figures(measured),
        charts=latencies,
    )


def _figures(measured: Mapping[str, Contest]) -> Figures:
    figures: dict[str, dict[str, Any]] = {}
    for kind, each in measured.items():
        for latency in ("p50_ms", "p99_ms"):
            figures[f"{kind}_{latency}"] = each.medians(latency, 2)
            figures[f"{kind}_{latency}_range"] = each.ranges(latency, 2)
        figures[f"{kind}_server_share"] = each.medians("server_share", 2)
    return figures


def _round_trip_ms(url: str) -> float:
    """Return the median of some round trips, one after the other."""
    with psycopg.connect(url.replace("+asyncpg", ""), autocommit=True) as connection:
        took = []
        for _ in range(TRIPS):
            begun = time.perf_counter()
            connection.execute("SELECT 1")
            took.append((time.perf_counter() - begun) * 1000)
    return statistics.median(took)

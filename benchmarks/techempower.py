"""TechEmpower's six tests: the tutorial, asyncpg by hand, and Penstock's express lane."""

from collections.abc import Mapping
from typing import Any

from benchmarks.contest import RATE, Contest, Lengths, contest
from benchmarks.dataset import roomy_server, worlds_database
from benchmarks.http_load import CLIENTS, Traffic
from benchmarks.http_read import FAIR
from benchmarks.progress import progress
from benchmarks.result import Figures, Result
from benchmarks.service import Peer

NAMES = ("tutorial", "asyncpg_by_hand", "asyncpg_without_reset", "express")
PEERS = {name: Peer(f"techempower.{name}") for name in NAMES}
TUNED = {name: Peer(f"techempower.{name}", tune_gc="all") for name in NAMES}
COUNTS = (1, 5, 10, 15, 20)
TRAFFICS = {
    "json": Traffic("/json"),
    "plaintext": Traffic("/plaintext"),
    "db": Traffic("/db"),
    **{f"queries_{count}": Traffic(f"/queries?queries={count}") for count in COUNTS},
    "fortunes": Traffic("/fortunes"),
    **{f"updates_{count}": Traffic(f"/updates?queries={count}") for count in COUNTS},
}
SHORT_TRAFFICS = {test: TRAFFICS[test] for test in ("db", "queries_20", "fortunes", "updates_20")}
LONG = Lengths(generations=1, rounds=3, seconds=1.0, warm_up=0.5)
SHORT = Lengths(generations=1, rounds=1, seconds=0.1, warm_up=0.05)


def run(short: bool) -> Result:
    """Measure every test on the three peers in turn.

    Args:
        short: Whether it is enough to see it work.

    Returns:
        Medians of requests per second by test and peer, and how many times the others' rate that
        of the express lane is, with the spread of the rounds; no targets.
    """
    lengths, traffics = (SHORT, SHORT_TRAFFICS) if short else (LONG, TRAFFICS)
    with (
        roomy_server() as server,
        worlds_database(server) as url,
        progress("techempower", 2 * lengths.turns(len(PEERS), len(traffics))) as advance,
    ):
        measured = contest(PEERS, traffics, lengths, url, advance)
        fair = contest(TUNED, traffics, lengths, url, advance)
    return Result(
        "techempower",
        {"clients": CLIENTS, "rounds": lengths.turns(1), "seconds": lengths.seconds},
        _rates(measured),
        beside={
            "express, times": _ratios(measured),
            f"express, times, {FAIR}": _ratios(fair),
            "p99 in ms": _latencies(measured),
        },
        charts=tuple(traffics),
    )


def _rates(measured: Mapping[str, Contest]) -> Figures:
    figures: dict[str, dict[str, Any]] = {}
    for test, each in measured.items():
        rates = each.figures("tutorial")
        figures[test] = dict(rates[RATE])
        figures[f"{test}_range"] = dict(rates[f"{RATE}_range"])
    return figures


def _ratios(measured: Mapping[str, Contest]) -> Figures:
    figures: dict[str, dict[str, Any]] = {}
    for test, each in measured.items():
        ratios = {peer: each.ratio("express", peer) for peer in PEERS if peer != "express"}
        figures[test] = {peer: ratio.median for peer, ratio in ratios.items()}
        figures[test]["fastest"] = max(PEERS, key=lambda peer: each.median(peer, RATE, 0) or 0)
        figures[f"{test}_range"] = {peer: list(ratio.spread) for peer, ratio in ratios.items()}
    return figures


def _latencies(measured: Mapping[str, Contest]) -> Figures:
    return {
        test: {peer: each.median(peer, "p99_ms", 2) for peer in PEERS}
        for test, each in measured.items()
    }

"""Requests per second by how many ask at once: batches, lone reads, and the best routes by hand."""

from collections.abc import Mapping
from dataclasses import replace

from benchmarks.contest import RATE, Contest, Lengths, contest
from benchmarks.dataset import roomy_server, users_database
from benchmarks.http_load import CLIENTS
from benchmarks.http_read import PEERS, READ, SHORT
from benchmarks.progress import progress
from benchmarks.result import Figures, Result, Target
from benchmarks.service import Peer

BY_HAND = ("asyncpg_by_hand_gc", "asyncpg_without_reset_gc")
TAKING_PART = {
    **{name: PEERS[name] for name in (*BY_HAND, "express", "no_database_gc")},
    "express_alone": Peer("express", environment={"DATABASE_BATCH_READS": "false"}),
}
FEW, MANY = (1, 2, 4), (8, CLIENTS, 128)
LONG = Lengths(generations=2, rounds=3, seconds=1.5, warm_up=1.0)
LEAST = {1: 0.97, 2: 0.97, 4: 0.97, CLIENTS: 1.5}
"""By clients, how many times the best route by hand the express lane has to be."""


def run(short: bool) -> Result:
    """Measure the peers in turn, with few clients and with many.

    Args:
        short: Whether it is enough to see it work.

    Returns:
        By number of clients and peer the medians of requests per second, latency and CPU, and how
        many times the rate of the best route by hand each one's is.
    """
    lengths, numbers = (SHORT, (1, CLIENTS)) if short else (LONG, (*FEW, *MANY))
    traffics = {f"{number} clients": replace(READ, clients=number) for number in numbers}
    turns = lengths.turns(len(TAKING_PART), len(traffics))
    with (
        roomy_server() as server,
        users_database(server) as url,
        progress("batching", turns) as advance,
    ):
        measured = contest(TAKING_PART, traffics, lengths, url, advance)
    by_number = dict(zip(numbers, measured.values(), strict=True))
    others = {n: each for n, each in by_number.items() if n != CLIENTS}
    return Result(
        "batching",
        {"clients": CLIENTS, "rounds": lengths.turns(1), "seconds": lengths.seconds},
        _figures(by_number[CLIENTS]),
        _targets(by_number),
        {f"with {number} clients": _figures(each) for number, each in others.items()},
        (RATE, "p99_ms"),
    )


def _figures(each: Contest) -> Figures:
    return each.figures("no_database_gc", best_by_hand=each.fastest(BY_HAND))


def _targets(measured: Mapping[int, Contest]) -> dict[str, Target]:
    targets = {
        f"times_best_by_hand_{number}": each.target(
            "express", each.fastest(BY_HAND), at_least=LEAST[number]
        )
        for number, each in measured.items()
        if number in LEAST
    }
    crowd = measured[CLIENTS]
    best = crowd.fastest(BY_HAND)
    return {
        **targets,
        "p99_over_best_by_hand_32": crowd.target("express", best, "p99_ms", at_most=1.0),
        "no_database_cpu_over_express_32": crowd.target(
            "no_database_gc", "express", "server_us", at_least=0.75
        ),
    }

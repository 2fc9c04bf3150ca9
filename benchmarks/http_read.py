"""Requests per second of GET one user, on every way to write the service."""

from collections.abc import Callable, Mapping

from benchmarks.contest import RATE, Contest, Lengths, contest
from benchmarks.dataset import roomy_server, users_database
from benchmarks.http_load import CLIENTS, Traffic
from benchmarks.progress import progress
from benchmarks.result import Result, Target
from benchmarks.service import Peer

ROUTES = (
    "tutorial",
    "advanced_alchemy",
    "psycopg_pool",
    "asyncpg_by_hand",
    "asyncpg_without_reset",
    "sessions",
    "express_orm",
    "express",
    "no_database",
)
TUNED = ("tutorial", "asyncpg_by_hand", "asyncpg_without_reset", "no_database")
"""Those that take part a second time, with Penstock's setting of the garbage collector."""
PEERS = {
    **{route: Peer(route) for route in ROUTES},
    **{f"{route}_gc": Peer(route, tune_gc="all") for route in TUNED},
}
BY_HAND = (
    "psycopg_pool",
    "asyncpg_by_hand",
    "asyncpg_by_hand_gc",
    "asyncpg_without_reset",
    "asyncpg_without_reset_gc",
)
RIVALS = ("tutorial", "asyncpg_without_reset", "asyncpg_without_reset_gc", "sessions", "express")
"""Enough to see it work."""
READ = Traffic("/users/ID")
LONG = Lengths(generations=2, rounds=3, seconds=2.0, warm_up=1.0)
SHORT = Lengths(generations=1, rounds=1, seconds=0.3, warm_up=0.2)

Targets = Callable[[Contest, str], Mapping[str, Target]]
"""Says what the figures have to be, given which peer is the best by hand."""


def run(short: bool) -> Result:
    """Measure all peers in turn, on one database of ten thousand users.

    Args:
        short: Whether it is enough to see it work.

    Returns:
        As :func:`compare`.
    """
    peers = (*RIVALS, "express_orm", "no_database_gc") if short else tuple(PEERS)
    return compare("http_read", READ, peers, SHORT if short else LONG, _targets)


def compare(
    name: str, traffic: Traffic, peers: tuple[str, ...], lengths: Lengths, targets: Targets
) -> Result:
    """Measure peers in turn, on one database.

    Args:
        name: The benchmark's.
        traffic: What they are asked for.
        peers: Some of ``PEERS``.
        lengths: How long, and how often.
        targets: What their figures have to be.

    Returns:
        Medians of requests per second, latency and CPU by peer; and how many times the rate of the
        tutorial, of the express lane and of the best peer by hand each one's is, with the spread of
        the rounds.
    """
    with (
        roomy_server() as server,
        users_database(server) as url,
        progress(name, lengths.turns(len(peers))) as advance,
    ):
        taking_part = {peer: PEERS[peer] for peer in peers}
        measured = contest(taking_part, {name: traffic}, lengths, url, advance)[name]
    best = measured.fastest(peer for peer in BY_HAND if peer in peers)
    return Result(
        name,
        {
            "clients": CLIENTS,
            "rounds": lengths.turns(1),
            "seconds": lengths.seconds,
            "driver_share_at_most": measured.busiest_driver(),
            "best_by_hand": best,
        },
        measured.figures("tutorial", "express", best_by_hand=best),
        targets(measured, best),
        charts=(RATE, "p99_ms"),
    )


def _targets(read: Contest, best: str) -> dict[str, Target]:
    return {
        "express_times_tutorial": read.target("express", "tutorial", at_least=6.0),
        "express_orm_times_tutorial": read.target("express_orm", "tutorial", at_least=5.0),
        "express_times_best_by_hand": read.target("express", best, at_least=1.5),
        "no_database_cpu_over_express": read.target(
            "no_database_gc", "express", "server_us", at_least=0.75
        ),
        "sessions_times_tutorial": read.target("sessions", "tutorial", at_least=1.8),
        "express_p99_over_tutorial": read.target("express", "tutorial", "p99_ms", at_most=0.25),
    }

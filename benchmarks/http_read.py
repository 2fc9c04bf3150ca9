"""Requests per second of GET one user, on every way to write the service."""

from benchmarks.contest import RATE, Contest, Lengths, contest
from benchmarks.dataset import roomy_server, users_database
from benchmarks.http_load import CLIENTS, Traffic
from benchmarks.progress import progress
from benchmarks.result import Result, Target
from benchmarks.service import Peer

PEERS = (
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
RIVALS = ("tutorial", "asyncpg_by_hand", "asyncpg_without_reset", "sessions", "express")
"""Enough to see it work."""
FAIR = "with the gc setting for everybody"
READ = {"read": Traffic("/users/ID")}
LONG = Lengths(generations=2, rounds=3, seconds=2.0, warm_up=1.0)
LONG_BESIDE = Lengths(generations=1, rounds=4, seconds=2.0, warm_up=1.0)
SHORT = Lengths(generations=1, rounds=1, seconds=0.3, warm_up=0.2)


def run(short: bool) -> Result:
    """Measure all peers in turn, on one database of ten thousand users.

    Args:
        short: Whether it is enough to see it work.

    Returns:
        Medians of requests per second, latency and CPU by peer, and their ratios with the spread
        of the rounds; beside them the same with Penstock's setting of the garbage collector for
        everybody.
    """
    lengths, beside = (SHORT, SHORT) if short else (LONG, LONG_BESIDE)
    peers = {name: Peer(name) for name in PEERS}
    tuned = {name: Peer(name, tune_gc="all") for name in (RIVALS if short else PEERS)}
    with (
        roomy_server() as server,
        users_database(server) as url,
        progress("http_read", lengths.turns(len(peers)) + beside.turns(len(tuned))) as advance,
    ):
        stock = contest(peers, READ, lengths, url, advance)["read"]
        fair = contest(tuned, READ, beside, url, advance)["read"]
    return Result(
        "http_read",
        {
            "clients": CLIENTS,
            "rounds": lengths.turns(1),
            "seconds": lengths.seconds,
            "driver_share_at_most": max(stock.busiest_driver(), fair.busiest_driver()),
        },
        stock.figures("tutorial", "express"),
        _targets(stock),
        {FAIR: fair.figures("tutorial", "express")},
        (RATE, "p99_ms"),
    )


def _targets(read: Contest) -> dict[str, Target]:
    return {
        "express_times_tutorial": read.target("express", "tutorial", at_least=6.0),
        "express_orm_times_tutorial": read.target("express_orm", "tutorial", at_least=5.0),
        "express_times_asyncpg_by_hand": read.target("express", "asyncpg_by_hand", at_least=1.1),
        "express_times_no_database": read.target("express", "no_database", at_least=0.65),
        "sessions_times_tutorial": read.target("sessions", "tutorial", at_least=1.8),
        "express_p99_over_tutorial": read.target("express", "tutorial", "p99_ms", at_most=0.25),
    }

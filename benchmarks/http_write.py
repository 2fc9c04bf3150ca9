"""Requests per second of POST one user, on every way to write the service."""

from benchmarks.contest import RATE, Lengths, contest
from benchmarks.dataset import roomy_server, users_database
from benchmarks.http_load import CLIENTS, Traffic
from benchmarks.http_read import FAIR, LONG_BESIDE, PEERS, RIVALS
from benchmarks.progress import progress
from benchmarks.result import Result
from benchmarks.service import Peer

BODY = '{"email": "NEW@example.com", "username": "NEW"}'
WRITE = {"write": Traffic("/users", "POST", BODY)}
LONG = Lengths(generations=2, rounds=2, seconds=2.0, warm_up=1.0)
SHORT = Lengths(generations=1, rounds=1, seconds=0.3, warm_up=0.2)


def run(short: bool) -> Result:
    """Measure all peers in turn, on one database.

    Args:
        short: Whether it is enough to see it work.

    Returns:
        Medians of requests per second, latency and CPU by peer, and their ratios with the spread
        of the rounds; beside them the same with Penstock's setting of the garbage collector for
        everybody.
    """
    lengths, beside = (SHORT, SHORT) if short else (LONG, LONG_BESIDE)
    names = RIVALS if short else PEERS
    peers = {name: Peer(name) for name in names}
    tuned = {name: Peer(name, tune_gc="all") for name in names}
    with (
        roomy_server() as server,
        users_database(server) as url,
        progress("http_write", lengths.turns(len(peers)) + beside.turns(len(tuned))) as advance,
    ):
        write = contest(peers, WRITE, lengths, url, advance)["write"]
        fair = contest(tuned, WRITE, beside, url, advance)["write"]
    return Result(
        "http_write",
        {
            "clients": CLIENTS,
            "rounds": lengths.turns(1),
            "seconds": lengths.seconds,
            "driver_share_at_most": max(write.busiest_driver(), fair.busiest_driver()),
        },
        write.figures("tutorial", "express"),
        {
            "sessions_times_tutorial": write.target("sessions", "tutorial", at_least=2.0),
            "express_times_tutorial": write.target("express", "tutorial", at_least=4.0),
        },
        {FAIR: fair.figures("tutorial", "express")},
        (RATE, "p99_ms"),
    )

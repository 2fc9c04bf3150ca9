"""Requests per second of POST one user, on every way to write the service."""

from benchmarks.contest import Contest, Lengths
from benchmarks.http_load import Traffic
from benchmarks.http_read import PEERS, RIVALS, SHORT, compare
from benchmarks.result import Result, Target

WRITE = Traffic("/users", "POST", '{"email": "NEW@example.com", "username": "NEW"}')
LONG = Lengths(generations=2, rounds=2, seconds=2.0, warm_up=1.0)


def run(short: bool) -> Result:
    """Measure all peers in turn, on one database.

    Args:
        short: Whether it is enough to see it work.

    Returns:
        As :func:`benchmarks.http_read.compare`.
    """
    peers = RIVALS if short else tuple(PEERS)
    return compare("http_write", WRITE, peers, SHORT if short else LONG, _targets)


def _targets(write: Contest, best: str) -> dict[str, Target]:
    return {
        "sessions_times_tutorial": write.target("sessions", "tutorial", at_least=2.2),
        "express_times_tutorial": write.target("express", "tutorial", at_least=4.0),
        "express_times_best_by_hand": write.target("express", best, at_least=1.0),
    }

"""What Penstock's setting of Python's garbage collector does for a service."""

from benchmarks.contest import RATE, Lengths, contest
from benchmarks.dataset import roomy_server, users_database
from benchmarks.http_load import CLIENTS
from benchmarks.http_read import READ
from benchmarks.progress import progress
from benchmarks.result import Result
from benchmarks.service import Peer

PEERS = {"tune_gc_off": Peer("express", tune_gc="off"), "tune_gc_on": Peer("express")}
LONG = Lengths(generations=3, rounds=2, seconds=2.0, warm_up=1.0)
SHORT = Lengths(generations=1, rounds=1, seconds=0.3, warm_up=0.2)


def run(short: bool) -> Result:
    """Measure the express route with ``install(..., tune_gc=...)`` on and off, in turn.

    Args:
        short: Whether it is enough to see it work.

    Returns:
        Medians of requests per second, latency and CPU, and their ratios; no targets.
    """
    lengths = SHORT if short else LONG
    with (
        roomy_server() as server,
        users_database(server) as url,
        progress("gc", lengths.turns(len(PEERS))) as advance,
    ):
        read = contest(PEERS, {"read": READ}, lengths, url, advance)["read"]
    conditions = {"clients": CLIENTS, "rounds": lengths.turns(1), "seconds": lengths.seconds}
    figures = read.figures("tune_gc_off")
    return Result("gc", conditions, figures, charts=(RATE, "p99_ms"))

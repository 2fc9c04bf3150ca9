"""The whole of it, measured: ``python -m tests.integration.fleet.measure``.

Twelve workers against ``max_connections = 40`` join one a second under load, and three of them are
killed. At the same time, so that whatever else the machine does is the same for both, another
server has the same load on the best split that is fixed beforehand.
"""

import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.integration.fleet.processes import Workers, workers_on
from tests.servers.postgres import own_postgres, postgres_programs

BUDGET = 26
"""Of 40 - 3, with a quarter kept in reserve, less the connection that counts."""
MEASURED = 15.0


def said(text: str) -> None:
    """Write a line with the time."""
    sys.stdout.write(f"{time.strftime('%X')} {text}\n")
    sys.stdout.flush()


def within_budget(workers: Workers) -> None:
    """Count for five seconds."""
    most = workers.most_open(5.0)
    said(f"{len(workers.alive)} members, open at most in the next 5 s: {most} of {BUDGET}")
    assert most <= BUDGET


def join(workers: Workers, seconds: float) -> None:
    """Have twelve join, one a second."""
    for number in range(1, 13):
        workers.start(seconds, fleet=True)
        said(f"{number} started, {workers.most_open(1.0)} open at most")
    workers.wait_for_reports()
    said(f"{workers.most_open(5.0)} open at most")


def start_fixed(workers: Workers, seconds: float, count: int, size: int) -> None:
    """Start a fleet whose split was fixed beforehand."""
    settings: dict[str, Any] = {"pool_size": size, "max_overflow": 0, "budget": "off"}
    for _ in range(count):
        workers.start(seconds, **settings)
    workers.wait_for_reports()


def compare(fleet: Workers, fixed: Workers) -> None:
    """Print the requests per second of both, in the same seconds."""
    before = [fleet.done(), fixed.done()]
    time.sleep(MEASURED)
    ours, theirs = map(_rate, before, [fleet.done(), fixed.done()])
    shares = sorted(int(each.split()[0]) for each in fleet.shares())
    said(f"{len(fleet.alive)} members with {shares}: {ours:.0f} requests/s")
    said(f"fixed, with {fixed.open()} connections: {theirs:.0f} requests/s")
    said(f"{ours / theirs:.2f} of the fixed split's requests/s")


def _rate(before: list[tuple[float, float]], after: list[tuple[float, float]]) -> float:
    pairs = zip(before, after, strict=True)
    return sum((done - had_done) / (at - began) for (had_done, began), (done, at) in pairs)


def main(seconds: float) -> None:
    """Measure, and print what comes of it.

    Args:
        seconds: For which the server holds each connection.
    """
    with fleets() as (fleet, fixed):
        start_fixed(fixed, seconds, 12, 2)
        join(fleet, seconds)
        within_budget(fleet)
        compare(fleet, fixed)
        for _ in range(3):
            fleet.kill(fleet.alive[0])
            said(f"one killed, {fleet.most_open(1.0)} open at most")
        fixed.end()
        start_fixed(fixed, seconds, 9, 3)
        said(f"{fleet.most_open(5.0)} open at most")
        within_budget(fleet)
        compare(fleet, fixed)
        fleet.end()
        longest = max(each.reports()[-1]["longest"] for each in fleet.all)
        said(f"errors that reached a request: {fleet.errors()}; the longest took {longest:.3f} s")
        assert not fleet.errors()


@contextmanager
def fleets() -> Iterator[tuple[Workers, Workers]]:
    """Two servers that accept 40 connections each, without workers yet."""
    programs = postgres_programs()
    assert programs is not None
    limit = {"max_connections": "40"}
    with (
        own_postgres(programs, limit) as one,
        own_postgres(programs, limit) as other,
        tempfile.TemporaryDirectory() as first,
        tempfile.TemporaryDirectory() as second,
        workers_on(one, Path(first)) as fleet,
        workers_on(other, Path(second)) as fixed,
    ):
        yield fleet, fixed


if __name__ == "__main__":
    main(float(sys.argv[1]) if len(sys.argv) > 1 else 0.02)

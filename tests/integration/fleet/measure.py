"""The whole of it, measured: ``python -m tests.integration.fleet.measure``.

Twelve workers against ``max_connections = 40`` join one a second under load, and three of them are
killed. Then the same load on the best split that is fixed beforehand.
"""

import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.integration.fleet.processes import Workers, workers_on
from tests.servers.postgres import PostgresServer, own_postgres, postgres_programs

BUDGET = 26
"""Of 40 - 3, with a quarter kept in reserve, less the connection that counts."""
MEASURED = 10.0


def within_budget(workers: Workers) -> None:
    most = workers.most_open(5.0)
    said(f"{len(workers.alive)} members, open at most in the next 5 s: {most} of {BUDGET}")
    assert most <= BUDGET


def said(text: str) -> None:
    sys.stdout.write(f"{time.strftime('%X')} {text}\n")
    sys.stdout.flush()


def shares(workers: Workers) -> list[int]:
    return sorted(int(each.split()[0]) for each in workers.shares())


def fleet(workers: Workers, seconds: float) -> list[float]:
    for number in range(1, 13):
        workers.start(seconds, fleet=True)
        said(f"{number} started, {workers.most_open(1.0)} open at most")
    workers.wait_for_reports()
    for _ in range(2):
        said(f"{workers.most_open(2.5)} open at most, {workers.open()} now")
    within_budget(workers)
    found = [workers.throughput(MEASURED)]
    said(f"12 members: {found[0]:.0f} requests/s; shares {shares(workers)}")
    for _ in range(3):
        workers.kill(workers.alive[0])
        said(f"one killed, {workers.most_open(1.0)} open at most")
    said(f"{workers.most_open(5.0)} open at most")
    within_budget(workers)
    found.append(workers.throughput(MEASURED))
    said(f"9 members: {found[1]:.0f} requests/s; shares {shares(workers)}")
    workers.end()
    said(f"errors that reached a request: {workers.errors()}")
    assert not workers.errors()
    said(f"longest request: {max(each.reports()[-1]['longest'] for each in workers.all):.3f} s")
    return found


def fixed(workers: Workers, seconds: float, count: int, size: int) -> float:
    settings: dict[str, Any] = {"pool_size": size, "max_overflow": 0, "budget": "off"}
    for _ in range(count):
        workers.start(seconds, **settings)
    workers.wait_for_reports()
    time.sleep(2)
    found = workers.throughput(MEASURED)
    said(f"{count} x {size} connections, fixed: {found:.0f} requests/s, {workers.open()} open")
    workers.end()
    return found


def main(seconds: float) -> None:
    """Measure, and print what comes of it."""
    programs = postgres_programs()
    assert programs is not None
    with own_postgres(programs, {"max_connections": "40"}) as server:
        found = _on(server, lambda workers: fleet(workers, seconds))
        split = _on(server, lambda workers: [fixed(workers, seconds, 12, 2)])
        split += _on(server, lambda workers: [fixed(workers, seconds, 9, 3)])
    for count, ours, theirs in zip((12, 9), found, split, strict=True):
        said(f"{count} members: {ours / theirs:.2f} of the fixed split's requests/s")


def _on(server: PostgresServer, run: Callable[[Workers], list[float]]) -> list[float]:
    with (
        tempfile.TemporaryDirectory() as directory,
        workers_on(server, Path(directory)) as workers,
    ):
        return run(workers)


if __name__ == "__main__":
    main(float(sys.argv[1]) if len(sys.argv) > 1 else 0.005)

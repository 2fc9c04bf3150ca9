"""Real processes that join under load and are killed: ``measure.py`` has the longer version."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.integration.fleet.processes import Workers, workers_on
from tests.servers.parts import require_part
from tests.servers.postgres import own_postgres, postgres_programs

pytestmark = [pytest.mark.server, pytest.mark.slow]

BUDGET = 11
"""Of 20 - 3, with a quarter kept in reserve, less the test's own connection."""
SETTLED_AFTER = 5.0


@pytest.fixture
def workers(tmp_path: Path) -> Iterator[Workers]:
    programs = postgres_programs()
    require_part("PostgreSQL", present=programs, remedy="set TEST_POSTGRES_BIN")
    assert programs is not None
    with (
        own_postgres(programs, {"max_connections": "20"}) as server,
        workers_on(server, tmp_path) as workers,
    ):
        yield workers


def join(workers: Workers, count: int) -> None:
    for _ in range(count):
        workers.start(0.02, fleet=True)
        time.sleep(0.5)
    workers.wait_for_reports()


def settled(workers: Workers) -> None:
    time.sleep(SETTLED_AFTER)
    most = workers.most_open(3.0)
    assert len(workers.alive) <= most <= BUDGET


def shares(workers: Workers) -> list[int]:
    return sorted(int(each.split()[0]) for each in workers.shares())


def wait_for_shares(workers: Workers, expected: list[int]) -> None:
    """Wait until each has its share, and has as many connections open as that."""
    ends_at = time.monotonic() + 30
    while shares(workers) != expected or workers.open() != sum(expected):
        assert time.monotonic() < ends_at, workers.shares()
        time.sleep(0.1)


def test_workers_that_join_under_load_and_are_killed_stay_within_the_budget(
    workers: Workers,
) -> None:
    join(workers, 2)
    wait_for_shares(workers, [5, 5])

    join(workers, 4)
    settled(workers)
    wait_for_shares(workers, [1, 1, 2, 2, 2, 2])

    for _ in range(2):
        workers.kill(workers.alive[0])
    settled(workers)
    wait_for_shares(workers, [2, 2, 3, 3])

    assert all(each.reports()[-1]["done"] > 0 for each in workers.all)
    workers.end()
    assert workers.errors() == []
    assert workers.most_open(0.1) == 0

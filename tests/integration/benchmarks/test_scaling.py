"""Who runs on which cores while workers are compared."""

import os
import subprocess
import sys

import pytest
from benchmarks import scaling
from benchmarks.service import on_cores

pytestmark = pytest.mark.skipif(
    not hasattr(os, "sched_getaffinity"), reason="cores are chosen on Linux alone"
)
AFFINITY = "import os; print(*os.sched_getaffinity(0))"


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 64])
def test_nobody_shares_a_core_where_there_are_four(
    monkeypatch: pytest.MonkeyPatch, count: int, threads: int
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(10, 10 + count * threads)))
    monkeypatch.setattr(scaling, "threads_of", lambda processor: str(processor // threads))

    placed = scaling.cores()

    everybody = [*placed.workers, placed.database, placed.driver]
    taken = [core for each in everybody for core in each]
    assert placed.are_apart == all(everybody) == (count >= 4)
    assert sorted(taken) == (list(range(10, 10 + count * threads, threads)) if count >= 4 else [])


def test_each_core_of_this_machine_counts_once() -> None:
    found = scaling.physical_cores()

    assert 0 < len(found) <= len(os.sched_getaffinity(0))
    assert len({scaling.threads_of(processor) for processor in found}) == len(found)


def test_what_is_started_within_the_block_runs_on_its_cores() -> None:
    before = os.sched_getaffinity(0)
    core = max(before)

    with on_cores({core}):
        started = subprocess.check_output([sys.executable, "-c", AFFINITY], text=True)
    with on_cores(()):
        assert os.sched_getaffinity(0) == before

    assert started.split() == [str(core)]

"""By how much routes and statements grew: totals kept every 30 s in the worker's file, and read."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from penstock.pool import PoolSnapshot
from penstock.telemetry import Reading, WorkerReading
from penstock.telemetry.layout import CHECKPOINTS, LAYOUT, OTHER_ROUTES, ROUTES
from penstock.telemetry.reading import CHECKPOINT_SECONDS, Checkpoint
from penstock.telemetry.recorder import Recorder
from penstock.telemetry.schema import Sample
from penstock.telemetry.worker_file import UnusableFileError, WorkerFile, WorkerReader

BEGIN = 30 * 60_000_000.0
"""Unix time of a checkpoint, after the start of the file below by decades."""


class Worker:
    """A worker's file, written as by its service."""

    def __init__(self, directory: Path) -> None:
        self.file = WorkerFile.create(directory, "default")
        self.recorder = Recorder(self.file)
        self.reader = WorkerReader(self.file.path)

    def lease(self, route: str, seconds: float) -> None:
        row = self.recorder._routes[route,]
        self.file.numbers[row] += 1.0
        self.file.numbers[row + 1] += seconds

    def sample(self, at: float) -> None:
        self.recorder.sample(PoolSnapshot(1, 1, 0, 0, 0), 0, 0.0, 0.0, at)

    def read(self) -> WorkerReading:
        return self.reader.read()


@pytest.fixture
def worker(tmp_path: Path) -> Iterator[Worker]:
    worker = Worker(tmp_path)
    yield worker
    worker.file.close()


def test_totals_are_kept_at_full_half_minutes(worker: Worker) -> None:
    worker.lease("GET /a", 0.5)
    worker.sample(BEGIN + 0.2)
    worker.lease("GET /a", 0.25)
    worker.recorder.slow("SELECT ?", "GET /a", 2.0, 7)
    worker.sample(BEGIN + 1.1)
    worker.sample(BEGIN + 30.4)

    assert worker.read().checkpoints == (
        Checkpoint(BEGIN, {"GET /a": (1.0, 0.5)}, {}),
        Checkpoint(BEGIN + 30, {"GET /a": (2.0, 0.75)}, {("SELECT ?", "GET /a"): (1.0, 2.0)}),
    )


def test_a_checkpoint_that_was_read_is_not_read_again(worker: Worker) -> None:
    worker.lease("GET /a", 0.5)
    worker.sample(BEGIN)
    [first] = worker.read().checkpoints
    worker.sample(BEGIN + 30)

    assert worker.read().checkpoints[0] is first


def test_fifteen_minutes_are_kept_and_older_ones_go(worker: Worker) -> None:
    for number in range(3 * CHECKPOINTS):
        worker.lease("GET /a", 1.0)
        worker.sample(BEGIN + number * CHECKPOINT_SECONDS)

    kept = worker.read().checkpoints

    assert [each.at for each in kept] == [
        BEGIN + number * CHECKPOINT_SECONDS for number in range(2 * CHECKPOINTS, 3 * CHECKPOINTS)
    ]
    assert kept[-1].at - kept[0].at >= 900
    assert kept[0].routes == {"GET /a": (2 * CHECKPOINTS + 1, 2 * CHECKPOINTS + 1)}


def test_after_a_pause_of_samples_only_what_is_recent_is_read(worker: Worker) -> None:
    worker.sample(BEGIN)
    worker.sample(BEGIN + 3600)

    assert [each.at for each in worker.read().checkpoints] == [BEGIN + 3600]


def test_what_was_kept_before_the_clock_was_put_back_is_left_out(worker: Worker) -> None:
    worker.sample(BEGIN + 600)
    worker.sample(BEGIN)

    assert [each.at for each in worker.read().checkpoints] == [BEGIN]


def test_routes_without_a_row_of_their_own_are_together_in_the_last(worker: Worker) -> None:
    for number in range(ROUTES + 5):
        worker.lease(f"GET /{number}", 1.0)
    worker.sample(BEGIN)
    [checkpoint] = worker.read().checkpoints

    assert len(checkpoint.routes) == ROUTES
    assert checkpoint.routes[OTHER_ROUTES[0]] == (6.0, 6.0)


@pytest.mark.parametrize("number", [float("nan"), float("inf"), -1.0, 2.0**60])
@pytest.mark.parametrize("place", [0, 1, 2, LAYOUT.of_checkpoint - 1])
def test_a_damaged_number_is_not_believed(worker: Worker, place: int, number: float) -> None:
    worker.sample(BEGIN)
    begin = (
        LAYOUT.checkpoints + int(BEGIN) // CHECKPOINT_SECONDS % CHECKPOINTS * LAYOUT.of_checkpoint
    )
    worker.file.numbers[begin + place] = number

    with pytest.raises(UnusableFileError, match="damaged"):
        worker.read()


def reading(*workers: tuple[float, tuple[Checkpoint, ...]]) -> Reading:
    made = []
    for number, (started, checkpoints) in enumerate(workers):
        made.append(WorkerReading(number, started, Sample(BEGIN), checkpoints=checkpoints))
    return Reading("default", tuple(made))


def at(seconds: float, **routes: tuple[float, float]) -> Checkpoint:
    return Checkpoint(BEGIN + seconds, routes, {})


def test_growth_is_of_all_workers_together_and_ends_now() -> None:
    old = (BEGIN - 5000, (at(0, a=(10, 5.0)), at(30, a=(12, 6.0)), at(60, a=(12, 6.0))))
    young = (BEGIN + 20, (at(30, a=(1, 0.5)), at(60, a=(3, 1.0), b=(1, 1.0))))

    steps = reading(old, young).growth(BEGIN + 60)

    assert steps == (at(0), at(30, a=(3, 1.5)), at(60, a=(2, 0.5), b=(1, 1.0)))


def test_a_worker_that_has_missed_a_moment_is_counted_when_it_is_back() -> None:
    one = (BEGIN - 5000, (at(0, a=(1, 1.0)), at(30, a=(2, 2.0)), at(60, a=(3, 3.0))))
    other = (BEGIN - 5000, (at(0, a=(10, 10.0)), at(60, a=(14, 14.0))))

    steps = reading(one, other).growth(BEGIN + 60)

    assert steps == (at(0), at(30, a=(1, 1.0)), at(60, a=(5, 5.0)))


def test_the_growth_of_a_young_service_begins_with_its_start() -> None:
    steps = reading((BEGIN - 7, (at(0, a=(4, 2.0)),))).growth(BEGIN)

    assert steps == (at(-7), at(0, a=(4, 2.0)))


@pytest.mark.parametrize("started", [BEGIN, BEGIN + 60])
def test_there_is_no_growth_before_the_start(started: float) -> None:
    assert reading((started, ())).growth(BEGIN) == ()
    assert reading().growth(BEGIN) == ()

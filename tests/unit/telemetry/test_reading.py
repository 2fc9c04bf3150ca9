"""All workers together, from what each of them says."""

from math import isnan, nan

from penstock.telemetry import Counters, Histogram, Reading, RouteUse, Sample, WorkerReading
from penstock.telemetry.schema import BOUNDS


def worker(pid: int, *samples: Sample, checkouts: int = 0, **more: object) -> WorkerReading:
    return WorkerReading(
        pid,
        started=float(pid),
        now=samples[-1],
        history=samples,
        counters=Counters(checkouts=checkouts),
        **more,  # type: ignore[arg-type]  # as given
    )


def test_counts_are_added_and_lateness_is_that_of_the_latest() -> None:
    one = Sample(10.1, size=5, limit=10, checked_out=3, loop_late=0.2, server_connections=nan)
    other = Sample(10.4, size=5, limit=10, checked_out=2, loop_late=0.5, server_connections=40)

    together = Reading("default", (worker(1, one), worker(2, other))).now

    assert (together.at, together.limit, together.checked_out) == (10.4, 20, 5)
    assert (together.loop_late, together.server_connections) == (0.5, 40)
    assert isnan(together.replica_lag_bytes)
    assert together.utilisation == 0.25


def test_the_history_has_a_sample_for_each_second_that_any_worker_has() -> None:
    one = worker(1, Sample(1.0, checked_out=1), Sample(2.0, checked_out=1))
    other = worker(2, Sample(2.2, checked_out=2), Sample(2.9, checked_out=4), Sample(4.0))

    history = Reading("default", (one, other)).history

    assert [(int(each.at), each.checked_out) for each in history] == [(1, 1), (2, 5), (4, 0)]


def test_counters_and_durations_of_ended_workers_go_on_counting() -> None:
    waits = Histogram((1, *(0,) * len(BOUNDS)), 0.5)
    reading = Reading(
        "default",
        (worker(1, Sample(1.0), checkouts=3, histograms={"wait": waits}),),
        Counters(checkouts=4),
        {"wait": waits, "commit": waits},
    )

    assert reading.counters.checkouts == 7
    assert (reading.histogram("wait").count, reading.histogram("wait").seconds) == (2, 1.0)
    assert reading.histogram("commit").count == 1
    assert reading.histogram("ping").count == 0


def test_routes_are_added_up_and_the_heaviest_comes_first() -> None:
    one = worker(1, Sample(1.0), routes=(RouteUse("GET /a", 1, 0.1, 0.1),))
    uses = RouteUse("GET /a", 2, 0.1, 0.07), RouteUse("GET /b", 1, 5.0, 5.0)
    other = worker(2, Sample(1.0), routes=uses)

    together = Reading("default", (one, other)).routes

    assert together == (RouteUse("GET /b", 1, 5.0, 5.0), RouteUse("GET /a", 3, 0.2, 0.1))


def test_without_a_worker_there_is_nothing() -> None:
    reading = Reading("default", ())

    assert (reading.now.at, reading.history, reading.routes) == (0.0, (), ())
    assert reading.counters == Counters()

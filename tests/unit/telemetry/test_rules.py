"""The rules together: what a healthy service hears of them, and what they make of anything else."""

import math
import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.errors import SettingsError
from penstock.findings import Finding, Severity
from penstock.settings import DatabaseSettings
from penstock.telemetry.reading import PlannedLoad, Reading, RouteUse, StatementUse, WorkerReading
from penstock.telemetry.rules import RULES, find
from penstock.telemetry.rules.pool import LARGEST_POOL, OVERFLOW_IDLE
from penstock.telemetry.schema import BOUNDS, HISTOGRAMS, Counters, Histogram, Sample

NOW = 1_732_000_000.0
PAGE = Path(__file__).parents[3] / "docs" / "findings.md"

Stretch = tuple[int, Mapping[str, Any]]
"""So many seconds, and what is in each of their samples."""

POOL: dict[str, Any] = {"size": 20, "limit": 50, "checked_in": 18, "checked_out": 2}


def history(*stretches: Stretch) -> tuple[Sample, ...]:
    """Stretches of samples, the newest of which is of ``NOW``."""
    contents = [{**POOL, **content} for count, content in stretches for _ in range(count)]
    first = NOW - len(contents) + 1
    return tuple(
        replace(Sample(first + second), **content) for second, content in enumerate(contents)
    )


def worker(
    *stretches: Stretch, pid: int = 1, age: float = 3600.0, samples: Sequence[Sample] = ()
) -> WorkerReading:
    """A worker with such a history, or with these samples."""
    seconds = tuple(samples) or history(*(stretches or ((1, {}),)))
    return WorkerReading(pid=pid, started=NOW - age, now=seconds[-1], history=seconds)


def reading(*workers: WorkerReading) -> Reading:
    return Reading("default", workers)


def said(given: Reading, name: str) -> Finding | None:
    """What the rules find under one id."""
    found = {each.id: each for each in find(given)}
    return found.get(name)


def finding(given: Reading, name: str) -> Finding:
    """As above, and something is found."""
    found = said(given, name)
    assert found is not None, name
    return found


def busy(pid: int, seconds: int = 900) -> WorkerReading:
    """A worker at 300 checkouts a second, with what happens to a healthy service, too."""
    chance = random.Random(pid)
    samples = []
    for second in range(seconds):
        peak = chance.random() < 0.05
        checked_out = 50 if peak else chance.randint(4, 30)
        recycled = int(second % 90 == 0)
        leases = chance.randint(250, 350)
        samples.append(
            Sample(
                NOW - seconds + 1 + second,
                size=20,
                limit=50,
                checked_in=50 - checked_out,
                checked_out=checked_out,
                overflow=30,
                waiting=10 if peak else 0,
                idle_in_transaction=int(second % 30 == 0),
                checkouts=leases,
                checkins=leases,
                waits=40 if peak else chance.randint(0, 5),
                wait_seconds=1.0 if peak else 0.01,
                wait_longest=0.7 if peak else 0.02,
                hold_seconds=leases * 0.05,
                opened=recycled,
                closed=recycled,
                rejected=int(second % 120 == 0),
                timeouts=int(second % 120 == 0),
                died=int(second == 700),
                loop_late=0.4 if second % 60 == 5 else 0.01,
                server_connections=100.0 if second % 40 == 0 else 60.0,
                server_limit=200.0,
                replica_lag_bytes=float(64 * 2**20 if second % 60 < 15 else 8192),
                replica_lag_seconds=12.0 if second % 60 < 15 else 0.1,
            )
        )
    return replace(worker(pid=pid, samples=samples), counters=Counters(checkouts=10**6))


def test_a_healthy_busy_service_hears_nothing() -> None:
    assert find(reading(busy(1), busy(2))) == []


def test_a_healthy_busy_service_whose_samples_are_missing_here_and_there_hears_nothing() -> None:
    workers = []
    for each in (busy(1), busy(2)):
        kept = [sample for sample in each.history if int(sample.at) % (7 + each.pid)]
        workers.append(replace(each, history=tuple(kept), now=kept[-1]))

    assert find(reading(*workers)) == []


def test_a_service_without_traffic_hears_nothing() -> None:
    quiet = (900, {"checked_in": 5, "checked_out": 0})

    assert find(reading(worker(quiet, pid=1), worker(quiet, pid=2))) == []


def test_workers_that_have_just_started_hear_nothing() -> None:
    workers = [
        worker(
            (1, {"checked_in": 0, "checked_out": 0, "opening": 50, "loop_late": 1.5}),
            (1, {"checked_out": 50, "opened": 50, "waiting": 30, "waits": 60, "wait_seconds": 40}),
            (3, {"checked_out": 30, "checkouts": 400, "checkins": 400, "loop_late": 0.3}),
            pid=pid,
            age=5.0,
        )
        for pid in range(1, 5)
    ]

    assert find(reading(*workers)) == []


def test_a_server_that_restarts_is_no_finding() -> None:
    restarted = worker(
        (600, {}),
        (1, {"died": 18, "closed": 18, "checked_in": 0, "open_failures": 3}),
        (2, {"checked_in": 0, "open_failures": 3}),
        (60, {"checked_in": 18}),
    )

    assert find(reading(restarted)) == []


def test_no_worker_is_no_finding() -> None:
    assert find(reading()) == []


def test_the_most_severe_comes_first() -> None:
    ill = replace(
        worker(
            (200, {"checked_out": 50, "waiting": 9, "wait_longest": 4.0, "idle_in_transaction": 3})
        ),
        counters=Counters(leaks=1),
    )

    found = find(reading(ill))

    assert [each.severity for each in found] == sorted(
        (each.severity for each in found), key=[*Severity][::-1].index
    )
    assert {each.severity for each in found} == set(Severity)


def test_every_rule_is_documented_and_every_heading_a_rule() -> None:
    headings = re.findall(r"^## (`.+)$", PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE)

    assert headings == [f"`{name}`" for name in RULES]


@pytest.mark.parametrize("name", RULES)
def test_a_finding_is_documented_with_its_condition_impact_remedy_and_thresholds(name: str) -> None:
    section = (
        PAGE.read_text(encoding="utf-8").partition(f"\n## `{name}`\n")[2].partition("\n## ")[0]
    )

    for part in ("Condition", "Impact", "Remedy", "Thresholds"):
        assert f"- **{part}:** " in section


def test_the_histories_are_not_put_together_which_takes_longer_than_all_rules() -> None:
    read = []

    class Watched(Reading):
        @property
        def history(self) -> tuple[Sample, ...]:
            read.append("history")
            return ()

    find(Watched("default", (busy(1), busy(2))))

    assert read == []


def test_what_the_remedies_name_at_most_is_what_the_settings_accept() -> None:
    url = "postgresql://user:password@localhost/app"

    assert DatabaseSettings.of(url, pool_size=LARGEST_POOL).pool_size == LARGEST_POOL
    assert DatabaseSettings.of(url).overflow_idle == OVERFLOW_IDLE
    with pytest.raises(SettingsError, match="pool_size"):
        DatabaseSettings.of(url, pool_size=LARGEST_POOL + 1)


whole = st.integers(0, 2) | st.integers(0, 2000)
real = st.floats() | st.floats(0, 100) | st.just(math.nan)
moments = st.floats(NOW - 400, NOW) | st.just(NOW)
samples = st.builds(
    Sample,
    moments,
    **{
        each.name: whole if each.type is int else real
        for each in fields(Sample)
        if each.name != "at"
    },
)
histories = st.lists(samples, max_size=8).map(
    lambda some: tuple(sorted(some, key=lambda sample: sample.at))
)
repeated = st.tuples(st.integers(1, 400), samples).map(
    lambda pair: tuple(replace(pair[1], at=NOW - second) for second in reversed(range(pair[0])))
)
histograms = st.dictionaries(
    st.sampled_from(tuple(HISTOGRAMS)),
    st.builds(
        Histogram,
        st.lists(whole, min_size=len(BOUNDS) + 1, max_size=len(BOUNDS) + 1).map(tuple),
        real,
    ),
    max_size=2,
)
workers = st.builds(
    WorkerReading,
    pid=st.integers(1, 3),
    started=moments,
    now=samples,
    history=histories | repeated,
    counters=st.builds(Counters, leaks=whole),
    histograms=histograms,
    routes=st.lists(st.builds(RouteUse, st.text(), whole, real, real), max_size=2).map(tuple),
    statements=st.lists(
        st.builds(StatementUse, st.text(), st.text(), whole, real, real, whole, whole, moments),
        max_size=2,
    ).map(tuple),
)


@given(st.lists(workers, max_size=3))
def test_no_reading_is_too_strange(some: list[WorkerReading]) -> None:
    plan = PlannedLoad(0.1, 0.1, 0.1, workers=1, instances=1, declared_instances=1)
    for found in find(replace(reading(*some), plan=plan)):
        assert found.id in RULES
        assert found.evidence.endswith(".")
        assert found.remedy.endswith(".")

"""What is said when a service runs beyond its plan, and when it is not said."""

import random
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
from tests.told import numbers
from tests.unit.telemetry.test_rules import NOW, Stretch, finding, reading, said, worker

from penstock.telemetry import PlannedLoad, Reading
from penstock.telemetry.rules.plan import plan_drift

PLAN = PlannedLoad(
    checkouts=100.0,
    hold=0.1,
    utilisation=0.1,
    workers=2,
    instances=1,
    declared_instances=1,
)
DRIFT = "plan-drift"
FEW = {"checkouts": 1, "checkins": 1, "hold_seconds": 1.0}


def scaled(rate: float = 1.0, hold: float = 1.0) -> dict[str, Any]:
    """A second of one of two workers, in which so many times the planned load was served."""
    count = round(50 * rate)
    return {"checkouts": count, "checkins": count, "hold_seconds": count * 0.1 * hold}


def planned(
    *stretches: Stretch, plan: Mapping[str, Any] | None = None, workers: int = 2
) -> Reading:
    given = reading(*(worker(*stretches, pid=pid) for pid in range(1, workers + 1)))
    return replace(given, plan=replace(PLAN, **(plan or {})))


@pytest.mark.parametrize(
    "stretches",
    [
        pytest.param([(300, scaled())], id="as planned"),
        pytest.param([(300, scaled(0.1))], id="less"),
        pytest.param([(300, scaled(1.2))], id="within the tolerance"),
        pytest.param([(300, scaled(1.0, 1.2))], id="held a little longer"),
        pytest.param([(300, scaled()), (14, scaled(5))], id="a peak"),
        pytest.param([(100, scaled()), (15, scaled(5)), (100, scaled())], id="over"),
        pytest.param([(100, scaled(2)), (60, scaled())], id="over for long"),
        pytest.param([(1, FEW), (1, {})] * 150, id="too few"),
        pytest.param([(300, {})], id="nothing"),
        pytest.param([(1, scaled(9))], id="just started"),
    ],
)
def test_a_service_within_its_plan_has_no_drift(stretches: list[Stretch]) -> None:
    assert said(planned(*stretches), DRIFT) is None


@pytest.mark.parametrize(
    ("stretch", "told"),
    [
        (scaled(1.6), ["160.0", "100", "0.160", "0.1"]),
        (scaled(0.5, 3.0), ["0.3000 s", "0.1", "0.150", "0.1"]),
    ],
)
def test_what_is_beyond_the_plan_is_told_with_its_numbers(
    stretch: dict[str, Any], told: list[str]
) -> None:
    found = finding(planned((300, scaled()), (46, stretch)), DRIFT)

    assert numbers(found.evidence) == told


@pytest.mark.parametrize("phase", range(15))
def test_it_is_told_within_a_minute_and_ended_within_another(phase: int) -> None:
    after = [(300, scaled()), (45 + phase, scaled(2))]
    assert said(planned(*after), DRIFT)

    assert said(planned(*after, (14, scaled())), DRIFT)
    assert said(planned(*after, (45, scaled())), DRIFT) is None


def test_a_load_at_the_limit_does_not_come_and_go() -> None:
    beyond, near = (60, scaled(1.5)), (60, scaled(1.2))

    assert said(planned((100, scaled()), near), DRIFT) is None
    assert said(planned((100, scaled()), beyond, near), DRIFT)
    assert said(planned((100, scaled()), beyond, near, (45, scaled()), near), DRIFT) is None


@pytest.mark.parametrize("per_second", [0.5, 1, 5])
def test_chance_alone_is_no_drift(per_second: float) -> None:
    chance = random.Random(per_second)

    def second() -> dict[str, Any]:
        arrivals = sum(chance.random() < per_second / 100 for _ in range(100))
        held = sum(chance.expovariate(10) for _ in range(arrivals))
        return {"checkouts": arrivals, "checkins": arrivals, "hold_seconds": held}

    plan = {"checkouts": per_second, "utilisation": per_second * 0.1 / 50}
    found = [
        plan_drift(planned(*((1, second()) for _ in range(61)), plan=plan, workers=1))
        for _ in range(100)
    ]

    assert found == [None] * 100


def test_more_workers_than_planned_are_told_once_a_deployment_is_over() -> None:
    three = planned((60, scaled(0.5)), workers=3)
    assert numbers(finding(three, DRIFT).evidence) == ["3", "2"]

    deployed = replace(
        three,
        workers=tuple(
            replace(each, started=NOW - 20) if each.pid > 1 else each for each in three.workers
        ),
    )
    assert said(deployed, DRIFT) is None


def test_more_instances_than_planned_are_told() -> None:
    found = finding(planned((60, scaled(0.5)), plan={"declared_instances": 4}), DRIFT)

    assert numbers(found.evidence) == ["4", "1"]
    assert "--instances 4" in found.remedy


def test_without_a_plan_nothing_is_told() -> None:
    given = planned((300, scaled(9)), workers=4)

    assert said(given, DRIFT)
    assert said(replace(given, plan=None), DRIFT) is None

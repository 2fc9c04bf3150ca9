"""The arithmetic of a fleet's connections."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.told import advised, numbers

from penstock import Severity
from penstock.planner import ConnectionBudget, ServerLimits

SERVER = ServerLimits(max_connections=100, reserved=3)


def budget(**changes: int) -> ConnectionBudget:
    fleet = {"workers": 2, "instances": 2, "pool_size": 10, "max_overflow": 5} | changes
    return ConnectionBudget(**fleet, reserve=0.25)


def test_a_fleet_within_its_allowance_is_no_finding() -> None:
    assert budget().wanted == 60
    assert budget().allowed(SERVER) == 72
    assert budget().check(SERVER) is None


def test_eating_into_the_reserve_is_a_warning() -> None:
    finding = budget(max_overflow=10).check(SERVER)

    assert finding is not None
    assert finding.severity is Severity.WARNING
    assert numbers(finding.evidence) == ["2", "2", "10", "10", "80", "97", "100", "3", "72", "25"]
    assert advised(finding.remedy) == {
        "pool_size": "18",
        "max_overflow": "18",
        "max_connections": "110",
    }


def test_more_than_the_server_serves_is_critical() -> None:
    finding = budget(instances=4).check(SERVER)

    assert finding is not None
    assert finding.severity is Severity.CRITICAL


def test_more_workers_than_connections_means_fewer_workers() -> None:
    finding = budget(workers=100).check(SERVER)

    assert finding is not None
    assert advised(finding.remedy).keys() == {"max_connections"}
    assert "workers" in finding.remedy


@given(
    workers=st.integers(1, 64),
    instances=st.integers(1, 64),
    pool_size=st.integers(1, 100),
    max_overflow=st.integers(0, 100),
    maximum=st.integers(10, 5000),
)
def test_following_the_remedy_ends_the_finding(
    workers: int, instances: int, pool_size: int, max_overflow: int, maximum: int
) -> None:
    server = ServerLimits(max_connections=maximum, reserved=3)
    asked = budget(
        workers=workers, instances=instances, pool_size=pool_size, max_overflow=max_overflow
    )
    finding = asked.check(server)
    if finding is None:
        assert asked.wanted <= asked.allowed(server)
        return
    raised = int(finding.remedy.split("raise max_connections to ")[1].split(",")[0])
    assert asked.check(ServerLimits(max_connections=raised, reserved=3)) is None


@pytest.mark.parametrize("reserve", [0.0, 0.2, 0.3])
def test_the_reserve_stays_free(reserve: float) -> None:
    fleet = ConnectionBudget(workers=1, instances=1, pool_size=1, max_overflow=0, reserve=reserve)

    assert fleet.allowed(ServerLimits(max_connections=100)) == round(100 * (1 - reserve))

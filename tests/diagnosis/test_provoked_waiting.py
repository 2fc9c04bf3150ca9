"""Too few connections, as a service under load has them."""

import pytest
from tests.diagnosis.workers import Findings

pytestmark = pytest.mark.timeout(300)


def test_connections_that_are_all_lent_while_others_wait(provoked: Findings) -> None:
    assert provoked["exhausted"].keys() == {"pool-exhausted"}
    assert "Raise pool_size from 2 to" in provoked["exhausted"]["pool-exhausted"]["remedy"]


def test_waits_of_seconds_for_two_minutes(provoked: Findings) -> None:
    assert provoked["delayed"].keys() == {"checkout-latency", "pool-exhausted", "slow-statement"}
    assert provoked["delayed"]["checkout-latency"]["severity"] == "critical"


def test_askers_that_are_turned_away(provoked: Findings) -> None:
    assert provoked["overrun"].keys() == {"shedding"}
    assert provoked["overrun"]["shedding"]["severity"] == "critical"
    assert "Raise pool_size from 2 to" in provoked["overrun"]["shedding"]["remedy"]


def test_a_slow_statement_for_which_nobody_has_to_wait(provoked: Findings) -> None:
    assert provoked["slow"].keys() == {"slow-statement"}
    assert "GET /slow/hold/{seconds}" in provoked["slow"]["slow-statement"]["evidence"]

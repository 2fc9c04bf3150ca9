"""Connections that do not live long, or cannot be opened."""

import pytest
from tests.diagnosis.workers import Findings

pytestmark = pytest.mark.timeout(300)


def test_idle_connections_that_are_cut_now_and_then(provoked: Findings) -> None:
    assert provoked["cut"].keys() == {"stale-connections"}


def test_a_pool_that_loses_all_of_its_connections_again_and_again(provoked: Findings) -> None:
    assert provoked["felled"].keys() == {"connect-storm", "stale-connections"}
    assert provoked["felled"]["connect-storm"]["severity"] == "warning"


def test_bursts_above_what_the_pool_keeps(provoked: Findings) -> None:
    assert provoked["bursting"].keys() == {"short-lived-connections"}
    remedy = provoked["bursting"]["short-lived-connections"]["remedy"]
    assert remedy.startswith("Raise pool_size from 10 to 14")


def test_connections_that_are_replaced_every_second(provoked: Findings) -> None:
    assert provoked["recycled"].keys() == {"connect-storm", "short-lived-connections"}


def test_a_server_that_refuses_the_user_from_one_moment_on(provoked: Findings) -> None:
    assert provoked["barred"].keys() == {"connect-storm"}
    assert provoked["barred"]["connect-storm"]["severity"] == "critical"

"""Workers that have all of the requests, or cannot answer any."""

import pytest
from tests.diagnosis.workers import Findings

pytestmark = pytest.mark.timeout(300)


def test_one_worker_that_has_all_of_the_work(provoked: Findings) -> None:
    assert provoked["lopsided"].keys() == {"worker-imbalance"}


def test_a_route_that_blocks_the_event_loop(provoked: Findings) -> None:
    assert provoked["blocked"].keys() == {"event-loop-blocked"}
    assert provoked["blocked"]["event-loop-blocked"]["severity"] == "warning"


def test_a_worker_of_which_nothing_is_heard(provoked: Findings) -> None:
    assert provoked["frozen"].keys() == {"event-loop-blocked"}
    found = provoked["frozen"]["event-loop-blocked"]
    assert found["severity"] == "critical"
    assert found["evidence"].startswith("In 1 of 2 worker(s) the event loop stands still")

"""Connections that routes keep, and statements that they repeat."""

import pytest
from tests.diagnosis.workers import Findings

pytestmark = pytest.mark.timeout(300)


def test_sessions_that_are_never_closed(provoked: Findings) -> None:
    assert provoked["leaking"].keys() == {"connection-leak", "idle-in-transaction"}
    assert provoked["leaking"]["connection-leak"]["evidence"].startswith("3 loan(s) lasted")


def test_a_transaction_that_waits_for_something_else(provoked: Findings) -> None:
    assert provoked["dawdling"].keys() == {"idle-in-transaction"}


@pytest.mark.parametrize("lane", ["sessions", "express"])
def test_a_statement_that_one_request_runs_in_a_loop(provoked: Findings, lane: str) -> None:
    found = provoked[f"looping-{lane}"]

    assert found.keys() == {"n-plus-one"}
    assert "ran the same statement 12 times" in found["n-plus-one"]["evidence"]
    assert f"GET /looping-{lane}/" in found["n-plus-one"]["evidence"]


def test_of_a_database_that_nobody_asks_nothing_is_found(provoked: Findings) -> None:
    assert provoked["untouched"] == {}

"""Conditions that are made to happen, each found and named, and nothing besides."""

import pytest
from tests.diagnosis.workers import Findings
from tests.told import advised, numbers

pytestmark = pytest.mark.timeout(300)


# Too few connections, as a service under load has them.


def test_connections_that_are_all_lent_while_others_wait(provoked: Findings) -> None:
    assert provoked["exhausted"].keys() == {"pool-exhausted"}
    remedy = provoked["exhausted"]["pool-exhausted"]["remedy"]
    assert any(number.startswith("0.") for number in numbers(remedy))
    assert int(advised(remedy)["pool_size"]) > 2


def test_waits_of_seconds_for_two_minutes(provoked: Findings) -> None:
    assert provoked["delayed"].keys() == {"checkout-latency", "pool-exhausted", "slow-statement"}
    assert provoked["delayed"]["checkout-latency"]["severity"] == "critical"


def test_askers_that_are_turned_away(provoked: Findings) -> None:
    assert provoked["overrun"].keys() == {"shedding"}
    assert provoked["overrun"]["shedding"]["severity"] == "critical"
    remedy = provoked["overrun"]["shedding"]["remedy"]
    assert any(number.startswith("0.") for number in numbers(remedy))
    assert int(advised(remedy)["pool_size"]) > 2


def test_a_slow_statement_for_which_nobody_has_to_wait(provoked: Findings) -> None:
    assert provoked["slow"].keys() == {"slow-statement"}
    assert "GET /slow/hold/{seconds}" in provoked["slow"]["slow-statement"]["evidence"]


# Connections that routes keep, and statements that they repeat.


def test_sessions_that_are_never_closed(provoked: Findings) -> None:
    assert provoked["leaking"].keys() == {"connection-leak", "idle-in-transaction"}
    evidence = provoked["leaking"]["connection-leak"]["evidence"]
    assert numbers(evidence)[:4] == ["3", "3", "3", "3"]
    assert "leak_after" in evidence
    assert "GET /leaking/keep" in evidence


def test_a_transaction_that_waits_for_something_else(provoked: Findings) -> None:
    assert provoked["dawdling"].keys() == {"idle-in-transaction"}


@pytest.mark.parametrize("lane", ["sessions", "express"])
def test_a_statement_that_one_request_runs_in_a_loop(provoked: Findings, lane: str) -> None:
    found = provoked[f"looping-{lane}"]

    assert found.keys() == {"n-plus-one"}
    assert "12" in numbers(found["n-plus-one"]["evidence"])
    assert f"GET /looping-{lane}/" in found["n-plus-one"]["evidence"]


def test_of_a_database_that_nobody_asks_nothing_is_found(provoked: Findings) -> None:
    assert provoked["untouched"] == {}


# Connections that do not live long, or cannot be opened.


def test_idle_connections_that_are_cut_now_and_then(provoked: Findings) -> None:
    assert provoked["cut"].keys() == {"stale-connections"}


def test_a_pool_that_loses_all_of_its_connections_again_and_again(provoked: Findings) -> None:
    assert provoked["felled"].keys() == {"connect-storm", "stale-connections"}
    assert provoked["felled"]["connect-storm"]["severity"] == "warning"


def test_bursts_above_what_the_pool_keeps(provoked: Findings) -> None:
    assert provoked["bursting"].keys() == {"short-lived-connections"}
    remedy = provoked["bursting"]["short-lived-connections"]["remedy"]
    assert advised(remedy)["pool_size"].startswith("14")


def test_connections_that_are_replaced_every_second(provoked: Findings) -> None:
    assert provoked["recycled"].keys() == {"connect-storm", "short-lived-connections"}


def test_a_server_that_refuses_the_user_from_one_moment_on(provoked: Findings) -> None:
    assert provoked["barred"].keys() == {"server-unreachable"}
    assert provoked["barred"]["server-unreachable"]["severity"] == "critical"


# A server that is full, or smaller than the pools, and a replica that is behind.


def test_others_that_take_most_of_the_servers_connections(provoked: Findings) -> None:
    assert provoked["crowded"].keys() == {"server-connections"}
    # Of others, so that the pools are not to be smaller.
    remedy = provoked["crowded"]["server-connections"]["remedy"]
    assert advised(remedy).keys() == {"max_connections"}


def test_a_pool_that_may_grow_beyond_the_server(provoked: Findings) -> None:
    assert provoked["greedy"].keys() == {"pool-exceeds-server"}


def test_a_replica_that_replays_nothing(provoked: Findings) -> None:
    assert provoked["lagging"].keys() == {"replica-lag"}
    assert numbers(provoked["lagging"]["replica-lag"]["evidence"])[0].startswith("24.")


# Workers that have all of the requests, or cannot answer any.


def test_one_worker_that_has_all_of_the_work(provoked: Findings) -> None:
    assert provoked["lopsided"].keys() == {"worker-imbalance"}


def test_a_route_that_blocks_the_event_loop(provoked: Findings) -> None:
    assert provoked["blocked"].keys() == {"event-loop-blocked"}
    assert provoked["blocked"]["event-loop-blocked"]["severity"] == "warning"


def test_a_worker_of_which_nothing_is_heard(provoked: Findings) -> None:
    assert provoked["frozen"].keys() == {"event-loop-blocked"}
    found = provoked["frozen"]["event-loop-blocked"]
    assert found["severity"] == "critical"
    assert numbers(found["evidence"])[:2] == ["1", "2"]


# A load that was not planned for.


def test_a_load_of_four_times_what_was_planned_for_two_workers(provoked: Findings) -> None:
    assert provoked["drifting"].keys() == {"plan-drift"}
    found = provoked["drifting"]["plan-drift"]
    # 20 of the whole service, 10 of this machine, one of two.
    rate, planned = map(float, numbers(found["evidence"])[:2])
    assert planned == 10
    assert rate > planned

"""Plans: sizes that keep the goals, and what is found wrong with them."""

import itertools
import json
from math import ceil, isfinite
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.told import numbers

from penstock import Severity
from penstock.errors import SettingsError
from penstock.planner import HoldTime, Plan, PlanInputs, plan, read_inputs, shown, write_inputs
from penstock.settings.proxies import PROXIES, PoolMode, Proxy

ASKED = {"rate": 800, "query_time": "4ms", "workers": 2}


def planned(**changes: Any) -> Plan:
    return plan({**ASKED, **changes})


def ids(**changes: Any) -> dict[str, Severity]:
    return {finding.id: finding.severity for finding in planned(**changes).findings}


@settings(deadline=None, max_examples=60)
@given(
    rate=st.floats(1, 20_000),
    query_time=st.floats(0.0001, 0.1),
    workers=st.integers(1, 16),
    instances=st.integers(1, 5),
)
def test_the_planned_pool_is_the_smallest_that_keeps_the_goals(
    rate: float, query_time: float, workers: int, instances: int
) -> None:
    made = planned(rate=rate, query_time=query_time, workers=workers, instances=instances)
    queue = made.predicted.queue
    if made.connections >= 1000:
        return

    assert queue.load == pytest.approx(rate * query_time / workers / instances)
    assert queue.utilisation <= 0.75
    assert queue.wait_quantile(0.99) <= 0.01
    if made.connections > 2:
        smaller = made.predict(connections=made.connections - 1).queue
        assert smaller.utilisation > 0.75 or smaller.wait_quantile(0.99) > 0.01
    assert 0 <= made.max_overflow <= made.pool_size


def test_each_worker_has_its_own_queue_which_is_worse_than_a_shared_one() -> None:
    four, one = planned(workers=4), planned(workers=1)
    alike = four.connections * 4

    assert alike > one.connections
    assert four.predict().queue.mean_wait > one.predict(connections=alike).queue.mean_wait


def test_the_connection_is_held_for_all_that_happens_meanwhile() -> None:
    made = planned(queries=3, code_time="2ms", transaction_time="1ms", query_p99="20ms")

    assert made.hold.mean == pytest.approx(0.015)
    assert made.predicted.queue.load == pytest.approx(800 * 0.015 / 2)
    assert made.hold == HoldTime.of(0.004, 0.02, 3, 0.003)


@pytest.mark.parametrize("changes", [{}, {"pool_size": 3, "max_overflow": 1}, {"cores": 4}])
def test_backwards_the_rate_is_the_largest_that_keeps_the_percentile(
    changes: dict[str, Any],
) -> None:
    made = planned(rate=None, p99="25ms", utilisation=0.95, query_p99="12ms", **changes)

    assert made.predicted.response_p99 <= 0.025
    more = made.predict(rate=made.rate * 1.01)
    busy = made.inputs.active(made.rate * 1.01) > made.inputs.most_active * 0.8
    waits = more.queue.wait_quantile(0.99) > 0.01
    assert more.response_p99 > 0.025 or more.queue.utilisation > 0.95 or busy or waits
    if "pool_size" in changes:
        assert (made.pool_size, made.max_overflow) == (3, 1)


def test_backwards_and_forwards_agree() -> None:
    back = planned(rate=None, p99="30ms", pool_size=8, max_overflow=0)
    forth = planned(rate=back.rate, pool_size=8, max_overflow=0)

    assert forth.predicted == back.predicted


def test_the_budget_has_room_for_a_deployment_and_for_others() -> None:
    made = planned(instances=4, surge=1.25, other_connections=7, pool_size=5, max_overflow=3)

    assert made.budget.wanted == 5 * 2 * 8 + 7
    assert made.max_connections == ceil(87 / 0.75) + 3


FOUND: dict[str, tuple[dict[str, Any], dict[str, Any], Severity]] = {
    "plan-utilisation": (
        {"pool_size": 3, "max_overflow": 0, "rate": 1400},
        {"pool_size": 4, "max_overflow": 0, "rate": 1400},
        Severity.WARNING,
    ),
    "plan-wait": (
        {"pool_size": 2, "max_overflow": 0, "rate": 700},
        {"pool_size": 3, "max_overflow": 0, "rate": 700},
        Severity.WARNING,
    ),
    "connection-budget": (
        {"max_connections": 40, "pool_size": 10, "max_overflow": 0},
        {"max_connections": 65, "pool_size": 10, "max_overflow": 0},
        Severity.CRITICAL,
    ),
    "database-cores": ({"cores": 1, "rate": 800}, {"cores": 2, "rate": 800}, Severity.CRITICAL),
    "deadlock-floor": (
        {"connections_per_request": 2, "pool_size": 40, "max_overflow": 0},
        {"connections_per_request": 2, "pool_size": 41, "max_overflow": 0},
        Severity.CRITICAL,
    ),
    "timeout-order": (
        {"pool_timeout": "10s", "statement_timeout": "10s"},
        {"pool_timeout": "9s", "statement_timeout": "10s"},
        Severity.WARNING,
    ),
    "late-recycle": (
        {"proxy": "aws-nlb", "pool_recycle": 350},
        {"proxy": "aws-nlb", "pool_recycle": 349},
        Severity.WARNING,
    ),
    "plan-memory": (
        {"memory": "1GB", "work_mem": "64MB", "pool_size": 10},
        {"memory": "16GB", "work_mem": "64MB", "pool_size": 10},
        Severity.WARNING,
    ),
    "unusual-pool-size": (
        {"pool_size": 60, "max_overflow": 11},
        {"pool_size": 50, "max_overflow": 20},
        Severity.INFO,
    ),
    "overflow-behind-pooler": (
        {"proxy": "pgbouncer", "max_overflow": 1},
        {"proxy": "pgbouncer", "max_overflow": 0},
        Severity.INFO,
    ),
}


@pytest.mark.parametrize("name", FOUND)
def test_what_is_wrong_is_found_and_what_is_not_is_not(name: str) -> None:
    wrong, right, severity = FOUND[name]

    assert ids(**wrong)[name] is severity
    assert name not in ids(**right)


@pytest.mark.parametrize("name", FOUND)
def test_every_finding_is_documented(name: str) -> None:
    page = (Path(__file__).parents[3] / "docs/planning.md").read_text(encoding="utf-8")

    assert f"`{name}`" in page


def test_a_plan_that_is_made_has_nothing_wrong_with_it() -> None:
    assert ids(cores=8, memory="16GB", max_connections=100, request_timeout="20s") == {}


def test_a_pool_of_one_connection_is_not_planned() -> None:
    assert planned(rate=1).connections == 2
    assert ids(rate=1, pool_size=1, max_overflow=0) == {"unusual-pool-size": Severity.INFO}


@pytest.mark.parametrize(("rate", "severity"), [(1900, "warning"), (2500, "critical")])
def test_a_queue_that_grows_without_bound_is_critical(rate: int, severity: str) -> None:
    made = planned(rate=rate, pool_size=4, max_overflow=0, workers=2)
    found = {finding.id: finding for finding in made.findings}["plan-utilisation"]

    assert found.severity == severity
    assert numbers(found.remedy)[0] == str(int(made.predicted.queue.load / 0.75) + 1)
    grown = made.document()["predicted"]
    assert (grown["mean_wait"] is None) is (severity == "critical")
    json.dumps(made.document(), allow_nan=False)


ENDS = (None, 1, 5, 20, 100)


@pytest.mark.parametrize("pool", [None, 2, 30])
@pytest.mark.parametrize("statement", [None, 3, 40])
def test_timeouts_that_are_not_given_are_in_order(
    pool: float | None, statement: float | None
) -> None:
    for request, balancer in itertools.product(ENDS, ENDS):
        given = {
            "pool_timeout": pool,
            "statement_timeout": statement,
            "request_timeout": request,
            "balancer_timeout": balancer,
        }
        made = planned(**given)
        chain = [made.pool_timeout, made.statement_timeout, request or None, balancer or None]
        known = [each for each in chain if each is not None]
        are_ordered = all(a < b for a, b in itertools.pairwise(known))

        assert ("timeout-order" in {each.id for each in made.findings}) is not are_ordered
        if (
            pool is None
            and statement is None
            and (not request or not balancer or request < balancer)
        ):
            assert are_ordered, given


@pytest.mark.parametrize("proxy", Proxy)
def test_connections_are_replaced_before_the_proxy_ends_them(proxy: Proxy) -> None:
    limit = PROXIES[proxy].idle_timeout
    made = planned(proxy=proxy)

    assert limit is None or made.pool_recycle == int(limit * 0.75)
    assert "late-recycle" not in {finding.id for finding in made.findings}
    shares = PROXIES[proxy].pool_mode is PoolMode.TRANSACTION
    assert (made.pgbouncer is not None) is shares
    assert not shares or made.max_overflow == 0


def test_pgbouncer_is_proposed_where_the_server_has_no_room() -> None:
    crowded = planned(workers=8, instances=10, max_connections=100)
    pooler = crowded.pgbouncer

    assert pooler is not None
    assert "connection-budget" in {finding.id for finding in crowded.findings}
    assert pooler.max_client_conn == crowded.budget.wanted
    # One queue for all: it needs far fewer than eighty pools do.
    queue = crowded.hold.queue(pooler.default_pool_size, 800)
    assert queue.utilisation <= 0.75
    assert pooler.default_pool_size <= 10
    behind = planned(workers=8, instances=10, max_connections=100, proxy="pgbouncer")
    assert behind.findings == ()
    assert behind.max_connections == pooler.max_connections <= 100


REFUSED = {
    "rate": (0, -1, "fast", 10_000_000),
    "query_time": ("4", "four", "0ms", "2h", -1, True),
    "query_p99": ("3ms", "1s"),
    "queries": (0, "x"),
    "workers": (0, 1.5, 2000),
    "max_connections": (0, 300_000),
    "utilisation": (0, 1),
    "memory": ("8", "8 apples", "1kB"),
    "proxy": ("squid",),
    "p99": ("50ms",),
    "surge": (0.5, 3),
}


@pytest.mark.parametrize(
    ("name", "value"), [(name, value) for name, values in REFUSED.items() for value in values]
)
def test_a_wrong_value_is_refused_by_name_and_range(name: str, value: object) -> None:
    with pytest.raises(SettingsError) as refused:
        plan({**ASKED, name: value}, {field: f"--{field}" for field in PlanInputs.model_fields})

    assert str(refused.value).startswith(f"--{name}=")
    assert name == "p99" or "accepted" in str(refused.value)


@pytest.mark.parametrize("missing", ["rate", "query_time"])
def test_what_is_needed_is_named(missing: str) -> None:
    with pytest.raises(SettingsError, match=missing):
        planned(**{missing: None})


def test_a_percentile_that_no_rate_keeps_says_what_is_possible() -> None:
    with pytest.raises(SettingsError) as refused:
        planned(rate=None, p99="5ms")

    # ln(100) x 4 ms.
    assert numbers(str(refused.value))[-1] == "18.4"
    assert "p99=5 ms" in str(refused.value)


@pytest.mark.parametrize("suffix", [".json", ".toml"])
def test_a_plan_that_is_kept_is_the_same_when_it_is_read(tmp_path: Path, suffix: str) -> None:
    made = planned(proxy="pgbouncer", memory="8GB", query_p99="20ms", request_timeout="10s")
    path = tmp_path / f"plan{suffix}"

    write_inputs(path, made.settled())
    again = plan(read_inputs(path))

    assert again.predicted == made.predicted
    assert again.settled() == made.settled()
    assert again.findings == made.findings


@pytest.mark.parametrize("text", ["", "[1]", "rate = ", "{"])
def test_a_file_that_is_no_plan_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "plan.json"
    path.write_text(text)

    for file in (path, tmp_path / "missing.toml"):
        with pytest.raises(SettingsError, match=file.name):
            read_inputs(file)


def test_the_table_says_what_a_plan_for_it_would_say() -> None:
    made = planned()

    for row in made.what_if():
        for cell in row:
            fixed = planned(rate=cell.rate, pool_size=cell.connections, max_overflow=0)
            assert fixed.predicted.queue == cell.queue
            assert isfinite(cell.response_p99) is (cell.queue.utilisation < 1)


def test_the_example_of_the_documentation_is_what_the_planner_says() -> None:
    page = (Path(__file__).parents[3] / "docs/planning.md").read_text(encoding="utf-8")
    asked, table = page.partition("<!-- plan: ")[2].partition("<!-- end")[0].split(" -->", 1)
    words = asked.split()
    options = {
        name[2:].replace("-", "_"): value
        for name, value in zip(words[::2], words[1::2], strict=True)
    }
    made = plan(options)
    rows = [line.strip("| ").split(" | ") for line in table.splitlines() if line.startswith("| ")]

    assert len(rows) == 6
    for connections, *cells in rows[1:]:
        found = made.predict(connections=int(connections.split()[0]))
        queue = found.queue
        assert cells == [
            f"{queue.utilisation:.0%}",
            f"{queue.waiting_probability:.2%}",
            *map(shown, (queue.mean_wait, queue.wait_quantile(0.99), found.response_p99)),
        ]
    assert f"{made.connections} (planned)" in [row[0] for row in rows]

"""What is said about the server and its replicas, and when it is not said."""

from math import nan

import pytest
from tests.told import advised, numbers
from tests.unit.telemetry.test_rules import Stretch, finding, reading, said, worker

from penstock.findings import Severity

MIB = 2.0**20
LEFT_OUT = "replicas-left-out"


def server(used: float, limit: float = 100.0) -> dict[str, float]:
    return {"server_connections": used, "server_limit": limit}


@pytest.mark.parametrize(
    ("used", "severity"),
    [(81, Severity.WARNING), (95, Severity.WARNING), (96, Severity.CRITICAL)],
)
def test_a_server_that_is_nearly_full_is_found(used: float, severity: Severity) -> None:
    found = finding(reading(worker((60, server(used)))), "server-connections")

    assert found.severity is severity
    assert numbers(found.evidence)[:4] == [str(used), "100", str(used), "20"]


@pytest.mark.parametrize(
    "stretches",
    [
        pytest.param([(60, server(80))], id="a fifth is free"),
        pytest.param([(60, {})], id="not known"),
        pytest.param([(60, server(90, nan))], id="limit not known"),
        pytest.param([(60, server(90, 0.0))], id="no limit"),
        pytest.param([(60, server(50)), (1, server(99))], id="a peak"),
        pytest.param([(60, server(50)), (30, server(99))], id="half a minute"),
        pytest.param([(60, server(99)), (1, server(50))], id="over"),
    ],
)
def test_a_server_that_has_room_is_not(stretches: list[Stretch]) -> None:
    assert said(reading(worker(*stretches)), "server-connections") is None


def test_connections_of_others_are_to_be_looked_for() -> None:
    found = finding(reading(worker((60, server(90)))), "server-connections")

    assert numbers(found.remedy)[0] == "70"
    assert advised(found.remedy) == {"max_connections": "116"}


def test_connections_of_the_service_are_to_be_fewer() -> None:
    own = server(90) | {"checked_in": 0, "checked_out": 40}

    found = finding(reading(worker((60, own)), worker((60, own), pid=2)), "server-connections")

    # Ten are of others, which leaves 70 of 80, 35 for each worker.
    assert numbers(found.remedy) == ["30", "15", "100", "116"]
    assert advised(found.remedy) == {"max_overflow": "15", "max_connections": "116"}


def test_the_one_worker_that_knows_speaks_for_all() -> None:
    given = reading(worker((60, {})), worker((60, server(90)), pid=2))

    assert said(given, "server-connections")


def test_pools_that_may_open_more_than_the_server_has_are_found() -> None:
    given = reading(*(worker((60, server(40)), pid=pid) for pid in (1, 2)))

    found = finding(given, "pool-exceeds-server")

    assert found.severity is Severity.WARNING
    assert numbers(found.evidence) == ["2", "100", "97", "100", "3"]
    # 80 % of 97 are 77, 38 for each.
    assert advised(found.remedy) == {"max_overflow": "18", "max_connections": "128"}


@pytest.mark.parametrize(
    ("workers", "remedy"),
    [
        (8, {"pool_size": "9", "max_overflow": "0"}),
        pytest.param(90, {}, id="fewer workers"),
    ],
)
def test_pools_that_are_far_too_large_are_to_be_far_smaller(
    workers: int, remedy: dict[str, str]
) -> None:
    given = reading(*(worker((60, server(40)), pid=pid) for pid in range(workers)))

    set_to = advised(finding(given, "pool-exceeds-server").remedy)
    assert set_to.pop("max_connections")
    assert set_to == remedy


@pytest.mark.parametrize("workers", [1, 2, 5, 16])
def test_following_the_remedy_ends_the_finding(workers: int) -> None:
    def pools(limit: int, maximum: float) -> bool:
        state = server(40, maximum) | {"limit": limit}
        given = reading(*(worker((60, state), pid=pid) for pid in range(workers)))
        return said(given, "pool-exceeds-server") is None

    state = server(40) | {"limit": 120}
    given = reading(*(worker((60, state), pid=pid) for pid in range(workers)))
    remedy = advised(finding(given, "pool-exceeds-server").remedy)
    size, overflow = int(remedy.get("pool_size", 20)), int(remedy["max_overflow"])

    assert pools(120, int(remedy["max_connections"]))
    assert pools(size + overflow, 100)


def test_pools_that_fit_are_not() -> None:
    fits = server(40, 103.0)

    assert not said(reading(*(worker((9, fits), pid=pid) for pid in (1, 2))), "pool-exceeds-server")


def test_pools_without_a_limit_are_not() -> None:
    given = reading(worker((9, server(40) | {"limit": 0})), worker((9, server(40, 10)), pid=2))

    assert said(given, "pool-exceeds-server") is None


def test_workers_that_replace_others_do_not_count_twice() -> None:
    old, new = worker((9, server(40))), worker((9, server(40)), pid=2, age=59.0)

    assert said(reading(old, new), "pool-exceeds-server") is None


def replicas(out: int = 0, *, reads: int = 0, fallbacks: int = 0, known: int = 2) -> dict[str, int]:
    return {
        "replicas": known,
        "replicas_out": out,
        "replica_reads": reads,
        "replica_fallbacks": fallbacks,
    }


@pytest.mark.parametrize(
    ("out", "severity", "evidence"),
    [
        (1, Severity.WARNING, "1 of 2 replicas has served no reads for 60 s."),
        (2, Severity.CRITICAL, "2 of 2 replicas have served no reads for 60 s."),
    ],
)
def test_replicas_that_are_left_out_are_found(out: int, severity: Severity, evidence: str) -> None:
    found = finding(reading(worker((60, replicas(out))), worker((60, replicas()), pid=2)), LEFT_OUT)

    assert (found.severity, found.evidence) == (severity, evidence)


def test_reads_that_fall_to_the_primary_are_found() -> None:
    given = replicas(reads=1, fallbacks=2)
    found = finding(reading(worker((60, given)), worker((60, given), pid=2)), LEFT_OUT)

    assert found.severity is Severity.WARNING
    assert found.evidence.startswith("The primary served 240 of 360 reads of the last minute")


@pytest.mark.parametrize(
    "stretches",
    [
        pytest.param([(60, {})], id="no cluster"),
        pytest.param([(60, replicas(reads=9))], id="all serve"),
        pytest.param([(59, replicas(1)), (1, replicas())], id="it is back"),
        pytest.param([(1, replicas()), (59, replicas(1))], id="not long enough"),
        pytest.param([(44, replicas(1))], id="known for a moment"),
        pytest.param([(60, replicas(reads=5, fallbacks=4))], id="less than half"),
        pytest.param([(1, replicas()), (59, replicas(fallbacks=1))], id="hardly any reads"),
    ],
)
def test_replicas_that_serve_are_not(stretches: list[Stretch]) -> None:
    assert said(reading(worker(*stretches)), LEFT_OUT) is None


def lag(size: float, seconds: float = nan) -> dict[str, float]:
    return {"replica_lag_bytes": size, "replica_lag_seconds": seconds}


def test_a_replica_that_is_behind_by_bytes_is_found() -> None:
    found = finding(reading(worker((40, lag(40 * MIB, 3.0)))), "replica-lag")

    assert found.severity is Severity.WARNING
    assert numbers(found.evidence) == ["40.0", "3 s", "40 s"]
    assert advised(found.remedy) == {
        "max_standby_streaming_delay": "10s",
        "wal_keep_size": "80MB",
    }


def test_a_replica_that_is_behind_by_time_and_bytes_is_found() -> None:
    found = finding(reading(worker((40, lag(1.0, 11.0)))), "replica-lag")

    assert numbers(found.evidence)[:2] == ["0.0", "11 s"]


def test_what_is_not_known_of_the_time_is_not_said() -> None:
    found = finding(reading(worker((40, lag(20 * MIB)))), "replica-lag")

    assert numbers(found.evidence) == ["20.0", "40 s"]


@pytest.mark.parametrize(
    "stretches",
    [
        pytest.param([(60, lag(0.0, 9000.0))], id="no writes"),
        pytest.param([(60, lag(16 * MIB, 10.0))], id="not more than that"),
        pytest.param([(60, lag(nan, 9000.0))], id="not known"),
        pytest.param([(60, {})], id="no replica"),
        pytest.param([(60, lag(0.0)), (39, lag(99 * MIB))], id="a large transaction"),
        pytest.param([(60, lag(99 * MIB)), (1, lag(0.0))], id="over"),
        pytest.param([(60, {}), (19, lag(99 * MIB))], id="known for a moment"),
    ],
)
def test_a_replica_that_keeps_up_is_not(stretches: list[Stretch]) -> None:
    assert said(reading(worker(*stretches)), "replica-lag") is None

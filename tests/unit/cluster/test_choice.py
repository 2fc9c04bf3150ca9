"""Which server a read goes to, given what is known of each."""

from collections import Counter
from itertools import product
from math import inf
from typing import Any

import pytest
from pydantic import SecretStr

from penstock.cluster import Cluster, Position, ReadPolicy
from penstock.cluster.cluster import ClusterPolicy
from penstock.cluster.member import Endpoint, History, Look, Member
from penstock.cluster.position import UNKNOWN, Reads
from penstock.engine import build_engine
from penstock.settings import DatabaseSettings

URL = "postgresql://app@127.0.0.1:1/app"
SYSTEM = 7


class Unasked:
    """No server is asked here: the tests say what each has said."""

    async def dispose(self) -> None:
        """Close nothing."""


def member(name: str, weight: float = 1.0, *, reports_position: bool = True) -> Member:
    endpoint = Endpoint(name, SecretStr(URL), weight, reports_position)
    lane: Any = None
    return Member(endpoint, build_engine(DatabaseSettings.of(URL)), lane)


def cluster(*replicas: Member, **policy: float) -> Cluster:
    made = Cluster(
        member("primary"),
        ClusterPolicy(**policy),
        make=lambda endpoint: member(endpoint.name),
        probe=lambda _: Unasked(),  # type: ignore[arg-type, return-value]  # asks nobody
        discover=lambda: None,  # type: ignore[arg-type, return-value]  # finds nobody
    )
    made.replicas = {each.name: each for each in replicas}
    return made


def says(each: Member, lsn: int | None = 100, *, lag: float = 0.0, timeline: int = 1) -> Member:
    each.seen(Look(is_replica=True, lsn=lsn, timeline=timeline, system=SYSTEM), lag, "")
    return each


def reads(made: Cluster, after: Position | None = None, **policy: Any) -> Reads:
    needed = Reads(ReadPolicy(**policy))
    if after is not None:
        needed.reached(made, after)
    return needed


def name_of(chosen: Member | None) -> str | None:
    return None if chosen is None else chosen.name


def test_without_a_replica_the_primary_reads() -> None:
    assert name_of(cluster().choose(None)) == "primary"


def test_a_replica_that_was_not_asked_yet_reads_nothing() -> None:
    assert name_of(cluster(member("a")).choose(None)) == "primary"


def test_a_replica_in_trouble_reads_nothing_until_it_has_answered() -> None:
    a = says(member("a"))
    made = cluster(a)
    a.failed("it is gone")
    assert name_of(made.choose(None)) == "primary"

    says(a)
    assert name_of(made.choose(None)) == "a"


@pytest.mark.parametrize(
    ("lag", "policy", "chosen"),
    [
        (5, {}, "a"),
        (11, {}, "primary"),
        (inf, {}, "primary"),
        (5, {"max_lag": 2}, "primary"),
        (15, {"max_lag": 20}, "a"),
        (inf, {"prefer": "replica"}, "a"),
        (0, {"primary": True}, "primary"),
    ],
)
def test_how_far_a_replica_may_be_behind(lag: float, policy: Any, chosen: str) -> None:
    made = cluster(says(member("a"), lag=lag), max_lag=10)

    assert name_of(made.choose(reads(made, **policy))) == chosen


WANTED = [*(Position(*place, written_at=inf) for place in [(1, 100), (1, 101), (2, 50)]), UNKNOWN]
KNOWN = [(100, 1), (101, 1), (100, 2), (None, 1)]


@pytest.mark.parametrize(("after", "known"), list(product(WANTED, KNOWN)), ids=str)
def test_a_replica_reads_what_it_has_and_in_no_earlier_history(
    after: Position, known: tuple[int | None, int]
) -> None:
    lsn, timeline = known
    made = cluster(says(member("a"), lsn, timeline=timeline), max_lag=10)

    chosen = made.choose(reads(made, after))

    if (
        lsn is None or after is UNKNOWN or timeline < after.timeline
    ):  # after some time, which has not passed
        assert name_of(chosen) == "primary"
    elif lsn >= after.lsn:
        assert name_of(chosen) == "a"
    else:
        assert chosen is None  # it may be there soon


def test_a_replica_that_is_far_behind_is_not_waited_for() -> None:
    made = cluster(says(member("a"), 99, lag=0.5), wait=0.05)

    assert name_of(made.choose(reads(made, Position(1, 100)))) == "primary"


def test_one_replica_that_has_it_is_not_another_that_has_not() -> None:
    made = cluster(says(member("a"), 99), says(member("b"), 100))

    chosen = Counter(name_of(made.choose(reads(made, Position(1, 100)))) for _ in range(20))

    assert chosen == {"b": 20}


def test_a_write_of_this_request_is_asked_for_before_anything_is_read() -> None:
    made = cluster(says(member("a")))
    needed = reads(made)
    needed.written(made)

    assert made.choose(needed) is None


def test_one_that_reports_no_position_reads_once_time_has_passed() -> None:
    made = cluster(says(member("a"), None), max_lag=10)
    fresh, old = Position(1, 100), Position(1, 100, written_at=0.0)

    assert name_of(made.choose(reads(made, fresh))) == "primary"
    assert name_of(made.choose(reads(made, old))) == "a"


def test_one_whose_position_is_not_to_be_trusted_reads_once_time_has_passed() -> None:
    made = cluster(says(member("a", reports_position=False), 100), max_lag=10)

    assert name_of(made.choose(reads(made, Position(1, 100)))) == "primary"


@pytest.mark.parametrize("weights", [(1, 1), (1, 3), (2, 1, 1), (1, 10), (0.5, 0.25)])
def test_weights_are_shares(weights: tuple[float, ...]) -> None:
    members = [says(member(str(n), weight)) for n, weight in enumerate(weights)]
    made = cluster(*members)
    total = 1200

    chosen = Counter(name_of(made.choose(None)) for _ in range(total))

    for each in members:
        assert abs(chosen[each.name] - total * each.weight / sum(weights)) <= 2


def test_one_that_comes_back_is_not_given_all_that_it_has_missed() -> None:
    a, b = says(member("a")), says(member("b"))
    made = cluster(a, b)
    b.failed("it is gone")
    for _ in range(1000):
        made.choose(None)
    says(b)

    chosen = Counter(name_of(made.choose(None)) for _ in range(100))

    assert abs(chosen["a"] - chosen["b"]) <= 2


def test_a_position_that_has_passed_tells_for_how_long() -> None:
    history = History()
    for moment, lsn in [(0.0, 10), (1.0, 20), (2.0, 20), (3.0, 30)]:
        history.add(lsn, moment)

    lags = {lsn: history.lag(lsn, 10.0) for lsn in (5, 10, 15, 20, 25, 30, 35)}

    assert lags == {5: 10.0, 10: 9.0, 15: 9.0, 20: 7.0, 25: 7.0, 30: 0.0, 35: 0.0}


def test_an_idle_primary_has_nobody_behind_it() -> None:
    history = History()
    for moment in range(100):
        history.add(10, float(moment))

    assert history.lag(10, 1000.0) == 0.0


def test_one_request_s_position_says_nothing_of_another_database() -> None:
    one, other = cluster(says(member("a"))), cluster(says(member("a")))

    assert name_of(other.choose(reads(one, UNKNOWN))) == "a"

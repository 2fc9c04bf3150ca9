"""The live document says what the workers said, in JSON, and nothing that they did not say."""

import json
import re
from dataclasses import asdict, fields
from math import inf, nan
from pathlib import Path
from typing import Any

import pytest

from penstock.fastapi import live_document
from penstock.fastapi.live_document import RecentTimes, database_document, encode
from penstock.findings import Finding, Severity
from penstock.telemetry.reading import Reading, RouteUse, StatementUse, WorkerReading
from penstock.telemetry.schema import BOUNDS, HISTOGRAMS, Counters, Histogram, Sample, bucket_of


def worker(pid: int, *out: int, start: int = 100, **more: Any) -> WorkerReading:
    """A worker whose samples have so many connections checked out, one a second."""
    history = tuple(
        Sample(start + second + 0.25, limit=10, checked_out=number)
        for second, number in enumerate(out)
    )
    return WorkerReading(pid, 1.0, history[-1], history, **more)


def timed(*seconds: float) -> Histogram:
    counts = [0] * (len(BOUNDS) + 1)
    for each in seconds:
        counts[bucket_of(each)] += 1
    return Histogram(tuple(counts), sum(seconds))


def document(reading: Reading, *, since: int = 0) -> dict[str, Any]:
    """What a browser would be told of one database."""
    recent = RecentTimes().look(0.0, reading)
    findings = [Finding("pool-exhausted", Severity.CRITICAL, "10 of 10.", "Set pool_size to 20.")]
    made = database_document("default", reading, findings, recent, since=since)
    (told,) = json.loads(encode(1.0, [made]))["databases"]
    return dict(told)


def test_the_workers_are_added_up_and_also_told_one_by_one() -> None:
    told = document(Reading("default", (worker(7, 1, 2, 3), worker(8, 4, 4, 5))))

    assert told["now"]["checked_out"] == 8
    assert told["now"]["limit"] == 20
    assert told["now"]["utilisation"] == 0.4
    assert [(each["pid"], each["now"]["checked_out"]) for each in told["workers"]] == [
        (7, 3),
        (8, 5),
    ]
    assert told["history"]["at"] == [100.25, 101.25, 102.25]
    assert told["history"]["checked_out"] == [5, 6, 8]
    assert told["history"]["utilisation"] == [0.25, 0.3, 0.4]


def test_now_and_history_have_every_field_of_a_sample() -> None:
    told = document(Reading("default", (worker(7, 1),)))
    names = {each.name for each in fields(Sample)} | {"utilisation"}

    assert set(told["now"]) == set(told["history"]) == set(told["workers"][0]["now"]) == names


def test_a_number_that_is_not_known_is_null() -> None:
    unknown = WorkerReading(7, 1.0, Sample(1.0, wait_seconds=inf, server_limit=nan))
    told = document(Reading("default", (unknown,)))

    assert told["now"]["server_limit"] is None
    assert told["now"]["wait_seconds"] is None


def test_a_second_that_one_worker_has_not_told_of_yet_is_left_out() -> None:
    told = document(Reading("default", (worker(7, 1, 1, 1), worker(8, 2, 2))))

    assert told["history"]["checked_out"] == [3, 3]


def test_a_worker_that_fell_silent_does_not_hold_the_others_up() -> None:
    told = document(Reading("default", (worker(7, *[1] * 20), worker(8, 2, 2))))

    assert told["history"]["checked_out"] == [3, 3, *[1] * 18]


@pytest.mark.parametrize("since", [0, 1, 99, 100, 110, 117, 118, 119, 500])
def test_the_history_after_a_second_is_the_end_of_the_whole(since: int) -> None:
    reading = Reading("default", (worker(7, *range(20)), worker(8, *range(19))))
    whole, rest = document(reading), document(reading, since=since)

    kept = [index for index, at in enumerate(whole["history"]["at"]) if int(at) > since]
    assert len(kept) == max(0, min(19, 118 - since))
    for column, values in whole["history"].items():
        assert rest["history"][column] == [values[index] for index in kept]
    assert rest["now"] == whole["now"]


def test_without_any_worker_it_is_empty_and_whole() -> None:
    told = document(Reading("default", ()))

    assert told["workers"] == told["routes"] == told["statements"] == []
    assert told["history"]["at"] == []
    assert told["now"]["limit"] == 0
    assert told["times"]["wait"] == {"count": 0, "mean": 0.0, "p50": 0.0, "p95": 0.0, "p99": 0.0}


def test_times_are_those_of_all_workers_that_ever_were() -> None:
    living = worker(7, 1, histograms={"wait": timed(*[0.001] * 98)})
    told = document(Reading("default", (living,), Counters(checkouts=5), {"wait": timed(1, 1)}))

    wait = told["times"]["wait"]
    assert set(told["times"]) == set(HISTOGRAMS)
    assert wait["count"] == 100
    assert wait["mean"] == round(2.098 / 100, 9)
    assert 0.001 <= wait["p50"] < 0.0012
    assert 1 <= wait["p99"] < 1.2
    assert told["counters"] == asdict(Counters(checkouts=5))


def test_recent_times_leave_out_what_was_counted_before() -> None:
    recent = RecentTimes(seconds=60)

    def look(at: float, *seconds: float) -> dict[str, Any]:
        return recent.look(
            at, Reading("default", (worker(7, 1, histograms={"hold": timed(*seconds)}),))
        )

    assert look(0.0, 1, 1)["seconds"] == 0.0
    assert look(30.0, 1, 1, 0.5)["hold"]["count"] == 1
    told = look(70.0, 1, 1, 0.5, 0.25, 0.25)
    assert (told["seconds"], told["hold"]["count"], told["hold"]["mean"]) == (40.0, 2, 0.25)
    assert told["wait"]["count"] == 0


def test_the_routes_that_hold_longest_come_first_and_are_a_hundred_at_most() -> None:
    routes = tuple(RouteUse(f"GET /{n}", 4, float(n), 0.5) for n in range(120))
    told = document(Reading("default", (worker(7, 1, routes=routes),)))["routes"]

    assert len(told) == 100
    assert told[0] == {
        "route": "GET /119",
        "checkouts": 4,
        "seconds": 119.0,
        "longest": 0.5,
        "mean": 29.75,
    }


def test_statements_are_forty_at_most() -> None:
    statements = tuple(
        StatementUse(f"SELECT {n}", "GET /", 1, float(n), 0.5, 3, 0, 9.0) for n in range(50)
    )
    told = document(Reading("default", (worker(7, 1, statements=statements),)))["statements"]

    assert len(told) == 40
    assert told[0] == asdict(statements[-1])


def test_findings_are_told_with_their_remedy() -> None:
    assert document(Reading("default", ()))["findings"] == [
        {
            "id": "pool-exhausted",
            "severity": "critical",
            "evidence": "10 of 10.",
            "remedy": "Set pool_size to 20.",
        }
    ]


def test_it_is_one_line_whatever_the_names_are() -> None:
    routes = (RouteUse("GET /\n\u2028</script>\ud800", 1, 1.0, 1.0),)
    line = encode(
        1.0,
        [database_document("a\nb", Reading("a", (worker(7, 1, routes=routes),)), [], {})],
    )

    assert len(line.splitlines()) == 1
    assert json.loads(line)["databases"][0]["routes"][0]["route"] == routes[0].route


def test_it_says_how_each_counter_and_time_is_called_and_what_is_trouble() -> None:
    told = json.loads(encode(1.0, [database_document("a", Reading("a", ()), [], {})]))
    (shown,) = told["databases"]

    assert set(told["labels"]) == {*shown["counters"], *shown["times"]}
    assert told["labels"]["waits"] == "of them waited"
    assert told["labels"]["hold"] == "Held"
    assert set(told["troubles"]) < set(shown["counters"])
    assert {"rejected", "leaks"} <= set(told["troubles"])
    assert "checkouts" not in told["troubles"]


def test_the_page_knows_how_many_routes_and_statements_a_document_has_at_most() -> None:
    script = (Path(live_document.__file__).with_name("page") / "page.js").read_text()

    assert re.findall(r"^const MOST_\w+ = (\d+);", script, re.MULTILINE) == [
        str(live_document._ROUTES),
        str(live_document._STATEMENTS),
    ]

import json

from rich.console import Console

from penstock.demo.report import DemoFigures, PoolPeaks, report
from penstock.load.result import Outcome, Recording


def figures(*errors: str | None) -> DemoFigures:
    recording = Recording(["GET /users/{id}", "POST /users/"])
    for milliseconds, error in enumerate(errors, start=1):
        recording.add("GET /users/{id}", Outcome(error=error, latency=milliseconds / 1000))
    peaks = PoolPeaks()
    for checked_out in (3, 9, 4):
        peaks.add(
            {
                "size": 5,
                "limit": 15,
                "checked_out": checked_out,
                "overflow": 4,
                "utilisation": checked_out / 15,
            }
        )
    return DemoFigures(
        database="embedded PostgreSQL",
        server_version="18.6",
        workers=2,
        users=10,
        clients=4,
        start_seconds=2.51234,
        load=recording.result(seconds=0.5),
        pool=peaks,
    )


def test_the_json_has_the_figures_of_all_requests_at_its_top() -> None:
    content = json.loads(json.dumps(figures(None, None, "503").as_json()))

    assert content["database"] == {"kind": "embedded PostgreSQL", "server_version": "18.6"}
    assert (content["workers"], content["users"], content["clients"]) == (2, 10, 4)
    assert (content["requests"], content["successes"], content["errors"]) == (3, 2, {"503": 1})
    assert content["success_rate"] == 2 / 3
    assert (content["requests_per_second"], content["seconds"]) == (6, 0.5)
    assert (content["p50_ms"], content["p99_ms"], content["start_seconds"]) == (2, 3, 2.512)


def test_the_json_has_each_kind_also_one_that_was_not_drawn() -> None:
    kinds = figures(None).as_json()["kinds"]

    assert list(kinds) == ["GET /users/{id}", "POST /users/"]
    assert (kinds["POST /users/"]["requests"], kinds["POST /users/"]["p50_ms"]) == (0, None)


def test_the_json_has_the_peaks_of_the_pool() -> None:
    assert figures(None).as_json()["pool"] == {
        "samples": 3,
        "size": 5,
        "limit": 15,
        "checked_out": 9,
        "overflow": 4,
        "utilisation": 0.6,
    }


def test_one_error_is_a_flaw() -> None:
    assert figures(None, None).flawless
    assert not figures(None, "ServerDisconnectedError").flawless


def test_the_report_fits_a_terminal_of_80_columns_and_names_the_errors() -> None:
    console = Console(width=80)
    with console.capture() as capture:
        for part in report(figures(None, "503", "503")):
            console.print(part, markup=False)
    text = capture.get()

    assert "…" not in text
    assert "Errors: 503, 2 times" in text
    assert "GET /users/{id}" in text
    assert "33.33%" in text
    assert "9 checked out at once" in text

"""``penstock load`` as it is typed."""

import json
import os
import resource
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from tests.integration.load.conftest import Service
from tests.servers.process import free_port

from penstock.cli.main import main

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs the command in this interpreter; its status, output and errors."""

    def run(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["penstock", "load", *arguments])
        monkeypatch.setenv("COLUMNS", "120")
        with pytest.raises(SystemExit) as ended:
            main()
        return int(ended.value.code or 0), *capsys.readouterr()

    return run


def figures(file: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return content


def test_a_closed_loop_with_everything_that_it_writes(
    service: Service, load: Run, tmp_path: Path
) -> None:
    before, now, page = (tmp_path / name for name in ("before.json", "now.json", "now.html"))
    common = ["--requests", "60", "--concurrency", "3", "--seed", "7"]
    target = ["--target", "GET /a/{1..9}=2", "--target", 'POST /users {"name": "{uuid}"}']

    first = load(f"{service.url}/", *common, *target, "--json", str(before))
    second = load(
        service.url,
        *common,
        *target,
        *("--json", str(now), "--html", str(page), "--compare", str(before)),
        *("--fail-if", "success<100%", "--fail-if", "errors>0"),
    )

    assert (first[0], second[0]) == (0, 0), second
    assert figures(now)["total"]["statuses"].keys() == {"200", "201"}
    assert figures(now)["total"]["requests"] == figures(before)["total"]["requests"] == 60
    assert figures(now)["kinds"].keys() == {"GET /a/{1..9}", "POST /users"}
    assert figures(now)["settings"]["seed"] == "7"
    assert "change" not in first[1]
    assert "change" in second[1]
    assert page.read_text(encoding="utf-8").startswith("<!doctype html>")


def test_an_open_loop_from_a_scenario_file(service: Service, load: Run, tmp_path: Path) -> None:
    scenario, now = tmp_path / "scenario.toml", tmp_path / "now.json"
    scenario.write_text('[[target]]\nrequest = "GET /opened/{seq}"\n')
    arguments = ["--rate", "100", "--duration", "0.5", "--warm-up", "0.3", "--arrivals", "constant"]

    status, shown, _ = load(
        service.url, *arguments, "--scenario", str(scenario), "--json", str(now)
    )

    assert status == 0
    assert figures(now)["total"]["requests"] == 50
    assert figures(now)["settings"]["loop"] == "open"
    assert "GET /opened/{seq}" in shown
    assert service.count("GET /opened/80") == 1


def test_the_path_of_the_url_is_the_target_where_there_is_no_other(
    service: Service, load: Run
) -> None:
    status, _, _ = load(f"{service.url}/only/this?and=that", "--requests", "3")

    assert (status, service.count("GET /only/this")) == (0, 3)


def test_headers_come_from_the_option_and_from_the_environment(
    service: Service, load: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    url, condition = f"{service.url}/private", ("--fail-if", "success<100%")
    given = ("--header", "Authorization: Bearer one")
    now = tmp_path / "now.json"

    without, *_ = load(url, "--requests", "2", *condition)
    by_option, *_ = load(url, "--requests", "2", *condition, *given, "--json", str(now))
    monkeypatch.setenv("PENSTOCK_WATCH_HEADER", "Authorization: Bearer one")
    by_variable, *_ = load(url, "--requests", "2", *condition)

    assert (without, by_option, by_variable) == (3, 0, 0)
    assert "Bearer" not in now.read_text()


def test_a_threshold_that_is_passed_is_the_status_and_a_line(service: Service, load: Run) -> None:
    status, _, errors = load(
        service.url, "--requests", "9", "--fail-if", "p99>0us", "--fail-if", "p99>1s"
    )

    assert (status, errors.count("\n")) == (3, 1)
    assert errors.startswith("Failed: p99>0us: ")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("ftp://127.0.0.1",), "is not the URL of a service"),
        (("http://[::1",), "is no URL"),
        (("http://u:secret@127.0.0.1",), "must not contain a user or password"),
        (("http://u:secret@[::1",), "is no URL"),
        (("h/?token=secret", "--target", "GET /"), "a path in front"),
        (("h", "--target", "GET /?token=secret&limit=1"), "the value of 'limit'"),
        (("h/?a=1", "--target", "GET /"), "a path in front"),
        (("h", "--rate", "5", "--concurrency", "5"), "--concurrency, --rate: "),
        (("h", "--duration", "5", "--requests", "5"), "--duration, --requests: "),
        (("h", "--json", "/nowhere/a.json"), "--json /nowhere/a.json: "),
        (("h", "--html", "/nowhere/a.html"), "--html /nowhere/a.html: "),
        (("h", "--locust", "/nowhere/a.py"), "--locust /nowhere/a.py: "),
        (("h", "--compare", "/nowhere/a.json"), "--compare /nowhere/a.json: "),
        (("h", "--scenario", "/nowhere/a.toml"), "--scenario /nowhere/a.toml: "),
        (("h", "--target", "/users"), "--target '/users': "),
        (("h", "--fail-if", "p99"), "--fail-if 'p99': "),
        (("h", "--fail-if", "p99>+5%"), "--fail-if 'p99>+5%': --compare"),
        (("h", "--header", "secret"), "'Name: value'"),
        (("h", "--target", "GET /", "--target", "GET /"), "each name once"),
    ],
)
def test_what_cannot_be_run_is_refused_in_a_sentence(
    load: Run, arguments: tuple[str, ...], said: str
) -> None:
    status, shown, errors = load(*arguments)

    assert (status, shown) == (2, "")
    assert errors.startswith("penstock: ")
    assert said in errors
    assert "secret" not in errors.replace("may be secret", "")


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("--concurrency", "0"),
        ("--rate", "0"),
        ("--duration", "0"),
        ("--requests", "0"),
        ("--timeout", "0"),
        ("--warm-up", "-1"),
        ("--connections", "0"),
        ("--arrivals", "uniform"),
        ("--rate", "many"),
    ],
)
def test_a_number_out_of_range_is_refused(load: Run, option: str, value: str) -> None:
    status, _, errors = load("h", option, value)

    assert status == 2
    assert option in errors


@pytest.mark.parametrize(
    ("option", "accepted"),
    [
        ("--rate", "0.01 to 100,000"),
        ("--duration", "0.1 to 86,400"),
        ("--warm-up", "0 to 3,600"),
        ("--timeout", "0.001 to 3,600"),
    ],
)
@pytest.mark.parametrize("value", ["nan", "inf", "-1"])
def test_what_is_no_number_is_refused_with_the_range(
    load: Run, option: str, value: str, accepted: str
) -> None:
    status, _, errors = load("h", option, value)

    assert status == 2
    assert f"{value} was given; {accepted} accepted" in errors


def test_a_service_that_does_not_answer_is_not_loaded(service: Service, load: Run) -> None:
    tls = service.url.replace("http:", "https:")
    silent = socket.create_server(("127.0.0.1", 0))
    with silent:
        port = silent.getsockname()[1]
        told = [
            load("http://127.0.0.1:1"),
            load(tls),
            load(f"http://127.0.0.1:{port}", "--timeout", "0.2"),
        ]

    assert [(status, shown) for status, shown, _ in told] == [(1, "")] * 3
    for (_, _, errors), reason in zip(
        told, ("connection refused", "TLS handshake failed", "timed out after 0.2 s"), strict=True
    ):
        assert f"does not answer: {reason}" in errors


@pytest.mark.parametrize("loop", ["--concurrency", "--rate"])
def test_a_run_in_which_nothing_succeeded_has_failed(
    service: Service, load: Run, loop: str
) -> None:
    status, shown, errors = load(f"{service.url}/private", "--requests", "3", loop, "9")

    assert (status, errors) == (3, "Failed: no request succeeded\n")
    assert "401: 3" in shown


def test_a_secret_of_the_query_is_sent_and_only_the_locust_file_has_it(
    service: Service, load: Run, tmp_path: Path
) -> None:
    url = f"{service.url}/secret?token=TOP&x=1"
    report, page, locust = (tmp_path / name for name in ("now.json", "now.html", "locustfile.py"))

    status, *told = load(url, "--requests", "2", "--json", str(report), "--html", str(page))
    _, *warned = load(url, "--locust", str(locust))

    assert (status, service.count("GET /secret")) == (0, 2)
    shown = [*told, *warned, report.read_text(), page.read_text()]
    assert [text for text in shown if "TOP" in text] == []
    assert "/secret?token=***&x=1" in report.read_text()
    assert "token=TOP" in locust.read_text()
    assert "keep it as one" in locust.read_text()
    assert "called like secrets" in warned[1]


def test_more_connections_than_open_files_are_allowed_or_refused(
    service: Service, load: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    limits: list[tuple[int, int]] = []
    monkeypatch.setattr(resource, "setrlimit", lambda _, limit: limits.append(limit))
    monkeypatch.setattr(resource, "getrlimit", lambda _: (60, 100))
    few, many = ("--requests", "5", "--concurrency"), ("--rate", "5", "--connections")

    assert load(service.url, *few, "10")[0] == 0
    assert limits == []
    assert load(service.url, *few, "70")[0] == 0
    assert limits == [(94, 100)]
    status, _, errors = load(service.url, *many, "77")
    assert status == 2
    assert "--connections 77: at most 76" in errors


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_with_the_results_so_far(
    service: Service, load: Run, tmp_path: Path, number: signal.Signals
) -> None:
    file, path = tmp_path / "now.json", f"/until/{number.name}"

    def send() -> None:
        while service.count(f"GET {path}") < 20:
            time.sleep(0.05)
        os.kill(os.getpid(), number)

    sending = Thread(target=send, daemon=True)
    sending.start()
    status, shown, errors = load(
        service.url + path, "--rate", "100", "--duration", "60", "--json", str(file)
    )
    sending.join()

    assert (status, errors) == (128 + number, "")
    assert path in shown
    sent = figures(file)
    received = service.count(f"GET {path}")
    assert 20 <= sent["total"]["successes"] <= received < 3000
    assert sent["total"]["requests"] + sent["generator"]["unfinished"] >= received


@pytest.mark.timeout(240)  # three interpreters, each with much to import
def test_locust_sends_the_same_from_two_workers(
    service: Service, load: Run, tmp_path: Path
) -> None:
    file = tmp_path / "locustfile.py"
    targets = ["--target", "GET /locust/{1..9}=3", "--target", 'POST /users {"l": "{uuid}"}=1']
    limits = ["--concurrency", "4", "--rate", "40"]
    posted = service.count("POST /users")

    def sent() -> tuple[int, int]:
        gets = sum(service.count(f"GET /locust/{number}") for number in range(1, 10))
        return gets, service.count("POST /users") - posted

    assert load(service.url, *targets, *limits, "--locust", str(file))[0] == 0
    stats = run_locust(file, tmp_path / "stats.json", until=lambda: sum(sent()) >= 60)

    # Those that its four users had under way at the end are in none of its numbers.
    gets, posts = sent()
    assert stats.keys() == {"GET /locust/{1..9}", "POST /users"}
    assert {failures for _, failures in stats.values()} == {0}
    assert gets - 4 <= stats["GET /locust/{1..9}"][0] <= gets
    assert posts - 4 <= stats["POST /users"][0] <= posts < gets


def run_locust(file: Path, report: Path, until: Callable[[], bool]) -> dict[str, tuple[int, int]]:
    """Run a master and two workers; return the requests and failures of each name."""
    port = str(free_port())
    command = [sys.executable, "-m", "locust", "-f", str(file)]
    master = [
        *(*command, "--master", "--headless", "--expect-workers", "2", "-u", "4", "-r", "4"),
        *("--master-bind-host", "127.0.0.1", "--master-bind-port", port),
        *("--stop-timeout", "5", "--json-file", str(report.with_suffix(""))),
    ]
    worker = [*command, "--worker", "--master-host", "127.0.0.1", "--master-port", port]
    processes = [
        subprocess.Popen(each, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        for each in (master, worker, worker)
    ]
    deadline = time.monotonic() + 150
    try:
        while not until() and time.monotonic() < deadline:
            time.sleep(0.1)
        processes[0].terminate()
        outputs = [process.communicate(timeout=30)[0].decode() for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert [process.returncode for process in processes] == [0, 0, 0], outputs
    rows = json.loads(report.read_text())
    return {row["name"]: (row["num_requests"], row["num_failures"]) for row in rows}

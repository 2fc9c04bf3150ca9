"""``penstock watch`` as it is typed, at a server that speaks as a service does."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest
from tests.unit.cli.live_service import LiveService, database, document, serving
from tests.unit.cli.pseudo_terminal import PseudoTerminal

# Each starts a process and waits for what it says.
pytestmark = [pytest.mark.slow, pytest.mark.real_time]

SECRET = "Authorization: Bearer hunter2"
FIRST = json.dumps(document())
NEXT = json.dumps(document(database("next", seconds=1)))


def variables(**more: str) -> dict[str, str]:
    kept = {
        name: value
        for name, value in os.environ.items()
        if name not in {"NO_COLOR", "FORCE_COLOR", "COLUMNS", "LINES"}
    }
    return {**kept, "TERM": "xterm-256color", "PYTHONUTF8": "1", **more}


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "penstock", "watch", *arguments]


def watch(*arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(*arguments),
        capture_output=True,
        check=False,
        encoding="utf-8",
        env=variables(**more),
        timeout=60,
    )


@contextmanager
def watching(*arguments: str, **more: str) -> Iterator[subprocess.Popen[str]]:
    """The command with pipes for its output, ended at the end."""
    with subprocess.Popen(
        command(*arguments),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
        env=variables(**more),
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def test_once_prints_a_frame_without_colours() -> None:
    with serving() as service:
        told = watch(service.url, "--once")

    assert (told.returncode, told.stderr) == (0, "")
    assert "6 of 15 in use (40%)" in told.stdout
    assert "every-connection-out" in told.stdout
    assert "\x1b" not in told.stdout
    assert max(map(len, told.stdout.splitlines())) <= 80


def test_once_with_json_prints_the_document() -> None:
    with serving() as service:
        told = watch(service.url, "--once", "--json")

    assert json.loads(told.stdout) == document()
    assert told.stdout.count("\n") == 1


def test_json_is_printable_whatever_it_says() -> None:
    state = json.dumps(document(database("\x9b31m\x7f\ud800ü")), ensure_ascii=True)
    raw = state.replace("\\u009b", "\x9b").replace("\\u007f", "\x7f")
    with serving(LiveService([raw])) as service:
        told = watch(service.url, "--once", "--json")

    assert told.stdout.removesuffix("\n").isascii()
    assert told.stdout.removesuffix("\n").isprintable()
    assert json.loads(told.stdout)["databases"][0]["name"] == "\x9b31m\x7f\ud800ü"


def test_json_goes_on_line_by_line_and_over_a_failure() -> None:
    service = LiveService([FIRST, NEXT, 503, FIRST, NEXT])
    with serving(service), watching(service.url, "--json") as process:
        assert process.stdout is not None
        assert process.stderr is not None
        lines = [json.loads(process.stdout.readline()) for _ in range(4)]
        told = process.stderr.readline()
        process.send_signal(signal.SIGINT)
        rest = process.communicate(timeout=60)

    names = [line["databases"][0]["name"] for line in lines]
    assert names == ["default", "next", "default", "next"]
    assert "answers 503 Service Unavailable" in told
    assert told.endswith("Trying again in 1 s.\n")
    assert rest[1] == ""
    assert process.returncode == 130


def test_a_reader_that_goes_away_ends_it_quietly() -> None:
    with serving() as service, watching(service.url, "--json") as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == ""
        assert process.wait(30) == 1


def test_without_a_terminal_frames_follow_each_other() -> None:
    service = LiveService([FIRST, NEXT])
    with serving(service), watching(service.url) as process:
        assert process.stdout is not None
        until = iter(process.stdout.readline, "")
        first = next(line for line in until if " in use (" in line)
        second = next(line for line in until if " in use (" in line)

    assert [first.split()[0], second.split()[0]] == ["default", "next"]


def test_one_database_can_be_picked() -> None:
    state = json.dumps(document(database("default"), database("reports")))
    with serving(LiveService([state])) as service:
        picked = watch(service.url, "--once", "--database", "reports")
        missed = watch(service.url, "--once", "--database", "other")

    assert "reports  " in picked.stdout
    assert "default  " not in picked.stdout
    assert (missed.returncode, missed.stdout) == (1, "")
    assert "those that it shows are: default, reports" in missed.stderr


@pytest.mark.parametrize(
    ("arguments", "more"),
    [
        (("--header", SECRET, "--header", "X-Team: one"), {}),
        ((), {"PENSTOCK_WATCH_HEADER": f"{SECRET}\nX-Team: one"}),
        (("--header", "X-Team: one"), {"PENSTOCK_WATCH_HEADER": SECRET}),
    ],
)
def test_headers_come_from_options_and_from_the_environment(
    arguments: tuple[str, ...], more: Mapping[str, str]
) -> None:
    with serving() as service:
        assert watch(service.url, "--once", *arguments, **more).returncode == 0

    _, headers = service.asked[0]
    assert headers["Authorization"] == "Bearer hunter2"
    assert headers["X-Team"] == "one"


@pytest.mark.parametrize(
    ("service", "arguments", "said"),
    [
        (LiveService(status=401), (), "give --header"),
        (LiveService(status=403), ("--header", SECRET, "--once"), "does not accept the header"),
        (LiveService(status=404), ("--json",), "access=..."),
        (LiveService(), ("--header", "hunter2"), "'Name: value'"),
    ],
    ids=lambda value: None if isinstance(value, LiveService) else str(value),
)
def test_what_is_wrong_at_the_start_ends_it_with_a_remedy(
    service: LiveService, arguments: tuple[str, ...], said: str
) -> None:
    with serving(service):
        told = watch(service.url, *arguments)

    assert (told.returncode, told.stdout) == (1, "")
    assert told.stderr.startswith("penstock: ")
    assert said in told.stderr
    assert "hunter2" not in told.stderr
    assert "Traceback" not in told.stderr


def test_a_url_without_a_scheme_is_http() -> None:
    with serving() as service:
        assert watch(service.url.removeprefix("http://"), "--once").returncode == 0


def test_characters_that_the_output_cannot_hold_are_no_error() -> None:
    state = json.dumps(document(database("größe 大")))
    with serving(LiveService([state])) as service:
        told = watch(service.url, "--once", PYTHONUTF8="0", PYTHONIOENCODING="ascii")

    assert told.returncode == 0
    assert "gr??e ?" in told.stdout


def test_help_teaches_by_examples() -> None:
    told = watch("--help", COLUMNS="100", TERM="dumb").stdout
    page = (Path(__file__).parents[3] / "docs/watch.md").read_text(encoding="utf-8")

    for option in ("once", "json", "header", "database", "timeout"):
        assert f"--{option} " in told
        assert f"| `--{option}" in page
    assert "penstock watch http://127.0.0.1:8000 --once --json" in told
    assert "install(app, database)" in told


def test_a_terminal_is_drawn_on_and_given_back() -> None:
    service = LiveService([FIRST, NEXT])
    with serving(service), PseudoTerminal(command(service.url), variables()) as terminal:
        drawn = terminal.until("mnext")
        terminal.process.send_signal(signal.SIGINT)
        rest = terminal.rest()

    assert terminal.process.returncode == 130
    assert "\x1b[?1049h" in drawn
    assert "\x1b[?1049l" in rest
    assert "\x1b[?25h" in rest
    assert "\x1b[32m" in drawn
    frame = terminal.frames()[-1]
    assert len(frame) == 24
    assert max(map(len, frame)) <= 80
    assert frame[0].endswith("live")


def test_no_color_is_obeyed() -> None:
    with (
        serving() as service,
        PseudoTerminal(command(service.url), variables(NO_COLOR="1")) as terminal,
    ):
        drawn = terminal.until("pid 4711")

    assert not any(f"[{code}" in drawn for code in (*range(30, 38), "1;3"))


def test_a_failure_is_told_on_the_screen_until_it_is_over() -> None:
    service = LiveService([FIRST, None, NEXT])
    with serving(service), PseudoTerminal(command(service.url), variables()) as terminal:
        told = terminal.until("does not answer in HTTP")
        terminal.until("mnext")

    assert "Trying again in 1 s." in told
    assert "s old" in told


def test_the_age_of_the_numbers_grows_while_an_answer_is_waited_for() -> None:
    with serving() as service, PseudoTerminal(command(service.url), variables()) as terminal:
        terminal.until("pid 4711")
        with service.silent():
            terminal.until("4 s old")
        terminal.until("live")


def test_the_terminal_is_given_back_by_sigterm_too() -> None:
    with serving() as service, PseudoTerminal(command(service.url), variables()) as terminal:
        terminal.until("pid 4711")
        terminal.process.terminate()
        rest = terminal.rest()

    assert terminal.process.returncode == 143
    assert "\x1b[?1049l" in rest


def test_a_new_size_is_drawn_in() -> None:
    with serving() as service, PseudoTerminal(command(service.url), variables()) as terminal:
        terminal.until("pid 4711")
        terminal.resize(40, 10)
        terminal.until("\x1b[H", times=3)

    frame = terminal.frames()[-2]
    assert len(frame) == 10
    assert max(map(len, frame)) <= 40

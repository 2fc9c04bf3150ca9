"""What a benchmark's outcome says about its targets, and what the command makes of it."""

import json
import sys

import pytest
from benchmarks import __main__ as command
from benchmarks.result import Result, Target


def result_of(measured: float | None) -> Result:
    figures = {"speed": {"penstock": measured, "stock": 2.0}}
    return Result("speed", {"rounds": 1}, figures, {"speed": Target(measured, at_most=1.0)})


def run(monkeypatch: pytest.MonkeyPatch, arguments: str, **results: Result) -> int:
    benchmarks = {name: lambda _, name=name: results[name] for name in results}
    monkeypatch.setattr(command, "BENCHMARKS", benchmarks)
    monkeypatch.setattr(sys, "argv", ["benchmarks", *arguments.split()])
    return command.main()


@pytest.mark.parametrize(
    ("target", "met"),
    [
        (Target(1.0, at_most=1.0), True),
        (Target(1.01, at_most=1.0), False),
        (Target(0.95, at_least=0.95), True),
        (Target(0.94, at_least=0.95), False),
        (Target(None, at_most=1.0), False),
        (Target(None, at_least=1.0), False),
    ],
)
def test_a_target_is_met_within_its_bounds_and_never_without_a_figure(
    target: Target, met: bool
) -> None:
    assert target.met is met


def test_a_benchmark_by_name_is_printed_as_itself(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    status = run(monkeypatch, "speed --json", speed=result_of(0.5), other=result_of(0.5))

    assert status == 0
    assert json.loads(capsys.readouterr().out) == {
        "benchmark": "speed",
        "conditions": {"rounds": 1},
        "figures": {"speed": {"penstock": 0.5, "stock": 2.0}},
        "targets": {"speed": {"measured": 0.5, "at_most": 1.0, "met": True}},
        "ok": True,
    }


def test_all_benchmarks_are_printed_by_name_and_one_that_misses_fails_the_command(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    status = run(monkeypatch, "--json", speed=result_of(0.5), other=result_of(1.5))

    assert status == 1
    printed = json.loads(capsys.readouterr().out)
    assert {name: result["ok"] for name, result in printed.items()} == {
        "other": False,
        "speed": True,
    }


def test_without_json_the_terminal_shows_figures_and_which_target_is_missed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "100")

    status = run(monkeypatch, "speed", speed=result_of(1.5))

    assert status == 1
    rows = [line.split() for line in capsys.readouterr().out.replace("│", " ").splitlines()]
    assert ["speed", "1.5", "2.0"] in rows
    assert ["speed", "1.5", "at_most", "1.0", "NO"] in rows

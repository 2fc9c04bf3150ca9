"""The command as it is typed."""

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import entry_points, version
from pathlib import Path

import pytest

from penstock.cli.main import main

pytestmark = pytest.mark.slow


@dataclass
class Told:
    """What a run of the command has written, and its status."""

    returncode: int
    stdout: str
    stderr: str


Run = Callable[..., Told]


def started(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run the command in an interpreter of its own."""
    return subprocess.run(
        [sys.executable, "-m", "penstock", *arguments],
        capture_output=True,
        check=False,
        env={**os.environ, **variables},
        text=True,
        timeout=60,
    )


@pytest.fixture
def penstock(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs the command in this interpreter, on a terminal of a hundred columns."""

    def run(*arguments: str) -> Told:
        monkeypatch.setattr(sys, "argv", ["penstock", *arguments])
        monkeypatch.setenv("COLUMNS", "100")
        with pytest.raises(SystemExit) as ended:
            main()
        assert isinstance(ended.value.code, int)
        return Told(ended.value.code, *capsys.readouterr())

    return run


def test_the_installed_command_is_main() -> None:
    (script,) = entry_points(group="console_scripts", name="penstock")

    assert script.load() is main


def test_it_tells_its_version() -> None:
    assert started("--version").stdout == f"penstock {version('penstock')}\n"


def test_help_teaches_by_an_example(penstock: Run) -> None:
    told = penstock("--help")

    assert told.returncode == 0
    assert "penstock demo" in told.stdout


def test_every_option_of_the_demo_is_explained(penstock: Run) -> None:
    told = penstock("demo", "--help").stdout

    for option in ("port", "workers", "users", "requests", "clients", "once", "json"):
        assert f"--{option} " in told
    assert "penstock demo --once --json figures.json" in told
    assert "DATABASE_URL=" in told


def test_without_a_command_it_shows_the_help(penstock: Run) -> None:
    assert "Usage: penstock" in penstock().stdout


@pytest.mark.parametrize(
    "arguments", [("--workers", "0"), ("--port", "70000"), ("--users", "many"), ("--twice",)]
)
def test_a_wrong_option_is_refused(penstock: Run, arguments: tuple[str, ...]) -> None:
    refused = penstock("demo", *arguments)

    assert refused.returncode == 2
    assert arguments[0] in refused.stderr


def test_figures_for_a_directory_that_is_not_there_are_refused_before_the_start(
    penstock: Run,
) -> None:
    refused = penstock("demo", "--once", "--json", "/nowhere/figures.json")

    assert (refused.returncode, refused.stdout) == (1, "")
    assert refused.stderr.startswith("penstock: --json /nowhere/figures.json:")


@pytest.mark.parametrize(
    ("package", "arguments", "extra"),
    [
        ("typer", ("--version",), "cli"),
        ("argon2", ("demo",), "demo"),
        ("aiohttp", ("demo",), "demo"),
        ("alembic", ("demo",), "demo"),
        ("fastapi", ("demo",), "demo"),
        ("aiohttp", ("load", "http://127.0.0.1:1"), "load"),
        ("copier", ("new", "/nowhere/service"), "new"),
    ],
)
def test_a_missing_extra_is_explained(
    tmp_path: Path, package: str, arguments: tuple[str, ...], extra: str
) -> None:
    (tmp_path / "sitecustomize.py").write_text(f"import sys; sys.modules[{package!r}] = None")

    told = started(*arguments, PYTHONPATH=str(tmp_path))

    assert (told.returncode, told.stdout) == (1, "")
    assert f"pip install 'penstock[{extra}]'" in told.stderr
    assert f"package {package}," in told.stderr
    assert "Traceback" not in told.stderr


@pytest.mark.parametrize("package", ["typer", "penstock.cli.load", "aiohttp", "uvloop"])
def test_ctrl_c_during_an_import_of_a_command_ends_it_quietly(tmp_path: Path, package: str) -> None:
    (tmp_path / "sitecustomize.py").write_text(
        "import os, signal, sys\n"
        "class Interrupting:\n"
        "    def find_spec(self, name, *_):\n"
        f"        if name == {package!r}:\n"
        "            os.kill(os.getpid(), signal.SIGINT)\n"
        "sys.meta_path.insert(0, Interrupting())\n"
    )

    told = started("load", "http://127.0.0.1:1", PYTHONPATH=str(tmp_path))

    assert (told.returncode, told.stdout, told.stderr) == (130, "", "")

"""``python -m tests.run``: which failures get a second run, and with which status it ends."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
FEW_PLUGINS = {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTEST_PLUGINS": "xdist.plugin"}
"""Others take a second to import in each process."""
PASSES = "def test_passes(): pass\n"
FAILS = "def test_fails(): assert 0\n"
AT_FIRST = """
import pathlib
def at_first():
    seen = pathlib.Path('seen')
    if not seen.exists():
        seen.touch()
        assert 0
"""
MARKED = "import pytest\npytestmark = pytest.mark.real_time\n"
MARKED_ONCE = f"{MARKED}{AT_FIRST}def test_late(): at_first()\n"
MARKED_SET_UP = (
    f"{MARKED}{AT_FIRST}@pytest.fixture\ndef server(): at_first()\ndef test_late(server): pass\n"
)

CASES = {
    "all pass": ([PASSES], 0, [], "needed a second run: 0"),
    "late once": ([PASSES, MARKED_ONCE], 0, [], "needed a second run: 1"),
    "late once in a fixture": ([MARKED_SET_UP], 0, [], "needed a second run: 1"),
    "late once, in two processes": ([PASSES, MARKED_ONCE], 0, ["-n2"], "needed a second run: 1"),
    "late twice": ([MARKED + FAILS], 1, [], "needed a second run: 1"),
    "unmarked fails": ([FAILS], 1, [], None),
    "unmarked fails beside a late one": ([FAILS, MARKED_ONCE], 1, [], None),
    "unmarked fails in two processes": ([FAILS, MARKED_ONCE], 1, ["-n2"], None),
    "stopped at the first failure": ([MARKED_ONCE, FAILS], 1, ["-x"], None),
    "unreadable": (["import nothing\n", MARKED_ONCE], 2, [], None),
    "unreadable, and going on": (
        ["import nothing\n", MARKED_ONCE],
        1,
        ["--continue-on-collection-errors"],
        None,
    ),
    "unreadable in two processes": (["import nothing\n", MARKED_ONCE], 1, ["-n2"], None),
    "interrupted": (["def test_stop(): raise KeyboardInterrupt\n", MARKED_ONCE], 2, [], None),
    "wrong option": ([PASSES], 4, ["--no-such-option"], None),
    "no tests": (["\n"], 5, [], None),
}


@pytest.mark.parametrize("case", CASES)
def test_the_status_and_the_last_line(case: str, tmp_path: Path) -> None:
    files, status, options, last = CASES[case]
    (tmp_path / "pytest.ini").write_text("[pytest]\nmarkers = real_time\n")
    for number, text in enumerate(files):
        (tmp_path / f"test_{number}.py").write_text(text)

    done = subprocess.run(
        [sys.executable, "-m", "tests.run", "-p", "no:cacheprovider", *options],
        capture_output=True,
        check=False,
        cwd=tmp_path,
        env={**os.environ, **FEW_PLUGINS, "PYTHONPATH": str(ROOT)},
        text=True,
    )

    lines = done.stdout.splitlines()
    assert done.returncode == status, done.stdout + done.stderr
    assert [line for line in lines if line.startswith("needed")] == ([last] if last else [])
    if last == "needed a second run: 1":
        assert lines[-2].startswith(f"test_{len(files) - 1}.py::test_")
        assert lines[-1] == last

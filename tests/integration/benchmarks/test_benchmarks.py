"""Each benchmark runs; what it measures decides nothing here."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize("name", ["http_sessions"])
def test_a_benchmark_prints_one_json_object_with_figures(name: str) -> None:
    run = subprocess.run(
        [sys.executable, "-m", "benchmarks", name, "--short", "--json"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )

    assert run.returncode == 0, run.stderr
    for figures in json.loads(run.stdout)[name]["figures"].values():
        assert figures["ratio"] > 0

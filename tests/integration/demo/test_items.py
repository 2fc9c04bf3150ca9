import runpy
from pathlib import Path

import pytest
from tests.servers.web import client_of

EXAMPLE = Path(__file__).parents[3] / "examples" / "items.py"


async def test_the_ten_line_example_answers_a_number(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    app = runpy.run_path(str(EXAMPLE))["app"]

    async with client_of(app) as client:
        answer = await client.get("/items")
        health = await client.get("/health")

    assert (answer.status_code, answer.json()) == (200, 42)
    assert health.status_code == 200
    assert (tmp_path / "items.db").exists()


def test_the_example_has_about_ten_lines_of_code() -> None:
    lines = [line for line in EXAMPLE.read_text().splitlines() if line.strip()]

    assert len(lines) <= 10

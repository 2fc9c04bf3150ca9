"""The trips can be made and counted, and no circle of imports is added."""

import json
from pathlib import Path

import pytest
from tests import trips

# Modules that are in a circle of imports, those for types counted. Never to be raised.
IN_CIRCLES = 0
MOST_FILES = (19, 13, 13, 20)
"""That a reader opens to follow a session, a read, a connection and a metric."""


def test_the_trips_are_counted(
    database_url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trips.main(["--url", database_url, "--json", str(tmp_path / "trips.json")])

    told = capsys.readouterr().out
    found = json.loads((tmp_path / "trips.json").read_text(encoding="utf-8"))
    session, read, connection, metric = found["trips"]
    # Those that the trips are about, also within a greenlet and in another thread.
    assert "database/write_session.py" in session["files"]
    assert "express/reader.py" in read["files"]
    assert "pool/record.py" in connection["files"]
    assert "telemetry/workers.py" in metric["files"]
    for trip, most in zip(found["trips"], MOST_FILES, strict=True):
        assert len(trip["files"]) <= most, trip["files"]
        assert len(trip["files"]) <= trip["moves"] + 1 <= trip["calls"]
        assert trip["name"] in told


def test_no_module_is_added_to_a_circle() -> None:
    circles = trips.modules().circles

    assert sum(map(len, circles)) <= IN_CIRCLES, circles

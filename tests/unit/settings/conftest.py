"""Keeps the developer's own environment and ``.env`` out of every test of settings."""

import os
from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in list(os.environ):
        if name.upper().startswith(("DATABASE_", "ANALYTICS_")):
            monkeypatch.delenv(name)
    for name in ("ENVIRONMENT", "WEB_CONCURRENCY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)

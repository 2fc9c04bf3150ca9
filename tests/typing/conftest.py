"""One cache for every run of mypy, of which only the first reads the libraries."""

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory for mypy's cache, and for the file that it reads."""
    return tmp_path_factory.mktemp("mypy")

"""Two databases on one server."""

from collections.abc import Iterator

import pytest
from tests.servers.postgres import PostgresServer


@pytest.fixture
def postgres_urls(postgres: PostgresServer) -> Iterator[tuple[str, str]]:
    """The URLs of two empty databases."""
    with postgres.database() as one, postgres.database() as other:
        yield one, other

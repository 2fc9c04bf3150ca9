"""Where a database is, and what its pool is called for it."""

import pytest
from sqlalchemy import make_url

from penstock.exporters.opentelemetry import attributes_of, pool_name_of


@pytest.mark.parametrize(
    ("url", "address", "port", "name"),
    [
        ("postgresql+asyncpg://anna:secret@db.internal/app", "db.internal", 5432, "app"),
        ("postgresql+asyncpg://db:6432/app", "db", 6432, "app"),
        ("postgresql+psycopg:///app?host=/run/postgresql", "/run/postgresql", None, "app"),
        ("postgresql+asyncpg:///app?host=one&host=two", "one", 5432, "app"),
        ("postgresql+asyncpg:///app?host=::1", "::1", 5432, "app"),
        ("postgresql+asyncpg:///app?host=one:5433&host=two:5432", "one", 5433, "app"),
        ("postgresql+asyncpg://one/app?port=5433", "one", 5433, "app"),
        ("postgresql+asyncpg://localhost/app?host=/run/a:b", "/run/a:b", None, "app"),
        ("mysql+asyncmy://db/app", "db", 3306, "app"),
        ("sqlite+aiosqlite:///app.db", None, None, "app.db"),
    ],
)
def test_a_url_says_where_and_not_who(
    url: str, address: str | None, port: int | None, name: str
) -> None:
    attributes = attributes_of(make_url(url))

    assert attributes.get("server.address") == address
    assert attributes.get("server.port") == port
    assert attributes["db.namespace"] == name
    assert "anna" not in str(attributes)
    assert "secret" not in str(attributes)


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("postgresql+asyncpg://db/app", "db:5432/app"),
        ("postgresql+psycopg:///app?host=/run/postgresql", "/run/postgresql/app"),
        ("postgresql+asyncpg:///app?host=one:6432&host=two:5432", "one:6432/app"),
        ("sqlite+aiosqlite://", "sqlite/"),
    ],
)
def test_a_pool_is_named_as_the_conventions_have_it(url: str, name: str) -> None:
    assert pool_name_of(attributes_of(make_url(url))) == name

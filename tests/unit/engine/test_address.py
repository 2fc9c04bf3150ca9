"""How a database is named in an error."""

import pytest

from penstock.engine.address import address_of
from penstock.settings import DatabaseSettings


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("postgresql://app:secret@db.internal:6432/app", "database app at db.internal:6432"),
        ("postgresql://app:secret@db.internal/app", "database app at db.internal:5432"),
        ("postgresql+psycopg://app:secret@[::1]/app", "database app at [::1]:5432"),
        ("postgresql://app:secret@db.internal", "db.internal:5432"),
        ("postgresql://app:secret@/app", "database app at localhost:5432"),
        ("postgresql://app:secret@/app?host=/run/pg", "database app at /run/pg"),
        (
            "postgresql://app:secret@localhost/app?host=/cloudsql/a:b:c",
            "database app at /cloudsql/a:b:c",
        ),
        ("postgresql://app:secret@one/app?port=6432", "database app at one:6432"),
        ("postgresql://app:secret@/app?host=one,two&port=1,2", "database app at one:1, two:2"),
        ("postgresql://app:secret@/app?host=one:&host=two:1", "database app at one, two:1"),
        ("postgresql://app:secret@/app?host=one,two", "database app at one:5432, two:5432"),
        ("postgresql://app:secret@one,two:6432/app", "database app at one:5432, two:6432"),
        ("mysql+asyncmy://app:secret@db.internal/app", "database app at db.internal:3306"),
        ("mysql+asyncmy://app:secret@/app?unix_socket=/run/m", "database app at /run/m"),
        ("mysql+asyncmy://app:secret@host/app?unix_socket=/run/m", "database app at /run/m"),
        ("sqlite:///data/app.db", "the file data/app.db"),
        ("sqlite://", "the file :memory:"),
    ],
)
def test_the_address_has_host_port_and_database_but_nobodys_name(url: str, address: str) -> None:
    assert address_of(DatabaseSettings.of(url)) == address

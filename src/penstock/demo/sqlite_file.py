"""An SQLite file, for where PostgreSQL does not run."""

from pathlib import Path

from penstock.demo.storage import Storage, without_database_variables
from penstock.settings import DatabaseSettings

__all__ = ["sqlite_file"]


def sqlite_file(directory: Path) -> Storage:
    """Return an SQLite database in a directory, which whoever removes that removes too."""
    url = f"sqlite+aiosqlite:///{directory / 'users.db'}"
    return Storage(
        kind="SQLite",
        settings=DatabaseSettings.of(url, echo=False),
        variables={**without_database_variables(), "DATABASE_URL": url},
    )

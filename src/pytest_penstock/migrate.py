"""The program that runs a project's migrations on the test database, whatever their files say."""

import os
import sys
from argparse import Namespace

from alembic.config import CommandLine, Config
from sqlalchemy import make_url
from sqlalchemy.exc import ArgumentError
from typing_extensions import override

from penstock.settings import DatabaseSettings


class OnTestDatabase(CommandLine):
    """Alembic's program, to whose configuration the test database is the database.

    Args:
        url: Of the test database.
    """

    def __init__(self, url: str) -> None:
        super().__init__()
        self._url = url

    @override
    def run_cmd(self, config: Config, options: Namespace) -> None:
        config.attributes["settings"] = DatabaseSettings.of(self._url, environment="testing")
        config.set_main_option("sqlalchemy.url", self._url_like(config).replace("%", "%%"))
        super().run_cmd(config, options)

    def _url_like(self, config: Config) -> str:
        """Return the URL with the driver that the configuration names."""
        url = make_url(self._url).set(drivername="postgresql+asyncpg")
        try:
            named = make_url(config.get_main_option("sqlalchemy.url", ""))
        except ArgumentError:
            named = url
        if named.get_backend_name() == "postgresql":
            url = url.set(drivername=named.drivername)
        return url.render_as_string(hide_password=False)


if __name__ == "__main__":
    # The URL has a password, and others see arguments.
    program = OnTestDatabase(os.environ["DATABASE_MIGRATIONS_URL"])
    program.main(["--config", sys.argv[1], "upgrade", "heads"])

"""A project with migrations, which are run in this process or by Alembic's program."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from alembic import command
from alembic.config import Config
from sqlalchemy import MetaData

from penstock.settings import DatabaseSettings

ROOT = Path(__file__).parents[3]
ENV = """
from alembic import context
from penstock.migrations import run

run(**context.config.attributes["arguments"])
"""
ENV_OF_A_SERVICE = """
from penstock.migrations import run
from sqlalchemy import MetaData
run(MetaData())
"""
MIGRATION = """
from alembic import op
import sqlalchemy as sa

revision, down_revision = {number!r}, {before!r}

def upgrade():
    {body}

def downgrade():
    pass
"""
TEMPLATE = """
import sqlalchemy as sa
from alembic import op
revision, down_revision = ${repr(up_revision)}, ${repr(down_revision)}
def upgrade():
    ${upgrades if upgrades else "pass"}
def downgrade():
    ${downgrades if downgrades else "pass"}
"""
INI = """
[alembic]
script_location = {directory}
path_separator = os
[loggers]
keys = root, alembic
[handlers]
keys = console
[formatters]
keys =
[logger_root]
handlers = console
level = WARNING
[logger_alembic]
handlers =
qualname = alembic
level = INFO
[handler_console]
class = StreamHandler
args = (sys.stderr,)
"""


class Project:
    """A project whose migrations are Python texts.

    Args:
        directory: Empty.
        url: Of its database.
        **settings: Of its database.
    """

    def __init__(self, directory: Path, url: str, **settings: Any) -> None:
        self.directory, self.url = directory, url
        self.settings = DatabaseSettings.of(url, environment="testing", **settings)
        self.arguments: dict[str, Any] = {"metadata": MetaData(), "lock_timeout": 0.2}
        (directory / "versions").mkdir()
        (directory / "env.py").write_text(ENV)
        (directory / "script.py.mako").write_text(TEMPLATE)
        (directory / "alembic.ini").write_text(INI.format(directory=directory))
        self._count = 0

    def add(self, *lines: str) -> None:
        """Add a migration."""
        before, self._count = self._count or None, self._count + 1
        text = MIGRATION.format(
            number=str(self._count), before=before and str(before), body="\n    ".join(lines)
        )
        (self.directory / "versions" / f"{self._count}.py").write_text(text)

    def execute(self, *statements: str) -> None:
        """Add a migration of statements."""
        self.add(*(f"op.execute({statement!r})" for statement in statements))

    def config(self, **arguments: Any) -> Config:
        attributes = {"arguments": {**self.arguments, **arguments}, "settings": self.settings}
        config = Config(attributes=attributes)
        config.set_main_option("script_location", str(self.directory))
        config.set_main_option("path_separator", "os")
        return config

    def upgrade(self, **arguments: Any) -> None:
        """Run its migrations, in this process."""
        command.upgrade(self.config(**arguments), "head")

    def program(self, *arguments: str) -> subprocess.Popen[str]:
        """Start Alembic's program, with an ``env.py`` as a service has it."""
        (self.directory / "env.py").write_text(ENV_OF_A_SERVICE)
        return subprocess.Popen(
            [sys.executable, "-m", "alembic", *arguments],
            cwd=self.directory,
            env={
                **os.environ,
                "DATABASE_URL": self.url,
                "ENVIRONMENT": "testing",
                "PYTHONPATH": str(ROOT / "src"),
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

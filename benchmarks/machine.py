"""On what a run was made, as far as its figures depend on it."""

import os
import platform
import subprocess
from collections.abc import Mapping
from importlib.metadata import version

from tests.servers.postgres import postgres_programs

PACKAGES = (
    "penstock",
    "fastapi",
    "starlette",
    "pydantic",
    "uvicorn",
    "uvloop",
    "httptools",
    "sqlalchemy",
    "asyncpg",
    "psycopg",
    "psycopg-pool",
    "advanced-alchemy",
)


def machine() -> Mapping[str, str | int | None]:
    """Return versions and what the machine is: nothing that tells whose it is."""
    return {
        "cores": os.cpu_count(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "postgresql": _postgresql(),
        **{package: version(package) for package in PACKAGES},
    }


def _postgresql() -> str:
    programs = None if "TEST_DATABASE_URL" in os.environ else postgres_programs()
    if programs is None:
        return "the server of TEST_DATABASE_URL"
    command = [str(programs / "postgres"), "--version"]
    done = subprocess.run(command, capture_output=True, check=True, text=True)  # noqa: S603 - the tests' own server
    return done.stdout.split()[-1]

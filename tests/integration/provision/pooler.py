"""A PgBouncer of generated files, in front of a real PostgreSQL, with a service behind it."""

import re
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from dotenv import dotenv_values
from tests.servers.certificates import Certificates
from tests.servers.pgbouncer import (
    Era,
    PgbouncerServer,
    configured_pgbouncer,
    newest_pgbouncer,
    pgbouncer_of,
    version_of,
)
from tests.servers.postgres import PostgresServer
from tests.servers.process import ServerProcess

from penstock import Database, DatabaseSettings
from penstock.demo.embedded_postgres import embedded_programs
from penstock.planner import ServerLimits
from penstock.provision import PgbouncerOptions, pgbouncer_files
from penstock.settings import settings_from_environment

PROGRAMS: dict[str, Callable[[], Path]] = {
    "before-1.21": lambda: pgbouncer_of(Era.BLIND),
    "since-1.21": lambda: pgbouncer_of(Era.FOLLOWING),
    "since-1.26": newest_pgbouncer,
}
LIMITS = ServerLimits(40, 3)


@dataclass(frozen=True)
class Role:
    """A role with a database of its own.

    Args:
        postgres: The server, with the role as the one that logs in.
        database: The database's name.
    """

    postgres: PostgresServer
    database: str

    @property
    def url(self) -> str:
        """Where the database is, without a pooler."""
        server = self.postgres
        login = f"{quote(server.user, safe='')}:{quote(server.password, safe='')}"
        return f"postgresql+asyncpg://{login}@{server.host}:{server.port}/{self.path}"

    @property
    def path(self) -> str:
        """The database's name as a URL has it."""
        return quote(self.database, safe="")


@contextmanager
def role_on(
    server: PostgresServer, name: str, password: str, database: str | None = None
) -> Iterator[Role]:
    """Make a role and a database of a name, of whatever characters, and drop them at the end."""
    role, base = (f'"{each.replace(chr(34), 2 * chr(34))}"' for each in (name, database or name))
    secret = password.replace("'", "''")
    server.execute(f"CREATE ROLE {role} LOGIN PASSWORD '{secret}'")
    server.execute(f"CREATE DATABASE {base} OWNER {role} STRATEGY file_copy")
    try:
        yield Role(replace(server, user=name, password=password), database or name)
    finally:
        server.execute(f"DROP DATABASE {base} WITH (FORCE)")
        server.execute(f"DROP ROLE {role}")


@contextmanager
def generated(
    role: Role,
    admin: PostgresServer,
    program: Path,
    settings: DatabaseSettings,
    certificates: Certificates | None = None,
    **options: Any,
) -> Iterator[tuple[PgbouncerServer, Path]]:
    """Run a PgBouncer of generated files; gives it and the settings of the service behind it."""
    version = version_of(program)
    directory = Path()

    def write(process: ServerProcess, port: int) -> Path:
        nonlocal directory
        directory = process.directory
        chosen = PgbouncerOptions(
            **{"version": version[:2], "server": LIMITS, "port": port, **options},
            directory=directory,
        )
        if certificates is not None:
            chosen = replace(
                chosen,
                tls_cert_file=directory / "server.pem",
                tls_key_file=directory / "server.key",
            )
            process.write("server.pem", certificates.certificate)
            process.write("server.key", certificates.key)
            process.write("authority.pem", certificates.authority.read_text())
        for file in pgbouncer_files(settings, chosen):
            # The settings' own file, where PgBouncer's account can read it.
            process.write(file.name, re.sub(r"/\S*/authority", f"{directory}/authority", file.text))
        _give_secret(admin, directory)
        return directory / "pgbouncer.ini"

    with configured_pgbouncer(role.postgres, binary=program, write=write) as pooler:
        yield pooler, directory / "service.env"


def _give_secret(admin: PostgresServer, directory: Path) -> None:
    programs = embedded_programs()  # other distributions of the server have no psql
    assert programs is not None
    subprocess.run(
        [
            *(programs / "psql", "--no-psqlrc", "--quiet", "--file=pgbouncer.sql"),
            f"postgresql://{admin.user}:{admin.password}@{admin.host}:{admin.port}/postgres",
        ],
        check=True,
        cwd=directory,
        capture_output=True,
    )


@contextmanager
def environment(file: Path) -> Iterator[None]:
    """The generated file as the service's environment."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in dotenv_values(file).items():
            patch.setenv(name, str(value))
        patch.setenv("ENVIRONMENT", "production")
        yield


def service(pooler: PgbouncerServer, role: Role, env: Path, **tls: str) -> Database:
    """The service as it runs behind the pooler."""
    login = role.url.partition("@")[0]
    host = "localhost" if tls else "127.0.0.1"
    with environment(env), pytest.MonkeyPatch.context() as patch:
        patch.setenv("DATABASE_URL", f"{login}@{host}:{pooler.port}/{role.path}")
        for name, value in tls.items():
            patch.setenv(name, value)
        return Database(settings_from_environment(env_file=None))

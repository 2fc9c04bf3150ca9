"""A real PgBouncer for the tests, of each era, in front of a PostgreSQL."""

import os
import re
import shutil
import socket
import subprocess
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path

import psycopg
import pytest
from psycopg.rows import dict_row
from sqlalchemy import make_url
from tests.servers.parts import require_part
from tests.servers.postgres import PostgresServer
from tests.servers.process import ServerProcess

FIRST_TO_FOLLOW = (1, 21)
"""The version since which PgBouncer follows prepared statements from server to server."""
FIRST_TO_QUIT = (1, 23)
SETTINGS = {
    "listen_addr": "127.0.0.1",
    "unix_socket_dir": "",
    "auth_type": "scram-sha-256",
    "max_client_conn": "500",
    "server_login_retry": "1",
    # A client that waits for a server connection so long is told so, before the test's own limit.
    "query_wait_timeout": "10",
}


class Era(StrEnum):
    """What a PgBouncer makes of prepared statements where many clients share a connection."""

    BLIND = "before 1.21"
    FOLLOWING = "since 1.21"

    def has(self, version: tuple[int, ...]) -> bool:
        """Return whether a version is of this era."""
        return (version >= FIRST_TO_FOLLOW) == (self is Era.FOLLOWING)


FIRST_TO_TELL = (1, 26)
"""The version since which PgBouncer tells at login what it is and how it pools."""


@dataclass(frozen=True)
class PgbouncerServer:
    """Where a running PgBouncer is; it knows every role and database of its PostgreSQL.

    Args:
        port: Port of its TCP listener, on loopback.
        postgres: The server behind it.
        version: Such as ``(1, 18, 0)``.
    """

    port: int
    postgres: PostgresServer
    version: tuple[int, ...]

    def url(self, url: str) -> str:
        """Return the URL of the same database, for the same role, through the pooler."""
        return make_url(url).set(host="127.0.0.1", port=self.port).render_as_string(False)

    def admin(self, command: str) -> list[dict[str, object]]:
        """Run one command on the admin console, such as ``SHOW SERVERS``; return its rows."""
        with psycopg.connect(
            host="127.0.0.1",
            port=self.port,
            user=self.postgres.user,
            password=self.postgres.password,
            dbname="pgbouncer",
            autocommit=True,
            row_factory=dict_row,
        ) as console:
            cursor = console.execute(command.encode())
            return cursor.fetchall() if cursor.description else []

    def answers(self) -> bool:
        """Return whether the admin console can be reached."""
        try:
            self.admin("SHOW VERSION")
        except psycopg.OperationalError:
            return False
        return True


def pgbouncer_of(era: Era) -> Path:
    """Return a program of an era, from ``TEST_PGBOUNCER_BINS`` (with colons) or from ``PATH``."""
    named = [Path(each) for each in os.environ.get("TEST_PGBOUNCER_BINS", "").split(":") if each]
    installed = shutil.which("pgbouncer", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
    known = [*named, Path(installed)] if installed else named
    program = next((each.absolute() for each in known if era.has(version_of(each))), None)
    remedy = "TEST_PGBOUNCER_BINS=$(tests/servers/fetch_pgbouncer.sh bookworm trixie)"
    require_part(f"PgBouncer {era}", present=program, remedy=remedy)
    assert program is not None
    return program


def newest_pgbouncer() -> Path:
    """Return a program that tells what it is, or skip the test; Debian's stable has none yet."""
    named = os.environ.get("TEST_PGBOUNCER_BINS", "").split(":")
    known = [Path(each).absolute() for each in named if each]
    program = next((each for each in known if version_of(each) >= FIRST_TO_TELL), None)
    if program is None:
        pytest.skip("no PgBouncer since 1.26: tests/servers/fetch_pgbouncer.sh sid")
    return program


@contextmanager
def pgbouncer_server(
    postgres: PostgresServer,
    *,
    binary: Path,
    pool_mode: str,
    default_pool_size: int = 4,
    max_prepared_statements: int | None = None,
    settings: Mapping[str, str] | None = None,
) -> Iterator[PgbouncerServer]:
    """Run a PgBouncer of its own on loopback until the end.

    Args:
        postgres: The server behind it, whose roles log in with their passwords.
        binary: The program.
        pool_mode: ``session``, ``transaction`` or ``statement``.
        default_pool_size: Server connections for each role in each database.
        max_prepared_statements: How many it follows; None for the version's own default.
        settings: Lines of ``pgbouncer.ini`` that add to or replace the tests' usual ones.

    Raises:
        ServerStartError: It did not start; the message has the end of its log.
    """
    options = {**SETTINGS, "pool_mode": pool_mode, "default_pool_size": str(default_pool_size)}
    if max_prepared_statements is not None:
        options["max_prepared_statements"] = str(max_prepared_statements)
    with restartable_pgbouncer(postgres, binary, {**options, **(settings or {})}) as pooler:
        yield pooler.server


@dataclass(frozen=True)
class RestartablePgbouncer:
    """A PgBouncer that can be killed and started again on its port.

    Args:
        server: Where it is.
        process: What runs it.
    """

    server: PgbouncerServer
    process: ServerProcess


@contextmanager
def restartable_pgbouncer(
    postgres: PostgresServer, binary: Path, settings: Mapping[str, str]
) -> Iterator[RestartablePgbouncer]:
    """Run a PgBouncer as :func:`pgbouncer_server` does, which a test may restart.

    Args:
        postgres: The server behind it.
        binary: The program.
        settings: Lines of ``pgbouncer.ini`` that add to or replace the tests' usual ones.

    Raises:
        ServerStartError: It did not start; the message has the end of its log.
    """
    server = PgbouncerServer(0, postgres, version_of(binary))
    with ServerProcess("pgbouncer", stop_signal=_stop_signal(server.version)) as process:
        program = process.readable(binary.parent) / binary.name
        started = _start(process, program, server, {**SETTINGS, **settings})
        yield RestartablePgbouncer(started, process)


class _ListeningServer(PgbouncerServer):
    """One that answers once it accepts connections, whoever may use its console."""

    def answers(self) -> bool:
        """Return whether a connection is accepted."""
        try:
            socket.create_connection(("127.0.0.1", self.port), timeout=1.0).close()
        except OSError:
            return False
        return True


@contextmanager
def configured_pgbouncer(
    postgres: PostgresServer, *, binary: Path, write: Callable[[ServerProcess, int], Path]
) -> Iterator[PgbouncerServer]:
    """Run a PgBouncer with a configuration of the test's own until the end.

    Args:
        postgres: The server behind it, with the role that uses the console.
        binary: The program.
        write: Writes the files for a port, and returns the path of ``pgbouncer.ini``.

    Raises:
        ServerStartError: It did not start; the message has the end of its log.
    """
    version = version_of(binary)
    with ServerProcess("pgbouncer", stop_signal=_stop_signal(version)) as process:
        program = process.readable(binary.parent) / binary.name

        def on(port: int) -> tuple[PgbouncerServer, list[Path]]:
            return _ListeningServer(port, postgres, version), [program, write(process, port)]

        yield process.serve(on)


def _stop_signal(version: tuple[int, ...]) -> str:
    # SIGTERM waits until the last client has left since there is SIGQUIT, which does not.
    return "QUIT" if version >= FIRST_TO_QUIT else "TERM"


def version_of(program: Path) -> tuple[int, ...]:
    """Return the version of a program, such as ``(1, 18, 0)``."""
    said = subprocess.run([program, "--version"], capture_output=True, check=True, text=True).stdout
    found = re.search(r"PgBouncer (\d+)\.(\d+)\.(\d+)", said)
    assert found, said
    return tuple(int(part) for part in found.groups())


def _start(
    process: ServerProcess, program: Path, server: PgbouncerServer, settings: Mapping[str, str]
) -> PgbouncerServer:
    def on(port: int) -> tuple[PgbouncerServer, list[Path]]:
        found = replace(server, port=port)
        return found, [program, _configuration(process, found, settings)]

    return process.serve(on)


def _configuration(
    process: ServerProcess, server: PgbouncerServer, settings: Mapping[str, str]
) -> Path:
    postgres = server.postgres
    accounts = process.write("users", f'"{postgres.user}" "{postgres.password}"\n')
    options = {
        **settings,
        "listen_port": str(server.port),
        "auth_file": str(accounts),
        # It asks PostgreSQL for the secrets of everybody else, with which it also logs in there.
        "auth_user": postgres.user,
        "admin_users": postgres.user,
    }
    lines = [
        "[databases]",
        f"* = host={postgres.host} port={postgres.port}",
        "[pgbouncer]",
        *(f"{name} = {value}" for name, value in options.items()),
    ]
    return process.write("pgbouncer.ini", "\n".join(lines) + "\n")

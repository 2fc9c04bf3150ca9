"""A real PostgreSQL for the tests: an own one, of any version, or the one that a URL names."""

import os
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote, unquote, urlsplit

import psycopg
import pytest
from tests.servers.certificates import Certificates
from tests.servers.parts import require_part
from tests.servers.process import ServerProcess, ServerStartError

from penstock.demo.embedded_postgres import embedded_programs

SUPERUSER = "postgres"
SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "max_connections": "200",
    "fsync": "off",
    "synchronous_commit": "off",
    "full_page_writes": "off",
    "max_wal_size": "256MB",
}


@dataclass(frozen=True)
class PostgresServer:
    """Where a running PostgreSQL is, and who may do everything on it.

    Args:
        host: Address of its TCP listener.
        port: Port of its TCP listener.
        user: A superuser.
        password: The superuser's password.
        directory: Where its Unix socket is; None where the server is not our own.
    """

    host: str
    port: int
    user: str
    password: str
    directory: Path | None = None

    def url(self, database: str = "postgres", *, user: str = "", password: str = "") -> str:
        """Return an asyncpg URL of one database, as the superuser unless told otherwise."""
        account = f"{quote(user or self.user)}:{quote(password or self.password)}"
        return f"postgresql+asyncpg://{account}@{self.host}:{self.port}/{database}"

    def execute(self, statement: str, database: str = "postgres") -> list[tuple[object, ...]]:
        """Run one statement as the superuser, outside a transaction, and return its rows."""
        with self._connection(database) as connection:
            cursor = connection.execute(statement.encode())
            return cursor.fetchall() if cursor.description else []

    def _connection(self, database: str = "postgres") -> psycopg.Connection:
        return psycopg.connect(
            host=self.host,
            port=self.port,
            user=self.user,
            password=self.password,
            dbname=database,
            autocommit=True,
        )

    def answers(self) -> bool:
        """Return whether a connection can be opened."""
        try:
            self.execute("SELECT 1")
        except psycopg.OperationalError:
            return False
        return True

    def wait_for_end(self, pid: int) -> None:
        """Wait until a backend is gone, which takes the server a moment after its client left."""
        gone = f"NOT EXISTS (SELECT FROM pg_stat_activity WHERE pid = {pid})"
        wait = "PERFORM pg_sleep(0.01), pg_stat_clear_snapshot();"
        self.execute(f"DO $$ BEGIN FOR i IN 1..3000 LOOP EXIT WHEN {gone}; {wait} END LOOP; END $$")

    @contextmanager
    def database(self) -> Iterator[str]:
        """Make an empty database with a role of its own, and drop both at the end.

        Yields:
            The URL, as ``postgresql+asyncpg://role:password@host:port/name``.
        """
        name, password = f"test_{secrets.token_hex(8)}", secrets.token_hex(8)
        with self._connection() as connection:
            connection.execute(f"CREATE ROLE {name} LOGIN PASSWORD '{password}'".encode())
            connection.execute(f"CREATE DATABASE {name} OWNER {name} STRATEGY file_copy".encode())
        try:
            yield self.url(name, user=name, password=password)
        finally:
            with self._connection() as connection:
                connection.execute(f"DROP DATABASE {name} WITH (FORCE)".encode())
                connection.execute(f"DROP ROLE {name}".encode())


def postgres_programs() -> Path | None:
    """Return the ``bin`` directory of ``TEST_POSTGRES_BIN``, else of embedded-postgres."""
    if named := os.environ.get("TEST_POSTGRES_BIN"):
        return Path(named).resolve()
    return embedded_programs()


@contextmanager
def postgres_server() -> Iterator[PostgresServer]:
    """Give the server of ``TEST_DATABASE_URL`` (a superuser's), else an own one until the end."""
    if named := os.environ.get("TEST_DATABASE_URL"):
        url = urlsplit(named)
        yield PostgresServer(
            host=url.hostname or "127.0.0.1",
            port=url.port or 5432,
            user=unquote(url.username or SUPERUSER),
            password=unquote(url.password or ""),
        )
        return
    programs = postgres_programs()
    require_part(
        "PostgreSQL", present=programs, remedy="set TEST_POSTGRES_BIN or TEST_DATABASE_URL"
    )
    if programs is not None:
        with own_postgres(programs) as server:
            yield server


@contextmanager
def own_postgres(
    programs: Path,
    settings: Mapping[str, str] | None = None,
    files: Mapping[str, str] | None = None,
) -> Iterator[PostgresServer]:
    """Run a PostgreSQL of its own on loopback, with password authentication over TCP.

    Args:
        programs: The ``bin`` directory of its version.
        settings: Lines of ``postgresql.conf`` that add to or replace the tests' usual ones.
        files: Files to put beside its data, by name, readable to the server alone.

    Raises:
        ServerStartError: It did not start; the message has the end of its log.
    """
    with ServerProcess("postgres", stop_signal="INT") as process:
        for name, text in (files or {}).items():
            process.write(name, text)
        yield _started(process, programs, settings or {})


@contextmanager
def encrypted_postgres(certificates: Certificates) -> Iterator[PostgresServer]:
    """Run a PostgreSQL with TLS as :func:`own_postgres` does; skip where it has none.

    Args:
        certificates: Its own, and the authority by which it knows its clients.
    """
    programs = postgres_programs()
    require_part("PostgreSQL", present=programs, remedy="set TEST_POSTGRES_BIN")
    assert programs is not None
    settings = {
        "ssl": "on",
        "ssl_cert_file": "../server.pem",
        "ssl_key_file": "../server.key",
        "ssl_ca_file": "../authority.pem",
    }
    files = {
        "server.pem": certificates.certificate,
        "server.key": certificates.key,
        "authority.pem": certificates.authority.read_text(),
    }
    try:
        with own_postgres(programs, settings, files) as server:
            yield server
    except ServerStartError as error:
        if "SSL is not supported by this build" not in str(error):
            raise
        # CI runs everything a second time on a PostgreSQL that was built with OpenSSL.
        pytest.skip("this PostgreSQL was built without OpenSSL")


@dataclass(frozen=True)
class RestartablePostgres:
    """A PostgreSQL that can be stopped and started again, with its data and on its port.

    Args:
        server: Where it is.
        process: What runs it.
    """

    server: PostgresServer
    process: ServerProcess

    def stop(self) -> None:
        """Stop it as ``pg_ctl stop`` does: whoever is connected is cut off."""
        lines = (self.process.directory / "data" / "postmaster.pid").read_text().splitlines()
        self.process.halt(int(lines[0]))

    def start(self) -> None:
        """Start it again, without waiting until it answers."""
        self.process.start_again()


@contextmanager
def restartable_postgres(programs: Path) -> Iterator[RestartablePostgres]:
    """Run a PostgreSQL as :func:`own_postgres` does, which a test may restart.

    Args:
        programs: The ``bin`` directory of its version.

    Raises:
        ServerStartError: It did not start; the message has the end of its log.
    """
    with ServerProcess("postgres", stop_signal="INT") as process:
        yield RestartablePostgres(_started(process, programs, {}), process)


def _started(process: ServerProcess, programs: Path, settings: Mapping[str, str]) -> PostgresServer:
    password = secrets.token_hex(8)
    programs = process.readable(programs.parent) / "bin"
    initialise(process, programs, password)
    return _start(process, programs, {**SETTINGS, **settings}, password)


def initialise(process: ServerProcess, programs: Path, password: str) -> None:
    """Make the data directory of a server whose superuser has a password.

    Args:
        process: What will run it; the data are in its directory.
        programs: The ``bin`` directory of its version, readable to the server's account.
        password: The superuser's.

    Raises:
        ServerStartError: ``initdb`` failed; the message has what it wrote.
    """
    process.run(
        [
            programs / "initdb",
            f"--pgdata={process.directory / 'data'}",
            f"--username={SUPERUSER}",
            f"--pwfile={process.write('password', password)}",
            "--auth-local=trust",
            "--auth-host=scram-sha-256",
            "--encoding=UTF8",
            "--locale=C",
            "--no-sync",
            "--set=scram_iterations=1",  # or each of ten thousand connections takes a moment more
        ]
    )


def _start(
    process: ServerProcess, programs: Path, settings: Mapping[str, str], password: str
) -> PostgresServer:
    def on(port: int) -> tuple[PostgresServer, list[str | Path]]:
        options = {
            **settings,
            "port": str(port),
            "unix_socket_directories": str(process.directory),
        }
        arguments = [f"--{name}={value}" for name, value in options.items()]
        server = PostgresServer("127.0.0.1", port, SUPERUSER, password, process.directory)
        return server, [programs / "postgres", "-D", process.directory / "data", *arguments]

    return process.serve(on)

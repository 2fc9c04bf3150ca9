"""A real MariaDB for the tests, from the Debian package's programs in a directory of its own."""

import os
import secrets
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import pymysql  # type: ignore[import-untyped]  # it ships no types
from tests.servers.parts import require_part
from tests.servers.process import ServerProcess

USER = "penstock"
SETTINGS = {
    "bind-address": "127.0.0.1",
    "character-set-server": "utf8mb4",
    "performance-schema": "ON",
    "skip-log-bin": "1",
    "innodb-buffer-pool-size": "32M",
    "innodb-log-file-size": "8M",
    "innodb-flush-log-at-trx-commit": "0",
    "innodb-flush-method": "nosync",
}


@dataclass(frozen=True)
class MariadbServer:
    """Where a running MariaDB is, and who may do everything on it."""

    host: str
    port: int
    user: str
    password: str

    def url(self, database: str = "") -> str:
        """Return an asyncmy URL of one database."""
        account = f"{self.user}:{self.password}"
        return f"mysql+asyncmy://{account}@{self.host}:{self.port}/{database}"

    def execute(self, statement: str) -> tuple[tuple[object, ...], ...]:
        """Run one statement and return its rows."""
        connection = pymysql.connect(
            host=self.host,
            port=self.port,
            user=self.user,
            password=self.password,
            autocommit=True,
        )
        with connection, connection.cursor() as cursor:
            cursor.execute(statement)
            rows: tuple[tuple[object, ...], ...] = cursor.fetchall()
            return rows

    def answers(self) -> bool:
        """Return whether a connection can be opened."""
        try:
            self.execute("SELECT 1")
        except pymysql.OperationalError:
            return False
        return True

    @contextmanager
    def database(self) -> Iterator[str]:
        """Make an empty database and drop it at the end; yield its URL."""
        name = f"test_{secrets.token_hex(8)}"
        self.execute(f"CREATE DATABASE {name}")
        try:
            yield self.url(name)
        finally:
            self.execute(f"DROP DATABASE {name}")


@contextmanager
def mariadb_server(
    settings: Mapping[str, str] | None = None, files: Mapping[str, str] | None = None
) -> Iterator[MariadbServer]:
    """Run a MariaDB of its own on loopback until the end.

    Args:
        settings: Options that add to or replace the tests' usual ones.
        files: Files to put beside its data, by name, readable to the server alone.

    Raises:
        ServerStartError: It did not start; the message has the end of its log.
    """
    server, installer = _program("mariadbd"), _program("mariadb-install-db")
    remedy = "apt-get install mariadb-server"
    require_part("MariaDB", present=server and installer, remedy=remedy)
    password = secrets.token_hex(8)
    with ServerProcess("mariadb", stop_signal="TERM") as process:
        for name, text in (files or {}).items():
            process.write(name, text)
        _initialise(process, installer, password)
        yield _start(process, server, {**SETTINGS, **(settings or {})}, password)


def _program(name: str) -> str:
    return shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin") or ""


def _initialise(process: ServerProcess, installer: str, password: str) -> None:
    process.run(
        [
            installer,
            "--no-defaults",
            f"--datadir={process.directory / 'data'}",
            "--auth-root-authentication-method=normal",
            "--skip-test-db",
        ]
    )
    process.write(
        "accounts.sql",
        f"CREATE USER IF NOT EXISTS '{USER}'@'%' IDENTIFIED BY '{password}';\n"
        f"GRANT ALL PRIVILEGES ON *.* TO '{USER}'@'%';\n",
    )


def _start(
    process: ServerProcess, program: str, settings: Mapping[str, str], password: str
) -> MariadbServer:
    def on(port: int) -> tuple[MariadbServer, list[str]]:
        options = {
            **settings,
            "datadir": str(process.directory / "data"),
            "init-file": str(process.directory / "accounts.sql"),
            "pid-file": str(process.directory / "pid"),
            "port": str(port),
            "socket": str(process.directory / "socket"),
            "tmpdir": str(process.directory),
        }
        arguments = [f"--{name}={value}" for name, value in options.items()]
        server = MariadbServer("127.0.0.1", port, USER, password)
        return server, [program, "--no-defaults", *arguments]

    return process.serve(on)

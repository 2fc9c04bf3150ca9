"""The parts of the compose file at work, each by its own files, on this machine's addresses."""

import asyncio
import json
import os
import re
import secrets
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest
from sqlalchemy import text
from tests.eventually import eventually
from tests.integration.provision.test_deployment import COMPOSE
from tests.servers.parts import require_part
from tests.servers.pgbouncer import Era, configured_pgbouncer, pgbouncer_of
from tests.servers.postgres import PostgresServer, initialise
from tests.servers.process import ServerProcess

from penstock import Database, DatabaseSettings
from penstock.demo.embedded_postgres import embedded_programs
from penstock.provision import Deployment, Machine, write_files

PASSWORD = "hunter2 or so"


@dataclass(frozen=True)
class Stack:
    """What the compose file starts.

    Args:
        environment: Of an instance of the service, with the addresses of this machine.
        replica: The replica, for the service's role.
    """

    environment: dict[str, str]
    replica: PostgresServer


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The generated directory, with the secrets that its head says how to make."""
    found = tmp_path_factory.mktemp("deploy")
    settings = DatabaseSettings.of(
        "postgresql://user:hunter2%20or%20so@10.0.0.5/order",
        environment="production",
        application_name="shop",
        workers=2,
        server_settings={"search_path": "public"},
    )
    deployment = Deployment(settings=settings, machine=Machine.of("1GB", 2))
    write_files(deployment.files(["compose"]), found)
    for name in ("postgres_password", "replication_password", "operator_token"):
        (found / "compose/secrets" / name).write_text(secrets.token_hex(24))
    (found / "compose/secrets/database_password").write_text(PASSWORD)
    return found / "compose"


@pytest.fixture(scope="module")
def stack(directory: Path) -> Iterator[Stack]:
    programs = embedded_programs()  # with pg_basebackup and psql
    require_part("embedded-postgres", present=programs, remedy="make setup")
    require_part("compose", present=COMPOSE.exists(), remedy="tests/servers/fetch_compose.sh")
    assert programs is not None
    with ExitStack() as opened:
        primary = opened.enter_context(ServerProcess("postgres", stop_signal="INT"))
        initialise(primary, primary.readable(programs.parent) / "bin", "superuser")
        first = _postgres(primary, programs, directory, primary.directory / "data")
        _run_initdb(first, programs, directory)
        follower = opened.enter_context(ServerProcess("replica", stop_signal="INT"))
        second = _replica(follower, first, programs, directory)

        def write(process: ServerProcess, port: int) -> Path:
            users = process.write("userlist.txt", (directory / "secrets/userlist.txt").read_text())
            ini = (directory / "pgbouncer/pgbouncer.ini").read_text()
            ini = ini.replace("host='primary' port=5432", f"host='127.0.0.1' port={first.port}")
            ini = ini.replace("/run/secrets/userlist.txt", str(users))
            ini = ini.replace("listen_port = 6432", f"listen_port = {port}")
            return process.write("pgbouncer.ini", ini)

        pooler = opened.enter_context(
            configured_pgbouncer(first, binary=pgbouncer_of(Era.FOLLOWING), write=write)
        )
        ports = {
            "pgbouncer:6432": pooler.port,
            "replica:5432": second.port,
            "primary:5432": first.port,
        }
        yield Stack(_environment(directory, ports), second)


def _postgres(
    process: ServerProcess, programs: Path, directory: Path, data: Path
) -> PostgresServer:
    tuning = process.write("postgresql.conf", (directory / "postgresql.conf").read_text())
    program = process.readable(programs.parent) / "bin/postgres"

    def on(port: int) -> tuple[PostgresServer, list[str | Path]]:
        server = PostgresServer("127.0.0.1", port, "postgres", "superuser", process.directory)
        return server, [program, "-D", data, *_options(process, tuning, port)]

    return process.serve(on)


def _options(process: ServerProcess, tuning: Path, port: int) -> list[str]:
    settings = {
        "config_file": tuning,
        "listen_addresses": "127.0.0.1",
        "port": port,
        "unix_socket_directories": process.directory,
        "fsync": "off",
    }
    return [f"--{name}={value}" for name, value in settings.items()]


def _run_initdb(server: PostgresServer, programs: Path, directory: Path) -> None:
    assert server.directory is not None
    environment = {
        "PATH": f"{programs}:{os.environ['PATH']}",
        "PGHOST": str(server.directory),
        "PGPORT": str(server.port),
        "PGDATA": str(server.directory / "data"),
        "SECRETS": str(directory / "secrets"),
    }
    script = directory / "initdb.sh"
    subprocess.run([script], check=True, capture_output=True, env={**os.environ, **environment})
    server.execute("SELECT pg_reload_conf()")


def _replica(
    process: ServerProcess, primary: PostgresServer, programs: Path, directory: Path
) -> PostgresServer:
    tree = process.readable(programs.parent) / "bin"
    tuning = process.write("postgresql.conf", (directory / "postgresql.conf").read_text())
    script = process.write("replica.sh", (directory / "replica.sh").read_text())
    process.write("replication_password", (directory / "secrets/replication_password").read_text())
    environment = {
        "PATH": f"{tree}:{os.environ['PATH']}",
        "PGDATA": str(process.directory / "data"),
        "PRIMARY": "127.0.0.1",
        "PRIMARY_PORT": str(primary.port),
        "SECRETS": str(process.directory),
    }

    def on(port: int) -> tuple[PostgresServer, list[str | Path]]:
        server = _OfService("127.0.0.1", port, "user", PASSWORD)
        return server, ["sh", script, "postgres", *_options(process, tuning, port)]

    with pytest.MonkeyPatch.context() as patch:
        for name, value in environment.items():
            patch.setenv(name, value)
        return process.serve(on)


class _OfService(PostgresServer):
    """A server, for the service's role and in its database."""

    def execute(self, statement: str, database: str = "order") -> list[tuple[object, ...]]:
        """Run a statement there."""
        return super().execute(statement, database)


def _environment(directory: Path, ports: dict[str, int]) -> dict[str, str]:
    told = subprocess.run(
        [COMPOSE, "--file", directory / "compose.yaml", "config", "--format=json"],
        check=True,
        capture_output=True,
    ).stdout
    environment: dict[str, str] = json.loads(told)["services"]["service-1"]["environment"]
    pattern = "|".join(map(re.escape, ports))
    return {
        name: re.sub(pattern, lambda found: f"127.0.0.1:{ports[found[0]]}", value)
        .replace("/run/secrets", str(directory / "secrets"))
        .replace("/tmp/telemetry", str(directory / "telemetry"))
        for name, value in environment.items()
    }


async def test_an_instance_writes_through_pgbouncer_and_reads_from_the_replica(
    stack: Stack,
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        for name, value in stack.environment.items():
            patch.setenv(name, value)
        database = Database.from_environment(env_file=None)

    async def on_replica() -> bool:
        async with database.read() as session:
            return bool(await session.scalar(text("SELECT pg_is_in_recovery()")))

    async with database:
        async with database.write() as session:
            await session.execute(text("CREATE TABLE things AS SELECT 42 AS n"))
        async with asyncio.timeout(20):
            while not await on_replica():  # noqa: ASYNC110 - what is waited for sets no event
                await asyncio.sleep(0.1)
        async with database.read() as session:
            assert await session.scalar(text("SELECT n FROM things")) == 42
    await eventually(lambda: stack.replica.execute("SELECT n FROM things") == [(42,)])

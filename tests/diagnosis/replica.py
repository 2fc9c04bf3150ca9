"""A streaming replica of an own PostgreSQL."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from tests.servers.postgres import SETTINGS, SUPERUSER, PostgresServer
from tests.servers.process import ServerProcess, free_port


@contextmanager
def replica_of(primary: PostgresServer, programs: Path) -> Iterator[PostgresServer]:
    """Run a hot standby that replays what the primary writes, until the end.

    Args:
        primary: An own one, whose Unix socket is at hand.
        programs: The ``bin`` directory of its version.

    Raises:
        ServerStartError: It did not start; the message has the end of its log.
    """
    assert primary.directory is not None
    with ServerProcess("replica", stop_signal="INT") as process:
        programs = process.readable(programs.parent) / "bin"
        data = process.directory / "data"
        process.run(
            [
                programs / "pg_basebackup",
                *(f"--host={primary.directory}", f"--port={primary.port}"),
                *(f"--username={SUPERUSER}", f"--pgdata={data}", "--checkpoint=fast"),
                *("--write-recovery-conf", "--wal-method=stream"),
                *("--create-slot", "--slot=replica", "--no-sync"),
            ]
        )
        server = replace(primary, port=free_port(), directory=process.directory)
        options = {
            **SETTINGS,
            "port": str(server.port),
            "unix_socket_directories": str(process.directory),
        }
        arguments = [f"--{name}={value}" for name, value in options.items()]
        process.start([programs / "postgres", "-D", data, *arguments])
        process.wait_until(server.answers)
        yield server

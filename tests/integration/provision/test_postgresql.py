"""Generated settings of PostgreSQL, in force on a real one."""

import subprocess
from collections.abc import Iterator
from itertools import product
from pathlib import Path

import pytest
from tests.servers.parts import require_part
from tests.servers.postgres import (
    SUPERUSER,
    PostgresServer,
    RestartablePostgres,
    initialise,
    postgres_programs,
)
from tests.servers.process import ServerProcess

from penstock.provision import Machine, fragment, parameters

SHARED = {"1GB": 256, "4GB": 256, "16GB": 4096, "64GB": 16384, "256GB": 65536, "24TB": 6 * 1024**2}
"""MB of shared_buffers by a machine's memory."""
MACHINES = list(product(SHARED, (1, 2, 8, 64), ("ssd", "hdd")))


@pytest.fixture(scope="module")
def programs() -> Path:
    found = postgres_programs()
    require_part("PostgreSQL", present=found, remedy="set TEST_POSTGRES_BIN")
    assert found is not None
    return found


@pytest.fixture(scope="module")
def cluster(programs: Path) -> Iterator[ServerProcess]:
    """An empty cluster whose file includes the generated one."""
    with ServerProcess("postgres", stop_signal="INT") as process:
        initialise(process, process.readable(programs.parent) / "bin", "secret")
        with (process.directory / "data/postgresql.conf").open("a") as file:
            file.write("fsync = off\ninclude '../tuning.conf'\n")
        yield process


def test_each_machines_file_is_accepted(programs: Path, tmp_path: Path) -> None:
    (tmp_path / "postgresql.auto.conf").touch()
    for memory, cores, disk in MACHINES:
        machine = Machine.of(memory, cores, disk)
        (tmp_path / "postgresql.conf").write_text(fragment(machine))
        # It reads the file, takes no memory, and tells what it would be.
        told = subprocess.run(
            [programs / "postgres", "-C", "shared_buffers", "-D", tmp_path],
            capture_output=True,
            check=False,
            text=True,
        )
        assert (told.stderr, told.returncode) == ("", 0), machine
        assert int(told.stdout) * 8 == SHARED[memory] * 1024  # it counts pages of 8 kB


@pytest.mark.parametrize(
    ("memory", "cores", "disk"), [("1GB", 1, "hdd"), ("4GB", 2, "ssd"), ("256GB", 64, "ssd")]
)
def test_its_values_are_in_force(
    memory: str, cores: int, disk: str, cluster: ServerProcess, programs: Path
) -> None:
    machine = Machine.of(memory, cores, disk)
    cluster.write("tuning.conf", fragment(machine))
    expected = {each.name: each.value for each in parameters(machine)}
    if memory == "256GB":  # more than there is here
        expected["shared_buffers"] = "128MB"
    postgres = cluster.readable(programs.parent) / "bin/postgres"

    def on(port: int) -> tuple[PostgresServer, list[str | Path]]:
        directory = cluster.directory
        options = [
            f"--shared_buffers={expected['shared_buffers']}",
            f"--port={port}",
            f"--unix_socket_directories={directory}",
        ]
        server = PostgresServer("127.0.0.1", port, SUPERUSER, "secret", directory)
        return server, [postgres, "-D", directory / "data", *options]

    server = cluster.serve(on)
    names = ", ".join(f"'{name}'" for name in expected)
    sql = f"SELECT name, current_setting(name) FROM pg_settings WHERE name IN ({names})"
    found = {str(name): value for name, value in server.execute(sql)}
    RestartablePostgres(server, cluster).stop()

    assert found == expected

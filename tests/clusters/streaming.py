"""A real primary with physical streaming replicas, whose roles a test may change."""

import secrets
import shutil
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path

from tests.clusters.node import (
    ClusterNode,
    cluster_programs,
    make_application,
    make_database,
    multi_host_url,
    wait_until,
)
from tests.servers.postgres import SETTINGS as SERVER_SETTINGS
from tests.servers.postgres import initialise
from tests.servers.process import ServerProcess, ServerStartError

SETTINGS = {
    **SERVER_SETTINGS,
    # A commit waits until it can be sent.
    "synchronous_commit": "on",
    # So that a killed server starts from a base backup alone, also where it has become another's.
    "full_page_writes": "on",
    "wal_log_hints": "on",
    "wal_keep_size": "128MB",
    # In its own directory, where a killed server leaves nothing behind.
    "dynamic_shared_memory_type": "mmap",
    "wal_receiver_status_interval": "1s",
    "wal_retrieve_retry_interval": "100ms",
}


class StreamingNode(ClusterNode):
    """A primary or a replica, with its data and on its port whatever happens to it.

    Args:
        name: What the cluster calls it; also its replication slot's name.
        process: What runs it.
        programs: The ``bin`` directory of its version.
        password: The superuser's.
    """

    def __init__(self, name: str, process: ServerProcess, programs: Path, password: str) -> None:
        super().__init__(name, process, password)
        self._programs = process.readable(programs.parent) / "bin"

    def initialise(self) -> None:
        """Make an empty primary of it."""
        initialise(self.process, self._programs, self.server.password)

    def start(self) -> None:
        """Start it, and wait until it answers.

        Raises:
            ServerStartError: It does not start; the message has the end of its log.
        """
        options = {
            **SETTINGS,
            "port": str(self.server.port),
            "unix_socket_directories": str(self.process.directory),
        }
        arguments = [f"--{name}={value}" for name, value in options.items()]
        self.process.start([self._programs / "postgres", "-D", self.data, *arguments])
        self.process.wait_until(self.server.answers)

    def stop(self) -> None:
        """Stop it as ``pg_ctl stop`` does: clients are cut off, what was written is sent first."""
        if pid := self.postmaster():
            self.process.halt(pid)

    def pause_replay(self) -> None:
        """Let it receive, and show nothing of it; returns once it is paused."""
        self.server.execute("SELECT pg_wal_replay_pause()")
        paused = [("paused",)]
        state = "SELECT pg_get_wal_replay_pause_state()"
        wait_until(lambda: self.server.execute(state) == paused, f"{self.name} is paused")

    def resume_replay(self) -> None:
        """Let it show what it has received."""
        self.server.execute("SELECT pg_wal_replay_resume()")

    def delay(self, milliseconds: int) -> None:
        """Let it show each commit so long after it was made; 0 for at once."""
        self.server.execute(f"ALTER SYSTEM SET recovery_min_apply_delay = {milliseconds}")
        self.server.execute("SELECT pg_reload_conf()")
        shown = [(f"{milliseconds}",)]
        setting = "SELECT setting FROM pg_settings WHERE name = 'recovery_min_apply_delay'"
        wait_until(lambda: self.server.execute(setting) == shown, f"{self.name} delays")

    def copy(self, primary: "StreamingNode") -> None:
        """Take a base backup of the primary in place of its data; it is to be stopped."""
        shutil.rmtree(self.data, ignore_errors=True)
        source = f"{primary.address(self.name)} dbname=postgres"
        self.process.run(
            [
                self._programs / "pg_basebackup",
                f"--pgdata={self.data}",
                f"--dbname={source}",
                "--wal-method=stream",
                f"--slot={self.name}",
                "--checkpoint=fast",
                "--no-sync",
            ]
        )

    def rewind(self, primary: "StreamingNode") -> None:
        """Go back to where it and the primary have parted; it is to be stopped.

        Raises:
            ServerStartError: ``pg_rewind`` cannot do it.
        """
        source = f"{primary.address(self.name)} dbname=postgres"
        self.process.run(
            [
                self._programs / "pg_rewind",
                f"--target-pgdata={self.data}",
                f"--source-server={source}",
                "--no-sync",
            ]
        )

    def follow(self, primary: "StreamingNode") -> None:
        """Be a standby of the primary from now on, or from its next start on."""
        signal = self.data / "standby.signal"
        signal.touch()
        self.process.own(signal)
        with (self.data / "postgresql.auto.conf").open("a") as settings:
            settings.write(f"primary_conninfo = '{primary.address(self.name)}'\n")
            settings.write(f"primary_slot_name = '{self.name}'\n")
        if self.postmaster():
            self.server.execute("SELECT pg_reload_conf()")

    def make_slots(self, nodes: Sequence["StreamingNode"]) -> None:
        """Keep what the nodes have not received yet; known slots stay as they are."""
        for name in (node.name for node in nodes if node is not self):
            self.server.execute(
                f"SELECT pg_create_physical_replication_slot('{name}', true) WHERE NOT EXISTS"
                f" (SELECT FROM pg_replication_slots WHERE slot_name = '{name}')"
            )

    def address(self, client: str) -> str:
        """Return what a replica connects to it with."""
        server = self.server
        account = f"user={server.user} password={server.password}"
        return f"host={server.host} port={server.port} {account} application_name={client}"


class StreamingCluster:
    """A primary and its replicas, all running.

    Args:
        nodes: Every node; the first is the primary.
    """

    def __init__(self, nodes: Sequence[StreamingNode]) -> None:
        self.nodes = nodes
        self.primary = nodes[0]

    @property
    def replicas(self) -> list[StreamingNode]:
        """Every node but the primary, in the order of the nodes."""
        return [node for node in self.nodes if node is not self.primary]

    @property
    def url(self) -> str:
        """One URL of all nodes, as the application's role."""
        return multi_host_url(self.nodes)

    def wait_for_replay(self) -> None:
        """Wait until every standby that runs shows what the primary has committed until now."""
        ((position,),) = self.primary.execute("SELECT pg_current_wal_flush_lsn()::text")
        for node in self.replicas:
            if node.role() == "standby":
                node.wait_for_replay(str(position))

    def restart_primary(self) -> None:
        """Stop the primary and start it again, on the same timeline."""
        self.primary.stop()
        self.primary.start()

    def promote(self, node: StreamingNode) -> None:
        """Make a replica the primary; the other replicas follow it, the old primary does not.

        The old primary is left as it is: stop or kill it first, or there are two.
        """
        promoted = node.server.execute("SELECT pg_promote(true, 30)")
        assert promoted == [(True,)], f"{node.name} is still a standby"
        node.make_slots(self.nodes)
        for each in self.replicas:
            if each is not node:
                each.follow(node)
        self.primary = node

    def demote(self, node: StreamingNode) -> bool:
        """Make a standby of a former primary, or of a replica that has lost touch.

        What it has written since the promotion is gone.

        Returns:
            Whether it was rewound; where that cannot be done, it has taken a new base backup.
        """
        node.stop()
        self.primary.server.execute("CHECKPOINT")  # pg_rewind reads the timeline there
        try:
            node.rewind(self.primary)
            is_rewound = True
        except ServerStartError:
            node.copy(self.primary)
            is_rewound = False
        node.follow(self.primary)
        node.start()
        return is_rewound

    def reset(self) -> None:
        """Undo stops, kills, freezes, pauses and delays, and empty the application's database.

        Raises:
            AssertionError: Another node has become the primary, which a reset does not undo.
        """
        assert self.primary is self.nodes[0], "a test that promotes takes a cluster of its own"
        for node in self.nodes:
            if node.postmaster() is None:
                node.start()
            node.thaw()
        for each in self.replicas:
            each.resume_replay()
            each.delay(0)
        make_database(self.primary)
        self.wait_for_replay()


@contextmanager
def streaming_cluster(replicas: int = 2) -> Iterator[StreamingCluster]:
    """Run a primary and its replicas on loopback until the end.

    Args:
        replicas: How many.

    Raises:
        ServerStartError: One does not start; the message has the end of its log.
    """
    programs = cluster_programs()
    password = secrets.token_hex(8)
    with ExitStack() as stack:
        nodes = []
        for name in ["primary", *(f"replica_{each}" for each in range(1, replicas + 1))]:
            process = stack.enter_context(ServerProcess(name, stop_signal="INT"))
            nodes.append(StreamingNode(name, process, programs, password))
            stack.callback(_kill, nodes[-1])
        _start(nodes)
        yield StreamingCluster(nodes)


def _start(nodes: Sequence[StreamingNode]) -> None:
    primary, *replicas = nodes
    primary.initialise()
    primary.start()
    primary.make_slots(nodes)
    make_application(primary)

    def start(replica: StreamingNode) -> None:
        replica.copy(primary)
        replica.follow(primary)
        replica.start()

    with ThreadPoolExecutor() as threads:
        list(threads.map(start, replicas))


def _kill(node: StreamingNode) -> None:
    if node.postmaster() is not None:
        node.kill()

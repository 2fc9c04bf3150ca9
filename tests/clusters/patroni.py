"""PostgreSQL under Patroni, which elects another primary where the primary fails."""

import json
import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from tests.clusters.node import (
    ClusterNode,
    cluster_programs,
    make_application,
    make_database,
    multi_host_url,
    quiet_port,
    wait_until,
)
from tests.servers.parts import require_part
from tests.servers.postgres import SUPERUSER
from tests.servers.process import ServerProcess

CACHE = Path(__file__).parents[2] / ".cache/patroni"
"""Where ``tests/clusters/fetch_patroni.sh`` puts its programs."""
TTL_SECONDS = 20
"""How long a dead leader is still the leader; Patroni allows no less."""
START_SECONDS = 60.0
SCOPE = "penstock"


@dataclass(frozen=True)
class EtcdServer:
    """Where a running etcd is: one member, on loopback."""

    port: int

    def answers(self) -> bool:
        """Return whether it serves."""
        try:
            url = f"http://127.0.0.1:{self.port}/health"
            return httpx.get(url, trust_env=False).status_code == 200
        except httpx.TransportError:
            return False


class PatroniNode(ClusterNode):
    """One Patroni and its PostgreSQL.

    Args:
        name: Its name in the cluster.
        process: What runs Patroni.
        password: The superuser's and the application's.
    """

    def __init__(self, name: str, process: ServerProcess, password: str) -> None:
        super().__init__(name, process, password)
        self.rest_port = quiet_port()

    @property
    def rest_url(self) -> str:
        """Where its REST endpoints are: ``/cluster``, ``/primary``, ``/replica`` and others."""
        return f"http://127.0.0.1:{self.rest_port}"

    def is_primary(self) -> bool:
        """Return whether it is the leader and its PostgreSQL takes writes."""
        # Patroni goes on saying so for a while where its PostgreSQL has crashed.
        return self._says("/primary") and self.role() == "primary"

    def is_synchronous(self) -> bool:
        """Return whether it is a replica that the leader's commits wait for."""
        return self._says("/synchronous")

    def is_replica(self) -> bool:
        """Return whether it is a replica that takes reads."""
        return self._says("/replica")

    def members(self) -> dict[str, dict[str, Any]]:
        """Return what ``/cluster`` says of each node, by name; nothing where it does not answer."""
        try:
            answer = httpx.get(f"{self.rest_url}/cluster", trust_env=False)
        except httpx.TransportError:
            return {}
        return {each["name"]: each for each in answer.json()["members"]}

    def _says(self, path: str) -> bool:
        try:
            return httpx.get(self.rest_url + path, trust_env=False).status_code == 200
        except httpx.TransportError:
            return False


class PatroniCluster:
    """Several nodes under Patroni.

    Args:
        nodes: Every node.
        etcd: Where they keep who leads.
        etcd_process: What runs it.
        synchronous: Whether commits wait for a replica.
    """

    def __init__(
        self,
        nodes: Sequence[PatroniNode],
        etcd: EtcdServer,
        etcd_process: ServerProcess,
        *,
        synchronous: bool,
    ) -> None:
        self.nodes = nodes
        self._etcd = etcd
        self._etcd_process = etcd_process
        self._synchronous = synchronous

    @property
    def url(self) -> str:
        """One URL of all nodes, as the application's role."""
        return multi_host_url(self.nodes)

    def leader(self, *, other_than: PatroniNode | None = None) -> PatroniNode:
        """Return the node that takes writes; wait for it where there is none.

        Args:
            other_than: A node that is to have lost the lead.
        """
        found: list[PatroniNode] = []

        def is_found() -> bool:
            found[:] = [node for node in self.nodes if node is not other_than and node.is_primary()]
            return bool(found)

        self._wait_until(is_found, "a leader")
        return found[0]

    def replicas(self) -> list[PatroniNode]:
        """Return the nodes that take reads only, in the order of the nodes."""
        return [node for node in self.nodes if node.is_replica()]

    def switchover(self, candidate: PatroniNode | None = None) -> PatroniNode:
        """Make another node the leader, as for upkeep, and return it.

        Args:
            candidate: Which; None for any that has everything.
        """
        leader = self.leader()
        asked = {"leader": leader.name, **({"candidate": candidate.name} if candidate else {})}
        url = f"{leader.rest_url}/switchover"
        answer = httpx.post(url, json=asked, timeout=START_SECONDS, trust_env=False)
        assert answer.status_code == 200, answer.text
        return self.leader(other_than=leader)

    def kill_leader(self) -> PatroniNode:
        """Kill the leader's Patroni and PostgreSQL; return the dead node.

        The others elect a leader once it has been silent for :data:`TTL_SECONDS`.
        """
        leader = self.leader()
        leader.kill()
        return leader

    def crash_leader(self) -> PatroniNode:
        """Kill the leader's PostgreSQL alone; return the node.

        Its Patroni starts it again, and leaves the lead to another node only where the setting
        ``primary_start_timeout`` is 0.
        """
        leader = self.leader()
        leader.crash()
        return leader

    def kill_etcd(self) -> None:
        """Kill etcd: within seconds the leader makes a standby of itself; no node takes writes."""
        self._etcd_process.kill()

    def start_etcd(self) -> None:
        """Start etcd again, after which the nodes elect a leader."""
        self._etcd_process.start_again()
        self._etcd_process.wait_until(self._etcd.answers)

    def start(self, node: PatroniNode) -> None:
        """Start a node that was killed, and wait until it takes part again."""
        node.process.start_again()
        self._wait_until(lambda: self._takes_part(node), f"{node.name} takes part")

    def wait_until_whole(self) -> None:
        """Wait until there is a leader, and all the others stream from it on its timeline.

        Where commits wait for a replica, one has been chosen for that.
        """
        self._wait_until(self._is_whole, "every node takes part")

    def reset(self) -> None:
        """Start what was killed, wait until all take part, and empty the application's database."""
        if not self._etcd.answers():
            self.start_etcd()
        for node in self.nodes:
            if not node.members():
                self.start(node)
        self.wait_until_whole()
        make_database(self.leader())

    def _is_whole(self) -> bool:
        roles = {member["role"] for member in self.leader().members().values()}
        all_take_part = all(self._takes_part(node) for node in self.nodes)
        return all_take_part and ("sync_standby" in roles) == self._synchronous

    def _takes_part(self, node: PatroniNode) -> bool:
        # A former leader is a replica of an old timeline for a moment, before it is rewound.
        leader = self.leader()
        members = leader.members()
        expected = {
            "state": "running" if node is leader else "streaming",
            "timeline": members.get(leader.name, {}).get("timeline"),
        }
        return expected.items() <= members.get(node.name, {}).items() and node.role() != "down"

    def _wait_until(self, condition: Callable[[], bool], what: str) -> None:
        try:
            wait_until(condition, what, seconds=START_SECONDS)
        except TimeoutError as error:
            error.add_note("\n".join(f"{node.name}:\n{node.process.log()}" for node in self.nodes))
            raise


@contextmanager
def patroni_cluster(
    nodes: int = 3, *, synchronous: bool = False, settings: Mapping[str, object] | None = None
) -> Iterator[PatroniCluster]:
    """Run PostgreSQL under Patroni, and its etcd, on loopback until the end.

    Args:
        nodes: How many PostgreSQL.
        synchronous: Whether a commit waits for a replica, which alone may become the leader.
        settings: Patroni's dynamic settings that add to or replace the tests' usual ones, such as
            ``{"primary_start_timeout": 0}``.

    Raises:
        TimeoutError: They do not form a cluster; the notes have the ends of their logs.
    """
    programs = cluster_programs()
    etcd, patroni = CACHE / "etcd/etcd", CACHE / "environment/bin/patroni"
    present = etcd.exists() and patroni.exists()
    require_part("Patroni with etcd", present=present, remedy="tests/clusters/fetch_patroni.sh")
    shared = {
        "ttl": TTL_SECONDS,
        "loop_wait": 1,
        "retry_timeout": 3,
        "synchronous_mode": synchronous,
        **(settings or {}),
    }
    with ExitStack() as stack:
        store_process = stack.enter_context(ServerProcess("etcd", stop_signal="TERM"))
        store = _start_etcd(store_process, etcd)
        password = secrets.token_hex(8)
        members = [
            PatroniNode(f"node_{number}", process, password)
            for number in range(1, nodes + 1)
            for process in [stack.enter_context(ServerProcess("patroni", stop_signal="TERM"))]
        ]
        cluster = PatroniCluster(members, store, store_process, synchronous=synchronous)
        for node in cluster.nodes:
            _start_node(node, programs, _configuration(node, store, shared))
            stack.callback(node.kill)
        cluster.wait_until_whole()
        make_application(cluster.leader())
        yield cluster


def _start_etcd(process: ServerProcess, binary: Path) -> EtcdServer:
    program = process.readable(binary.parent) / binary.name
    peers = f"http://127.0.0.1:{quiet_port()}"

    def on(port: int) -> tuple[EtcdServer, list[str | Path]]:
        clients = f"http://127.0.0.1:{port}"
        options = {
            "advertise-client-urls": clients,
            "data-dir": process.directory / "data",
            "initial-advertise-peer-urls": peers,
            "initial-cluster": f"default={peers}",
            "listen-client-urls": clients,
            "listen-peer-urls": peers,
        }
        return EtcdServer(port), [program, *(f"--{k}={v}" for k, v in options.items())]

    return process.serve(on)


def _start_node(node: PatroniNode, programs: Path, configuration: Mapping[str, Any]) -> None:
    process = node.process
    bin_dir = process.readable(programs.parent) / "bin"
    environment = process.readable(CACHE / "environment")
    postgresql = {**configuration["postgresql"], "bin_dir": str(bin_dir)}
    file = process.write("patroni.json", json.dumps({**configuration, "postgresql": postgresql}))
    process.start([environment / "bin/python", environment / "bin/patroni", file])


def _configuration(
    node: PatroniNode, store: EtcdServer, shared: Mapping[str, object]
) -> dict[str, Any]:
    rest, directory = f"127.0.0.1:{node.rest_port}", node.process.directory
    address = f"{node.server.host}:{node.server.port}"
    account = {"password": node.server.password}
    parameters = {
        "dynamic_shared_memory_type": "mmap",
        "fsync": "off",
        "unix_socket_directories": str(directory),
        "wal_retrieve_retry_interval": "100ms",
    }
    return {
        "scope": SCOPE,
        "name": node.name,
        "etcd3": {"host": f"127.0.0.1:{store.port}"},
        "restapi": {"listen": rest, "connect_address": rest},
        "bootstrap": {
            "dcs": {**shared, "postgresql": {"use_pg_rewind": True, "use_slots": True}},
            "initdb": ["no-sync", {"encoding": "UTF8"}, {"locale": "C"}],
        },
        "postgresql": {
            "listen": address,
            "connect_address": address,
            "data_dir": str(node.data),
            "pgpass": str(directory / "pgpass"),
            "parameters": parameters,
            "basebackup": [{"checkpoint": "fast"}, "no-sync"],
            "pg_hba": [
                "local all all trust",
                "host all all 127.0.0.1/32 scram-sha-256",
                "host replication all 127.0.0.1/32 scram-sha-256",
            ],
            "authentication": {
                "superuser": {"username": SUPERUSER, **account},
                "replication": {"username": "replicator", **account},
            },
        },
    }

"""Peers as processes of their own, from outside."""

import os
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field

from benchmarks.peer_app import CPU_SECONDS

SECONDS_TO_START = 60.0


@dataclass(frozen=True)
class Peer:
    """One way to write the service.

    Args:
        module: Its module in ``benchmarks.peers``.
        tune_gc: Whether Python's garbage collector gets Penstock's setting: ``on`` where
            Penstock is installed, ``off`` nowhere, ``all`` here too, whoever it is.
        environment: More variables of its environment.
    """

    module: str
    tune_gc: str = "on"
    environment: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Service:
    """A running peer.

    Args:
        url: Where it answers.
    """

    url: str

    def cpu_seconds(self) -> float:
        """Return the CPU time that its process has used so far."""
        with urllib.request.urlopen(self.url + CPU_SECONDS, timeout=SECONDS_TO_START) as answer:  # noqa: S310 - loopback
            return float(answer.read())


@contextmanager
def serving(peers: Mapping[str, Peer], database_url: str) -> Iterator[dict[str, Service]]:
    """Serve peers on one database for the length of a block.

    Args:
        peers: Whom, by name.
        database_url: For asyncpg.

    Yields:
        The services by name; all of them have started.

    Raises:
        RuntimeError: One did not start in time; its own output says why.
    """
    with ExitStack() as stack:
        processes = {
            name: stack.enter_context(_process(peer, database_url)) for name, peer in peers.items()
        }
        services = {name: _started(name, process) for name, process in processes.items()}
        yield services
        for process in processes.values():
            process.terminate()  # all at once: each is then only waited for


@contextmanager
def _process(peer: Peer, database_url: str) -> Iterator["subprocess.Popen[str]"]:
    environment = os.environ | {
        "PEER": f"benchmarks.peers.{peer.module}",
        "DATABASE_URL": database_url,
        "ENVIRONMENT": "production",
        "TUNE_GC": peer.tune_gc,
        **peer.environment,
    }
    command = [sys.executable, "-m", "benchmarks.peer_app"]
    with subprocess.Popen(  # noqa: S603 - our own modules
        command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            yield process
        finally:
            process.terminate()


def _started(name: str, process: "subprocess.Popen[str]") -> Service:
    port = process.stdout.readline().strip() if process.stdout else ""
    service = Service(f"http://127.0.0.1:{port}")
    try:
        service.cpu_seconds()  # answered once the application has started
    except (urllib.error.URLError, OSError, ValueError) as error:
        raise RuntimeError(f"{name} did not start; its own output says why") from error
    return service

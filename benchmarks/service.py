"""Peers as processes of their own, from outside."""

import json
import os
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field

from benchmarks.peer_app import USAGE

SECONDS_TO_START = 60.0


@dataclass(frozen=True)
class Peer:
    """One way to write the service.

    Args:
        module: Its module in ``benchmarks.peers``.
        tune_gc: Whether Python's garbage collector gets Penstock's setting: ``on`` where
            Penstock is installed, ``off`` nowhere, ``all`` here too, whoever it is.
        environment: More variables of its environment.
        workers: The cores that each of its processes runs on; empty for any.
    """

    module: str
    tune_gc: str = "on"
    environment: Mapping[str, str] = field(default_factory=dict)
    workers: Sequence[Collection[int]] = ((),)


@dataclass(frozen=True)
class Usage:
    """What processes have used so far.

    Args:
        cpu_seconds: CPU time.
        waits: How often they left their core to wait for something.
        preemptions: How often it was taken from them.
    """

    cpu_seconds: float
    waits: float
    preemptions: float

    def since(self, before: "Usage") -> "Usage":
        """Return what came to it since then."""
        return Usage(
            self.cpu_seconds - before.cpu_seconds,
            self.waits - before.waits,
            self.preemptions - before.preemptions,
        )


@dataclass(frozen=True)
class Service:
    """A running peer.

    Args:
        url: Where it answers.
        others: Where its further workers answer.
    """

    url: str
    others: Sequence[str] = ()

    def cpu_seconds(self) -> float:
        """Return the CPU time that its processes have used so far."""
        return self.usage().cpu_seconds

    def usage(self) -> Usage:
        """Return what its processes have used so far."""
        each = [_usage(url) for url in (self.url, *self.others)]
        cpu_seconds, waits, preemptions = (sum(numbers) for numbers in zip(*each, strict=True))
        return Usage(cpu_seconds, waits, preemptions)


def _usage(url: str) -> list[float]:
    with urllib.request.urlopen(url + USAGE, timeout=SECONDS_TO_START) as answer:  # noqa: S310 - loopback
        numbers: list[float] = json.load(answer)
        return numbers


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
            name: [
                stack.enter_context(_process(peer, cores, database_url)) for cores in peer.workers
            ]
            for name, peer in peers.items()
        }
        yield {name: _started(name, workers) for name, workers in processes.items()}
        for workers in processes.values():
            for process in workers:
                process.terminate()  # all at once: each is then only waited for


@contextmanager
def on_cores(cores: Collection[int]) -> Iterator[None]:
    """Run this process, and what it starts, on some cores alone for a block; on any if empty."""
    if not cores:
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


@contextmanager
def _process(
    peer: Peer, cores: Collection[int], database_url: str
) -> Iterator["subprocess.Popen[str]"]:
    environment = os.environ | {
        "PEER": f"benchmarks.peers.{peer.module}",
        "DATABASE_URL": database_url,
        "ENVIRONMENT": "production",
        "TUNE_GC": peer.tune_gc,
        **peer.environment,
    }
    command = [sys.executable, "-m", "benchmarks.peer_app"]
    with on_cores(cores):
        process = subprocess.Popen(  # noqa: S603 - our own modules
            command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
    with process:
        try:
            yield process
        finally:
            process.terminate()


def _started(name: str, workers: "Sequence[subprocess.Popen[str]]") -> Service:
    ports = [worker.stdout.readline().strip() if worker.stdout else "" for worker in workers]
    first, *others = (f"http://127.0.0.1:{port}" for port in ports)
    service = Service(first, others)
    try:
        service.usage()  # answered once the application has started
    except (urllib.error.URLError, OSError, ValueError) as error:
        raise RuntimeError(f"{name} did not start; its own output says why") from error
    return service

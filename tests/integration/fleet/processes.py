"""Worker processes that share a server, and what the server says of their connections."""

import json
import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import psycopg
from tests.integration.fleet.worker import run
from tests.servers.postgres import PostgresServer

# Forked from a process that has imported everything, which takes longer than all the rest.
_CONTEXT = get_context("forkserver")
_CONTEXT.set_forkserver_preload(["tests.integration.fleet.worker"])

_COUNT = """
    SELECT count(*) FROM pg_stat_activity
    WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()
"""


class WorkerProcess:
    """One process of :mod:`tests.integration.fleet.worker`.

    Args:
        url: Of its database.
        output: The file that it reports to.
        seconds: For which the server holds each connection.
        settings: Of its database.
    """

    def __init__(self, url: str, output: Path, seconds: float, settings: dict[str, Any]) -> None:
        self._output = output
        output.touch()
        self._process = _CONTEXT.Process(target=run, args=(url, output, seconds, settings))
        self._process.start()

    def reports(self) -> list[dict[str, Any]]:
        """Return what it has reported so far.

        Raises:
            AssertionError: It has written something else, such as a traceback.
        """
        *lines, _ = self._output.read_text().split("\n")
        assert all(line.startswith("{") for line in lines), "\n".join(lines)
        return [json.loads(line) for line in lines]

    def kill(self) -> None:
        """End it as ``kill -9`` does."""
        self._process.kill()
        self._process.join()

    def end(self) -> None:
        """Have it close its database and end."""
        assert self._process.pid is not None
        os.kill(self._process.pid, signal.SIGTERM)
        self._process.join(20)
        assert self._process.exitcode == 0, self._output.read_text()


class Workers:
    """The worker processes of a test.

    Args:
        server: What they share.
        url: Of their database.
        directory: For what they report.
        monitor: The test's own connection, which is another client's to the fleet.
    """

    def __init__(
        self, server: PostgresServer, url: str, directory: Path, monitor: psycopg.Connection
    ) -> None:
        self._server = server
        self._url = url
        self._directory = directory
        self._monitor = monitor
        self.all: list[WorkerProcess] = []
        self.alive: list[WorkerProcess] = []

    def start(self, seconds: float = 0.005, **settings: Any) -> WorkerProcess:
        """Start one."""
        output = self._directory / f"{len(self.all)}.jsonl"
        worker = WorkerProcess(self._url, output, seconds, settings)
        self.all.append(worker)
        self.alive.append(worker)
        return worker

    def kill(self, worker: WorkerProcess) -> None:
        """End one as ``kill -9`` does."""
        self.alive.remove(worker)
        worker.kill()

    def end(self) -> None:
        """Have those that live close their databases and end."""
        for worker in self.alive:
            worker.end()
        self.alive.clear()

    def open(self) -> int:
        """Return how many connections the server has but for the test's own."""
        row = self._monitor.execute(_COUNT).fetchone()
        assert row is not None
        return int(row[0])

    def most_open(self, seconds: float) -> int:
        """Return the most connections that were open at once, in the seconds from now on."""
        ends_at = time.monotonic() + seconds
        most = 0
        while time.monotonic() < ends_at:
            most = max(most, self.open())
            time.sleep(0.02)
        return most

    def wait_for_reports(self, seconds: float = 60.0) -> None:
        """Wait until each that lives has reported."""
        ends_at = time.monotonic() + seconds
        while not all(worker.reports() for worker in self.alive):
            assert time.monotonic() < ends_at, "a worker does not start"
            time.sleep(0.05)

    def errors(self) -> list[str]:
        """Return what has reached a request of any."""
        return [error for each in self.all for error in (each.reports() or [_NONE])[-1]["errors"]]

    def done(self) -> list[tuple[float, float]]:
        """Return for each that lives how many requests it had served, and when."""
        return [(each["done"], each["at"]) for each in (w.reports()[-1] for w in self.alive)]

    def shares(self) -> list[str]:
        """Return what each that lives has said last of its share."""
        return [worker.reports()[-1]["share"] for worker in self.alive]


_NONE: dict[str, list[str]] = {"errors": []}


@contextmanager
def workers_on(server: PostgresServer, directory: Path) -> Iterator[Workers]:
    """Give the means to run worker processes on a database of a server, and kill what is left."""
    monitored = psycopg.connect(
        host=server.host,
        port=server.port,
        user=server.user,
        password=server.password,
        dbname="postgres",
        autocommit=True,
        application_name="monitor",
    )
    with server.database() as url, monitored as monitor:
        workers = Workers(server, url, directory, monitor)
        try:
            yield workers
        finally:
            for worker in workers.all:
                worker.kill()

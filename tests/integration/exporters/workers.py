"""Real workers of the service behind one socket, each a process that a test may stop or kill."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import httpx

ROOT = Path(__file__).parents[3]
START_SECONDS = 60.0


class Service:
    """Workers of one service.

    Args:
        listener: Where all of them listen.
        log: What they write.
    """

    def __init__(self, listener: socket.socket, log: Path) -> None:
        self._listener = listener
        self._log = log
        self._workers: dict[int, subprocess.Popen[bytes]] = {}
        # No connection is used twice, so that any worker may get the next request.
        limits = httpx.Limits(max_keepalive_connections=0)
        self._client = httpx.Client(
            base_url=f"http://{self.address}", limits=limits, timeout=30, trust_env=False
        )

    @property
    def address(self) -> str:
        """Host and port."""
        host, port = self._listener.getsockname()
        return f"{host}:{port}"

    @property
    def pids(self) -> list[int]:
        """Of those that run."""
        return [pid for pid, worker in self._workers.items() if worker.poll() is None]

    def start(self, environment: Mapping[str, str]) -> None:
        """Start one more worker."""
        descriptor = self._listener.fileno()
        app = "tests.integration.exporters.service:create_app"
        with self._log.open("ab") as log:
            worker = subprocess.Popen(
                [sys.executable, "-m", "uvicorn", "--factory", app, f"--fd={descriptor}"],
                cwd=ROOT,
                env={**os.environ, **environment},
                pass_fds=[descriptor],
                stderr=log,
                stdin=subprocess.DEVNULL,
                stdout=log,
            )
        self._workers[worker.pid] = worker

    def await_start(self) -> None:
        """Wait until all workers serve."""
        deadline = time.monotonic() + START_SECONDS
        while self.log().count("Application startup complete") < len(self._workers):
            assert len(self.pids) == len(self._workers), self.log()
            assert time.monotonic() < deadline, self.log()
            time.sleep(0.05)

    def get(self, path: str, **headers: str) -> httpx.Response:
        """Return an answer, whatever it says."""
        return self._client.get(path, headers=headers)

    def ask(self, path: str, method: str = "GET") -> None:
        """Ask for what has to be answered."""
        answer = self._client.request(method, path)
        assert answer.status_code == 200, answer.text

    def send(self, number: int, signal_number: signal.Signals) -> int:
        """Send a signal to a worker; returns its process id."""
        pid = self.pids[number]
        os.kill(pid, signal_number)
        if signal_number == signal.SIGKILL:
            self._workers[pid].wait()
        return pid

    def log(self) -> str:
        """Return what the workers wrote."""
        return self._log.read_text(errors="replace") if self._log.exists() else ""

    def stop(self) -> None:
        """End all workers, also those that a test has stopped."""
        self._client.close()
        for worker in self._workers.values():
            worker.kill()
            worker.wait()


@contextmanager
def serving_with(workers: int, environment: Mapping[str, str], log: Path) -> Iterator[Service]:
    """Serve until the end.

    Args:
        workers: How many.
        environment: Their variables.
        log: What they write.
    """
    with socket.create_server(("127.0.0.1", 0)) as listener:
        service = Service(listener, log)
        try:
            for _ in range(workers):
                service.start(environment)
            service.await_start()
            yield service
        finally:
            service.stop()

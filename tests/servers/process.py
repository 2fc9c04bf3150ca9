"""A server process in a directory of its own, and neither outlives the test run."""

import os
import re
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Protocol, Self, TypeVar

from penstock.demo.child import until_input_closes
from penstock.demo.embedded_postgres import readable_tree, server_account, server_directory

START_SECONDS = 60.0
STOP_SECONDS = 20.0
PORT_ATTEMPTS = 5
PORT_IS_TAKEN = re.compile("address already in use", re.IGNORECASE)

# Enough for a PostgreSQL with its write-ahead log and a MariaDB, several times over.
MEMORY_BYTES = 4 * 1024**3


class ServerStartError(Exception):
    """A server did not start; the message carries the end of its log."""


class Server(Protocol):
    """What tests know of a server."""

    def answers(self) -> bool:
        """Return whether it serves."""


S = TypeVar("S", bound=Server)


def free_port() -> int:
    """Return a TCP port of the loopback interface that nobody used a moment ago."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


def roomy_memory() -> Path | None:
    """Return where files live in memory, which is five times as fast; None for the usual place."""
    memory = Path("/dev/shm")  # in a container often no more than 64 MB
    if memory.is_dir() and shutil.disk_usage(memory).free >= MEMORY_BYTES:
        return memory
    return None


class ServerProcess:
    """A temporary directory, the preparations run in it, and one server process.

    Args:
        name: Begins the directory's name.
        stop_signal: The signal that stops the server at once, without its ``SIG``.
    """

    def __init__(self, name: str, *, stop_signal: str) -> None:
        self._account = account = server_account()
        self.directory = server_directory(f"penstock-{name}-", account, place=roomy_memory())
        self._readable: dict[Path, Path] = {}
        self._stop_signal = stop_signal
        self._runtime: subprocess.Popen[bytes] | None = None
        self._command: Sequence[str | Path] = ()
        self._user = account.pw_uid if account else None
        self._group = account.pw_gid if account else None
        self._extra_groups: list[int] | None = [] if account else None

    def own(self, path: Path) -> None:
        """Give a path to the user that the server runs as."""
        if self._user is not None and self._group is not None:
            os.chown(path, self._user, self._group)

    def write(self, name: str, text: str) -> Path:
        """Write a file that only the server's user may read, and return its path."""
        path = self.directory / name
        path.touch(mode=0o600)
        path.write_text(text)
        self.own(path)
        return path

    def readable(self, tree: Path) -> Path:
        """Return ``tree``, or a copy of it where the server's user may not reach it."""
        if tree not in self._readable:
            self._readable[tree] = readable_tree(tree, self.directory, self._account)
        return self._readable[tree]

    def run(self, command: Sequence[str | Path], *, env: Mapping[str, str] | None = None) -> None:
        """Run a preparation to its end as the server's user.

        Raises:
            ServerStartError: It returned something other than 0.
        """
        done = subprocess.run(
            command,
            capture_output=True,
            check=False,
            cwd=self.directory,
            env={**os.environ, **(env or {})},
            stdin=subprocess.DEVNULL,
            text=True,
            timeout=START_SECONDS,
            user=self._user,
            group=self._group,
            extra_groups=self._extra_groups,
        )
        if done.returncode:
            raise ServerStartError(f"{command[0]} failed:\n{done.stdout}{done.stderr}")

    def start(self, command: Sequence[str | Path], *, env: Mapping[str, str] | None = None) -> None:
        """Start the server, without waiting until it answers."""
        self._command = command
        with (self.directory / "log").open("wb") as log:
            self._runtime = subprocess.Popen(
                until_input_closes(command, self.directory, signal=self._stop_signal),
                cwd="/",
                env={**os.environ, **(env or {})},
                start_new_session=True,
                stderr=log,
                stdin=subprocess.PIPE,
                stdout=log,
                user=self._user,
                group=self._group,
                extra_groups=self._extra_groups,
            )

    def halt(self, pid: int) -> None:
        """Stop the server, of which ``pid`` is the first process, and keep its directory."""
        assert self._runtime
        os.kill(pid, getattr(signal, f"SIG{self._stop_signal}"))
        # Before its standard input is closed, which removes the directory.
        self._runtime.wait(STOP_SECONDS)
        self._close_input(self._runtime)

    def kill(self) -> None:
        """Kill the server, of its children those in its session, and keep its directory."""
        assert self._runtime
        if self._runtime.poll() is None:
            os.killpg(self._runtime.pid, signal.SIGKILL)
            self._runtime.wait(STOP_SECONDS)
        self._close_input(self._runtime)

    def start_again(self) -> None:
        """Start a server that was halted, as before, without waiting until it answers."""
        self.start(self._command)

    def wait_until(self, answers: Callable[[], bool]) -> None:
        """Wait until the started server answers.

        Raises:
            ServerStartError: It ended, or did not answer within a minute.
        """
        deadline = time.monotonic() + START_SECONDS
        while not answers():
            if not self._runtime or self._runtime.poll() is not None or time.monotonic() > deadline:
                raise ServerStartError(f"The server did not start:\n{self.log()}")
            time.sleep(0.05)

    def serve(self, on: Callable[[int], tuple[S, Sequence[str | Path]]]) -> S:
        """Start the server on a free port, and wait until it answers.

        Args:
            on: Makes for a port what tests know of the server, and the command that starts it.

        Raises:
            ServerStartError: It did not start; the message has the end of its log.
        """
        for attempt in range(PORT_ATTEMPTS):
            server, command = on(free_port())
            self.start(command)
            try:
                self.wait_until(server.answers)
            except ServerStartError:
                # Somebody else may have taken the port meanwhile.
                if attempt + 1 == PORT_ATTEMPTS or not PORT_IS_TAKEN.search(self.log()):
                    raise
            else:
                return server
        raise AssertionError("unreachable")

    def log(self) -> str:
        """Return the last lines that the server wrote."""
        path = self.directory / "log"
        return "\n".join(path.read_text().splitlines()[-20:]) if path.exists() else ""

    def stop(self) -> None:
        """Stop the server, kill it where that takes long, and remove the directory."""
        if self._runtime:
            self._close_input(self._runtime)
            try:
                self._runtime.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self.kill()
        shutil.rmtree(self.directory, ignore_errors=True)

    def _close_input(self, runtime: subprocess.Popen[bytes]) -> None:
        if runtime.stdin:
            runtime.stdin.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

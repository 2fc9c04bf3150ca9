"""A ``penstock demo`` as somebody starts it, and what it leaves behind."""

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Self

SECONDS = 60.0
SMALL = ("--users", "50", "--requests", "60", "--clients", "4", "--workers", "1")


class Machine:
    """A temporary directory for everything that demos write, and a look at what is there."""

    def __init__(self) -> None:
        # Short, for the socket in it, and as open as /tmp: a server that may not run as root
        # has to get there.
        self.directory = Path(tempfile.mkdtemp(prefix="demos-", dir="/tmp"))
        self.directory.chmod(0o1777)

    def demo(
        self, *options: str, variables: Mapping[str, str] | None = None, place: Path | None = None
    ) -> "RunningDemo":
        """Start a small demo, in the directory ``place`` or here."""
        kept = {name: value for name, value in os.environ.items() if "DATABASE" not in name}
        environment = {**kept, "TMPDIR": str(self.directory), **(variables or {})}
        return RunningDemo([*SMALL, *options], environment, place)

    def files(self) -> list[str]:
        """Return what is in the directory."""
        return sorted(path.name for path in self.directory.iterdir())

    def processes(self) -> dict[int, str]:
        """Return id and command line of processes that work in the directory or name it."""
        found = {}
        for process in Path("/proc").glob("[0-9]*"):
            try:
                command = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode()
                place = str((process / "cwd").readlink())
            except OSError:
                continue
            if str(self.directory) in f"{place} {command}":
                found[int(process.name)] = command
        return found

    def kill(self, part: str) -> None:
        """Kill the one process of a demo whose command line has ``part``."""
        (process,) = (process for process, line in self.processes().items() if part in line)
        os.kill(process, signal.SIGKILL)

    def is_clean(self) -> bool:
        """Return whether neither a process nor a file is left."""
        return not self.processes() and not self.files()

    def becomes_clean(self) -> bool:
        """Return whether it is clean within a minute."""
        deadline = time.monotonic() + SECONDS
        while not self.is_clean() and time.monotonic() < deadline:
            time.sleep(0.05)
        return self.is_clean()

    def remove(self) -> None:
        """Remove the directory."""
        shutil.rmtree(self.directory, ignore_errors=True)


class RunningDemo:
    """One demo in a session of its own, whose output is read as it comes."""

    def __init__(self, options: list[str], environment: dict[str, str], place: Path | None) -> None:
        self.output = ""
        self._process = subprocess.Popen(
            [sys.executable, "-m", "penstock", "demo", *options],
            cwd=place,
            env=environment,
            start_new_session=True,
            stderr=subprocess.STDOUT,
            stdout=subprocess.PIPE,
            text=True,
        )

    def until(self, text: str) -> None:
        """Read until a line contains ``text``."""
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self.output += line
            if text in line:
                return
        raise AssertionError(f"{text!r} never came:\n{self.output}")

    def url(self) -> str:
        """Return where it serves, which it has said."""
        found = re.search(r"http://127\.0\.0\.1:\d+", self.output)
        assert found is not None, self.output
        return found[0]

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the whole group, as a terminal does."""
        os.killpg(self._process.pid, number)

    def stop_reading(self) -> int:
        """Close the reading end of its output, wait for the end and return the exit status."""
        assert self._process.stdout is not None
        self._process.stdout.close()
        return self._process.wait(SECONDS)

    def exit_status(self) -> int:
        """Wait for the end and return the exit status."""
        self.output += self._process.communicate(timeout=SECONDS)[0]
        return self._process.returncode

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._process.poll() is None:
            self._process.terminate()
            self._process.communicate(timeout=SECONDS)

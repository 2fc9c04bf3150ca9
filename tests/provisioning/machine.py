"""A Debian 13 to install into: an overlay over one root, in namespaces that end with the test."""

import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

ROOT = Path(__file__).parents[2]
CACHE = ROOT / ".cache/debian"
HERE = Path(__file__).parent
MOST_SECONDS = 400


@dataclass(frozen=True)
class Outcome:
    """What a command did.

    Args:
        status: Its exit status.
        output: What it wrote, errors included.
    """

    status: int
    output: str


class Machine:
    """A Debian whose processes, mounts and, without ``online``, network are its own.

    Args:
        directory: For what is written, of its own.
        layers: Directories of earlier machines to begin with, the last one on top.
        packages: A directory with the wheel of the project.
        online: Whether it shares the network of the host.
    """

    def __init__(
        self, directory: Path, packages: Path, *, layers: Sequence[Path] = (), online: bool = False
    ) -> None:
        self.directory = directory
        directory.mkdir()
        archives = CACHE / "archives"
        archives.mkdir(exist_ok=True)
        earlier = "".join(f"{layer / 'files'}:" for layer in reversed(layers))
        own = ["--mount", "--pid", "--fork", "--kill-child", *([] if online else ["--net"])]
        command: list[str | Path] = ["unshare", *own, HERE / "first_process.sh", CACHE / "system"]
        self._first = subprocess.Popen(
            [*command, earlier, directory, packages, CACHE / "wheels", archives],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert self._first.stdout
        assert self._first.stdout.readline() == b"ready\n"
        children = Path(f"/proc/{self._first.pid}/task/{self._first.pid}/children")
        self._pid = children.read_text().split()[0]

    def run(
        self,
        *command: str,
        entering: str = "",
        environment: Mapping[str, str] | None = None,
    ) -> Outcome:
        """Run a command to its end, as root, without a terminal.

        Args:
            command: Program and arguments.
            entering: What it can read from standard input.
            environment: Variables besides those of a fresh login.
        """
        variables = {
            "HOME": "/root",
            "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            "PIP_FIND_LINKS": "/wheels",
            "PIP_NO_INDEX": "1",
            **(environment or {}),
        }
        inside = ["nsenter", f"--target={self._pid}", "--mount", "--pid", "--net"]
        done = subprocess.run(
            [*inside, "chroot", self.directory / "root", *command],
            check=False,
            env=variables,
            input=entering,
            stderr=subprocess.STDOUT,
            stdout=subprocess.PIPE,
            text=True,
            timeout=MOST_SECONDS,
        )
        return Outcome(done.returncode, done.stdout)

    def install(self, *arguments: str, **options: Mapping[str, str]) -> Outcome:
        """Run the script."""
        return self.run("/source/install.sh", *arguments, **options)  # type: ignore[arg-type]

    def state(self) -> list[str]:
        """Return what is on it: files, among them those of accounts, packages and clusters."""
        return self.run("bash", "-c", (HERE / "state.sh").read_text()).output.splitlines()

    def written(self) -> dict[Path, int]:
        """Return each file that was written on it, with the time in nanoseconds."""
        return {path: path.lstat().st_mtime_ns for path in (self.directory / "files").rglob("*")}

    def write(self, path: str, text: str, *, mode: int = 0o644) -> None:
        """Write a file of it."""
        done = self.run("install", "-D", "-m", f"{mode:o}", "/dev/stdin", path, entering=text)
        assert not done.status, done.output

    def stop(self) -> None:
        """End it with all its processes; what it has written stays."""
        assert self._first.stdin
        assert self._first.stdout
        self._first.stdin.close()
        self._first.wait(20)
        self._first.stdout.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

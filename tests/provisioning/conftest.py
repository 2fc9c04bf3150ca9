"""Machines to install into: one that has everything, and one that has the packages alone."""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from tests.provisioning.machine import CACHE, ROOT, Machine
from tests.servers.parts import require_part
from tests.servers.process import roomy_memory

StartMachine = Callable[..., AbstractContextManager[Machine]]


@dataclass(frozen=True)
class Layers:
    """What machines have written, for others to begin with.

    Args:
        directories: Where it is, the last on top.
        before: What the first machine had on it before.
        state: What the last one has on it.
        output: What the script said there.
    """

    directories: list[Path]
    before: list[str]
    state: list[str]
    output: str


@pytest.fixture(scope="session")
def source() -> Iterator[Path]:
    """A directory with the script and the project's wheel."""
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        directory.chmod(0o755)
        shutil.copy(ROOT / "install.sh", directory)
        build = ["uv", "build", "--quiet", "--wheel", "--out-dir", name]
        subprocess.run([Path(sys.executable).parent / build[0], *build[1:]], cwd=ROOT, check=True)
        next(directory.glob("*.whl")).rename(directory / "penstock-0-py3-none-any.whl")
        yield directory


@pytest.fixture(scope="session")
def start(source: Path) -> Iterator[StartMachine]:
    """Start a machine, of layers and with the network on request; it ends with its block."""
    if os.geteuid():
        pytest.skip("it installs a system: run it as root")
    require_part(
        "Debian 13", present=CACHE.exists(), remedy="tests/provisioning/fetch_debian.sh, as root"
    )
    with tempfile.TemporaryDirectory(dir=roomy_memory(), prefix="penstock-machines-") as name:
        numbers = iter(range(1000))

        @contextmanager
        def machine(*layers: Path, online: bool = False) -> Iterator[Machine]:
            directory = Path(name) / str(next(numbers))
            with Machine(directory, source, layers=layers, online=online) as started:
                yield started

        yield machine


@pytest.fixture(scope="session")
def installed(start: StartMachine) -> Layers:
    """A Debian on which the script has installed everything, PostgreSQL from Debian's mirror."""
    with start(online=True) as machine:
        before = machine.state()
        done = machine.install("--package", "/source/penstock-0-py3-none-any.whl[demo]")
        assert not done.status, done.output
        machine.run("pg_ctlcluster", "17", "main", "stop")
        return Layers([machine.directory], before, machine.state(), done.output)


@pytest.fixture(scope="session")
def running(start: StartMachine, installed: Layers) -> Iterator[Machine]:
    """The same Debian, after a restart and without a network; a test leaves it installed."""
    with start(*installed.directories) as machine:
        machine.run("pg_ctlcluster", "17", "main", "start")
        yield machine


@pytest.fixture
def own(start: StartMachine, installed: Layers) -> Iterator[Machine]:
    """The same, for one test alone."""
    with start(*installed.directories) as machine:
        machine.run("pg_ctlcluster", "17", "main", "start")
        yield machine


@pytest.fixture(scope="session")
def packages_alone(start: StartMachine, installed: Layers) -> Layers:
    """A Debian with PostgreSQL's packages, which were there before the script."""
    with start(*installed.directories) as machine:
        machine.run("sed", "-i", "/^packages/d", "/var/lib/penstock/machine")
        removed = machine.install("--uninstall", "--purge", "--yes")
        assert not removed.status, removed.output
        directories = [*installed.directories, machine.directory]
        return Layers(directories, installed.before, machine.state(), removed.output)

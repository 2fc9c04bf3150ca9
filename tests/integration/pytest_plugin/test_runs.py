"""The plugin in runs of a project's own tests, by pytest in a process of its own."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.servers.postgres import PostgresServer

ROOT = Path(__file__).parents[3]
PROJECT = Path(__file__).parent / "project"
SECONDS = 100
LOOP = "asyncio_default_fixture_loop_scope = function"
SERVICE = "tests.integration.pytest_plugin.project.service"
BY_METADATA = f"{LOOP}\npenstock_app = {SERVICE}:app\npenstock_metadata = {SERVICE}:Base.metadata"
BY_ALEMBIC = f"{LOOP}\npenstock_app = {SERVICE}:app\npenstock_alembic = {PROJECT}/alembic.ini"
FEW_PLUGINS = {
    "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
    "PYTEST_PLUGINS": "pytest_penstock,pytest_asyncio.plugin,anyio.pytest_plugin,xdist.plugin",
}
"""Those beside which it runs; others take seconds to import in each process."""
OWN = ("TEST_DATABASE_URL", "DATABASE_", "PYTEST_", "PENSTOCK_", "ENVIRONMENT", "COV_")


class Run:
    """A run of the project's tests, in the directory of its configuration.

    Args:
        directory: Empty.
        *arguments: Of pytest.
        ini: Lines of its configuration.
        variables: Of its environment.
    """

    def __init__(
        self,
        directory: Path,
        *arguments: str,
        ini: str = BY_METADATA,
        variables: dict[str, str] | None = None,
    ) -> None:
        self.directory = directory
        lines = [
            "[pytest]",
            f"pythonpath = {ROOT}",
            "addopts = --import-mode=importlib -p no:cacheprovider --strict-markers",
            "filterwarnings =",
            "    error",
            "    ignore:Using .httpx. with",
            ini,
        ]
        (directory / "pytest.ini").write_text("\n".join(lines))
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(OWN)}
        self.process = subprocess.Popen(
            [
                sys.executable,
                *("-m", "pytest", "-rA", "-c", directory / "pytest.ini"),
                *(f"--rootdir={PROJECT}", f"--confcutdir={PROJECT}", *arguments),
            ],
            cwd=PROJECT,
            env={
                **inherited,
                "MEETING_PLACE": str(directory),
                "MIGRATED": str(directory / "migrated"),
                **(FEW_PLUGINS if variables is None else variables),
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def output(self) -> str:
        """Wait for its end, and return what it wrote."""
        return self.process.communicate(timeout=SECONDS)[0]

    def counts(self) -> tuple[dict[str, int], str]:
        """Return how many tests passed, failed and so on, and what it wrote."""
        output = self.output()
        summary = output.splitlines()[-1]
        found = {kind: int(count) for count, kind in re.findall(r"(\d+) ([a-z]+)", summary)}
        return {kind: count for kind, count in found.items() if kind != "warnings"}, output

    @property
    def server(self) -> Path:
        """Where its own server is, for as long as it runs."""
        name = (self.directory / "run").read_text().partition(":")[2]
        return Path("/tmp", f"penstock-test-{name}", "server")

    def until(self, pattern: str, count: int) -> list[str]:
        """Wait until its tests have made so many files of a pattern, and return their names."""
        until = time.monotonic() + SECONDS
        while len(found := [path.name for path in self.directory.glob(pattern)]) < count:
            assert self.process.poll() is None, self.output()
            assert time.monotonic() < until
            time.sleep(0.02)
        return found


@pytest.fixture
def server_url(postgres: PostgresServer) -> Iterator[str]:
    """The URL of a server on which a run has to leave nothing."""
    yield postgres.url()
    made = "SELECT datname FROM pg_database WHERE datname LIKE 'postgres\\_%'"
    assert postgres.execute(made) == []


def test_alone_on_an_own_server_migrated_by_alembic(tmp_path: Path) -> None:
    files = ("test_asyncio.py", "test_anyio.py", "test_plain.py")
    variables = {**FEW_PLUGINS, "TEST_DATABASE_URL": "", "DATABASE_REPLICAS": "db-2"}
    run = Run(tmp_path, *files, ini=BY_ALEMBIC, variables=variables)

    counts, output = run.counts()

    assert counts == {"passed": 17}, output
    assert (tmp_path / "migrated").read_text() == "once\n"
    assert not run.server.parent.exists()


def test_two_workers_on_an_own_server(tmp_path: Path) -> None:
    run = Run(
        tmp_path,
        "test_beside.py",
        "-k",
        "not ever",
        "-n2",
        ini=f"{BY_METADATA}\nasyncio_mode = auto",
    )

    counts, output = run.counts()

    assert counts == {"passed": 2}, output
    assert not run.server.parent.exists()


def test_migrations_that_fail_are_reported_once(tmp_path: Path, server_url: str) -> None:
    variables = {**FEW_PLUGINS, "TEST_DATABASE_URL": server_url, "BREAKS": "yes"}
    run = Run(tmp_path, "test_asyncio.py", "-n2", ini=BY_ALEMBIC, variables=variables)

    counts, output = run.counts()

    assert counts == {"errors": 8}, output
    reported, _, _ = output.partition("short test summary info")  # which has it once more in CI
    assert reported.count("alembic.ini failed") == 1
    assert "there_is_no_such_function() does not exist" in output
    assert not (tmp_path / "migrated").exists()


def test_two_workers_on_the_server_of_a_url_and_ctrl_c(tmp_path: Path, server_url: str) -> None:
    variables = {**FEW_PLUGINS, "TEST_DATABASE_URL": server_url}
    run = Run(tmp_path, "test_beside.py", "-v", "-n2", variables=variables)
    run.until("postgres_*", 1)

    os.killpg(run.process.pid, signal.SIGINT)

    output = run.output()
    assert "KeyboardInterrupt" in output
    assert "2 passed" in output.splitlines()[-1]
    assert run.process.returncode == 2


def test_an_own_server_ends_with_a_run_that_is_killed(tmp_path: Path) -> None:
    run = Run(tmp_path, "test_beside.py", "-k", "ever")
    run.until("test_*", 1)
    server = run.server
    assert server.exists()

    run.process.kill()
    run.output()

    until = time.monotonic() + SECONDS
    while (server / "data").exists():
        assert time.monotonic() < until
        time.sleep(0.02)
    shutil.rmtree(server.parent)


def test_a_run_that_does_not_use_it_pays_nothing(tmp_path: Path) -> None:
    others = ("asyncio", "anyio", "logfire", "pytest_logfire", "hypothesispytest", "pytest_cov")
    without = [argument for name in others for argument in ("-p", f"no:{name}")]
    run = Run(tmp_path, "test_unused.py", *without, ini="", variables={})

    counts, output = run.counts()

    assert counts == {"passed": 1}, output

"""What ``penstock new`` writes: every choice is checked, and the tests of two are run."""

import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.servers.parts import require_part
from tests.servers.postgres import PostgresServer
from typer.testing import CliRunner

from penstock.cli.commands import app

COMBINATIONS = [(auth, cache) for auth in ("none", "jwt") for cache in ("none", "redis")]
BY_AUTH = {"app/security.py", "app/users.py", "migrations/versions/0002_users.py"}
ONLY = {
    "jwt": BY_AUTH | {"tests/test_users.py"},
    "redis": {"app/cache.py", "tests/test_cache.py"},
}
OWN = ("TEST_", "DATABASE_", "PYTEST_", "PENSTOCK_", "ENVIRONMENT", "COV_", "REDIS_", "SECRET_")
ENVIRONMENT = {
    **{name: value for name, value in os.environ.items() if not name.startswith(OWN)},
    "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
    "PYTEST_PLUGINS": "pytest_penstock,pytest_asyncio.plugin",
    "PYTHONDONTWRITEBYTECODE": "1",
}


def new(*arguments: str) -> Any:
    return CliRunner().invoke(app, ["new", *arguments])


def run(project: Path, *command: str, **variables: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", *command],
        cwd=project,
        env={**ENVIRONMENT, **variables},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


def files_of(project: Path) -> set[str]:
    return {str(each.relative_to(project)) for each in project.rglob("*") if each.is_file()}


@pytest.fixture(scope="module")
def projects(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The directory of all four projects; their names have the longest line's effect."""
    directory = tmp_path_factory.mktemp("projects")
    for auth, cache in COMBINATIONS:
        arguments = (str(directory / f"{auth}-{cache}"), "--auth", auth, "--cache", cache)
        result = new(*arguments, "--name", "a" * 40)
        assert result.exit_code == 0, result.output
    yield directory
    shutil.rmtree(directory)


@pytest.fixture(params=COMBINATIONS, ids="-".join)
def project(request: pytest.FixtureRequest, projects: Path) -> Path:
    return projects / "-".join(request.param)


def test_nothing_is_asked_and_the_least_is_written(tmp_path: Path) -> None:
    result = new(str(tmp_path / "My Notes"))

    assert result.exit_code == 0, result.output
    written = files_of(tmp_path / "My Notes")
    assert not written & (ONLY["jwt"] | ONLY["redis"])
    assert {"Makefile", ".gitignore", ".env.example", ".copier-answers.yml"} <= written
    assert not [each for each in written if each.endswith((".jinja", "copier.yml"))]
    pyproject = tomllib.loads((tmp_path / "My Notes/pyproject.toml").read_text())
    assert pyproject["project"]["name"] == "my-notes"


@pytest.mark.parametrize("chosen", COMBINATIONS, ids="-".join)
def test_each_choice_brings_its_own_files(chosen: tuple[str, str], projects: Path) -> None:
    written = files_of(projects / "-".join(chosen))
    services = {"postgres", "service"} | ({"redis"} if "redis" in chosen else set())

    for choice, files in ONLY.items():
        assert written & files == (files if choice in chosen else set())
    compose = yaml.safe_load((projects / "-".join(chosen) / "compose.yaml").read_text())
    assert set(compose["services"]) == services
    workflow = yaml.safe_load(
        (projects / "-".join(chosen) / ".github/workflows/ci.yml").read_text()
    )
    assert set(workflow["jobs"]["test"].get("services", {})) == services - {"postgres", "service"}


def test_it_is_linted_and_formatted(project: Path) -> None:
    run(project, "ruff", "check", "--no-cache", ".")
    run(project, "ruff", "format", "--no-cache", "--check", ".")


def test_its_types_are_right(project: Path, projects: Path) -> None:
    # What they all import is looked at once.
    run(project, "mypy", "--cache-dir", str(projects / "types"))


PYTEST = ("pytest", "-p", "no:cacheprovider", "-W", "error")


def test_the_tests_of_the_least_pass_on_a_server_of_their_own(projects: Path) -> None:
    output = run(projects / "none-none", *PYTEST)

    assert re.search(r"= 8 passed in ", output), output


def test_the_tests_of_all_pass(projects: Path, postgres: PostgresServer) -> None:
    program = shutil.which("redis-server")
    require_part("Redis", present=program, remedy="apt-get install redis-server")

    output = run(projects / "jwt-redis", *PYTEST, TEST_DATABASE_URL=postgres.url())

    assert re.search(r"= 44 passed in ", output), output


@pytest.mark.parametrize("name", ["null", "true", "no", "on", "e1"])
def test_a_name_is_a_name_in_every_file(tmp_path: Path, name: str) -> None:
    assert new(str(tmp_path), "--name", name).exit_code == 0

    compose = yaml.safe_load((tmp_path / "compose.yaml").read_text())
    told = compose["services"]["service"]["environment"]["DATABASE_APPLICATION_NAME"]
    answers = yaml.safe_load((tmp_path / ".copier-answers.yml").read_text())
    assert [compose["name"], told, answers["name"]] == [name] * 3


@pytest.mark.parametrize("directory", ["my notes", "$(touch ran)", "it's", "-x", "."])
def test_the_next_command_is_one_for_a_shell(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, directory: str
) -> None:
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    result = new("--name", "service", "--", directory)

    command = result.output.splitlines()[-1].replace("make test", "pwd")
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=True)

    assert Path(done.stdout.strip()) == (tmp_path / "work" / directory).resolve()
    assert not (tmp_path / "work/ran").exists()


INTERRUPTED = """
import os, resource, signal, sys
from penstock import starter
from pathlib import Path

how, directory = sys.argv[1:]

def stop(event, given):
    if event == "open" and str(given[0]) == f"{directory}/app/notes.py":
        if how == "Ctrl-C":
            os.kill(os.getpid(), signal.SIGINT)
        else:
            resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))

sys.addaudithook(stop)
starter.create(Path(directory), starter.Choices("service"))
"""


@pytest.mark.parametrize(("how", "is_repository"), [("disk", True), ("Ctrl-C", False)])
def test_a_project_that_cannot_be_finished_is_not_begun(
    tmp_path: Path, how: str, is_repository: bool
) -> None:
    directory = tmp_path / "service"
    if is_repository:
        (directory / ".git").mkdir(parents=True)
        (directory / ".git/HEAD").touch()
    before = sorted(tmp_path.rglob("*"))

    command = [sys.executable, "-c", INTERRUPTED, how, str(directory)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)

    assert done.returncode != 0
    assert ("KeyboardInterrupt" if how == "Ctrl-C" else "File too large") in done.stderr
    assert sorted(tmp_path.rglob("*")) == before


SETTINGS = ["LONGEST_PAGE=0", "TOKEN_LIFETIME=0", "TOKEN_LIFETIME=-60", "CACHE_LIFETIME=0"]


@pytest.mark.parametrize("variable", SETTINGS)
def test_a_setting_that_cannot_be_is_refused_by_name(projects: Path, variable: str) -> None:
    name, value = variable.split("=")
    done = subprocess.run(
        [sys.executable, "-c", "import app.settings"],
        cwd=projects / "jwt-redis",
        env={**ENVIRONMENT, "SECRET_KEY": "x" * 32, "REDIS_URL": "redis://x", name: value},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert done.returncode == 1
    assert name.lower() in done.stderr


def test_the_secret_key_is_written_for_nobody_else(tmp_path: Path) -> None:
    assert new(str(tmp_path), "--name", "service", "--auth", "jwt").exit_code == 0

    subprocess.run(["make", ".env"], cwd=tmp_path, check=True, capture_output=True)

    assert re.search(r"^SECRET_KEY=[0-9a-f]{64}$", (tmp_path / ".env").read_text(), re.MULTILINE)
    assert (tmp_path / ".env").stat().st_mode & 0o777 == 0o600
    (tmp_path / ".env").unlink()
    failed = ["make", ".env", "PYTHON=false"]
    assert subprocess.run(failed, cwd=tmp_path, check=False, capture_output=True).returncode
    assert not (tmp_path / ".env").exists()


@pytest.mark.parametrize("there", ["app", ".env", "directory is a file"])
def test_nothing_is_written_where_something_is(tmp_path: Path, there: str) -> None:
    directory = tmp_path / "service"
    if there == "directory is a file":
        directory.touch()
    else:
        directory.mkdir()
        (directory / there).touch()
    before = files_of(tmp_path)

    result = new(str(directory))

    assert result.exit_code != 0
    assert files_of(tmp_path) == before


def test_an_empty_repository_is_no_obstacle(tmp_path: Path) -> None:
    (tmp_path / "service/.git").mkdir(parents=True)

    assert new(str(tmp_path / "service")).exit_code == 0


@pytest.mark.parametrize(
    "given",
    [
        ["--name", "My service"],
        ["--name", ""],
        ["--name", "a" * 41],
        *(["--name", each] for each in ("penstock", "redis", "pydantic--settings", "ruff")),
        ["--auth", "basic"],
        ["--cache", "memory"],
        ["--base", "penstock==1"],
        ["--update"],
        ["--update", "--auth", "jwt"],
    ],
)
def test_what_cannot_be_is_refused(tmp_path: Path, given: list[str]) -> None:
    result = new(str(tmp_path / "service"), *given)

    assert result.exit_code != 0
    assert not (tmp_path / "service").exists()

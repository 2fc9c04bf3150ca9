"""``penstock provision`` as it is typed."""

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from penstock.cli.main import main
from penstock.provision import PARTS

pytestmark = pytest.mark.slow
Run = Callable[..., tuple[object, str]]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Calls ``penstock provision``; gives its status and all that it says."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("ENVIRONMENT", raising=False)
    monkeypatch.setenv("DATABASE_URL", "postgresql://app:hunter2@db/app")

    def call(*arguments: str) -> tuple[object, str]:
        monkeypatch.setattr(sys, "argv", ["penstock", "provision", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        captured = capsys.readouterr()
        return ended.value.code, captured.out + captured.err

    return call


def test_the_command_writes_the_files_of_pgbouncer_and_keeps_the_secret(
    run: Run, tmp_path: Path
) -> None:
    status, said = run("pgbouncer", "deploy")
    userlist = (tmp_path / "deploy/userlist.txt").read_text()

    assert status == 0
    assert len(said.split()) == 4
    assert "hunter2" not in said
    assert run("pgbouncer", "deploy") == (0, "")
    status, said = run("pgbouncer", "deploy", "--pool-size", "7")
    assert status == 1
    assert "+default_pool_size = 7" in said
    assert run("pgbouncer", "deploy", "--pool-size", "7", "--force")[0] == 0
    assert (tmp_path / "deploy/userlist.txt").read_text() == userlist


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("--pool-mode", "statement"), "--pool-mode statement"),
        (("--version", "1.17"), "--version 1.17"),
        (("--version", "new"), "--version new"),
        (("--server", "a@b"), "server"),
    ],
)
def test_wrong_options_are_named(run: Run, arguments: tuple[str, ...], told: str) -> None:
    status, said = run("pgbouncer", *arguments)

    assert status == 1
    assert f"penstock: {told}" in said


def test_the_command_writes_every_part_or_some(run: Run, tmp_path: Path) -> None:
    status, said = run("deploy", "--memory", "16GB", "--cores", "4", "--disk", "ssd")

    assert (status, said.count("\n")) == (0, 29)
    assert {path.name for path in (tmp_path / "deploy").iterdir()} == set(PARTS)
    assert "shared_buffers = 4GB" in (tmp_path / "deploy/postgresql/tuning.conf").read_text()
    assert run("--only", "postgresql", "--only", "systemd", "some")[0] == 0
    assert {path.name for path in (tmp_path / "some").iterdir()} == {"postgresql", "systemd"}


def test_what_was_generated_is_the_same_again(run: Run, tmp_path: Path) -> None:
    options = ("deploy", "--memory", "16GB", "--cores", "4", "--disk", "ssd")

    assert run(*options)[0] == 0
    assert run(*options)[1].count("\n") == 1
    status, said = run(*options[:-1], "hdd")
    assert status == 1
    assert "\n+random_page_cost = 4\n" in said
    assert "Nothing was written" in said


@pytest.mark.parametrize(
    ("arguments", "variables", "told"),
    [
        (("--only", "helm"), {}, "only='helm'"),
        (("--memory", "much"), {}, "memory='much'"),
        (("--disk", "tape"), {}, "disk='tape'"),
        (("--max-connections", "5"), {}, "max_connections=5"),
        (("--application", "app.py"), {}, "application='app.py'"),
        (("--domain", "a;b"), {}, "domain='a;b'"),
        (("--image", "A B"), {}, "image='A B'"),
        ((), {"DATABASE_APPLICATION_NAME": "My Shop"}, "application_name='My Shop'"),
        ((), {"DATABASE_URL": "postgresql://o'brien:hunter2@db/app"}, "url: its user"),
        ((), {"DATABASE_URL": "postgresql://app:hunter2@db/a-b"}, "url: its database"),
        ((), {"DATABASE_URL": "sqlite:///app.db"}, "url"),
    ],
)
def test_what_cannot_stand_in_the_files_is_named(
    run: Run, tmp_path: Path, arguments: tuple[str, ...], variables: dict[str, str], told: str
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        for name, value in variables.items():
            patch.setenv(name, value)
        status, said = run("deploy", *arguments)

    assert status == 1
    assert f"penstock: {told}" in said
    assert "hunter2" not in said
    assert not (tmp_path / "deploy").exists()

"""A project that was made by one penstock is updated by a later one, by copier."""

import os
import shutil
import subprocess
import sys
import zipfile
from importlib.metadata import version
from pathlib import Path

import pytest

import penstock
from penstock import PenstockError
from penstock.starter import Choices, create, update

PACKAGE = Path(penstock.__file__).parent
TEMPLATE = "penstock/starter/template"


def install(target: Path, number: str, **changes: tuple[str, str]) -> Path:
    """Copy this penstock as another version of it, with words of its template replaced."""
    shutil.copytree(PACKAGE, target / "penstock")
    facts = target / f"penstock-{number}.dist-info"
    facts.mkdir()
    (facts / "METADATA").write_text(f"Metadata-Version: 2.1\nName: penstock\nVersion: {number}\n")
    tag = "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    (facts / "WHEEL").write_text(tag)
    (facts / "RECORD").touch()
    for name, (before, after) in changes.items():
        path = next((target / TEMPLATE).rglob(f"{name}.*"))
        text = path.read_text()
        assert before in text
        path.write_text(text.replace(before, after))
    return target


def pack(installed: Path, directory: Path) -> None:
    """Make the wheel of what was installed."""
    facts = next(installed.glob("*.dist-info"))
    with zipfile.ZipFile(directory / f"{facts.stem}-py3-none-any.whl", "w") as wheel:
        for part in (facts, installed / TEMPLATE):
            for each in filter(Path.is_file, part.rglob("*")):
                wheel.write(each, each.relative_to(installed))


class Project:
    """A project in a repository, and the wheels that pip finds.

    Args:
        directory: Empty.
    """

    def __init__(self, directory: Path) -> None:
        self.wheels = directory
        self.path = directory / "service"

    def new(self, installed: Path, *options: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "penstock", "new", str(self.path), *options],
            env={
                **os.environ,
                "PYTHONPATH": str(installed),
                "PYTHONSAFEPATH": "1",
                "PIP_NO_INDEX": "1",
                "PIP_FIND_LINKS": str(self.wheels),
                "PIP_DISABLE_PIP_VERSION_CHECK": "1",
            },
            capture_output=True,
            text=True,
            timeout=100,
            check=False,
        )

    def replace(self, name: str, before: str, after: str) -> None:
        path = self.path / name
        text = path.read_text()
        assert before in text
        path.write_text(text.replace(before, after))

    def git(self, *arguments: str) -> str:
        author = ("-c", "user.name=test", "-c", "user.email=test@example.com")
        command = ["git", *author, *arguments]
        return subprocess.run(
            command, cwd=self.path, check=True, capture_output=True, text=True
        ).stdout

    def commit(self) -> None:
        self.git("add", "--all")
        self.git("commit", "--quiet", "--message", "work")


@pytest.fixture(scope="module")
def old(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return install(tmp_path_factory.mktemp("old"), "0.9.0")


@pytest.fixture(scope="module")
def later(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return install(
        tmp_path_factory.mktemp("later"),
        "0.10.0",
        notes=('tags=["notes"]', 'tags=["what is new"]'),
        README=("## In production", "## What is new"),
    )


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """A project of this penstock in a repository, without changes."""
    project = Project(tmp_path)
    create(project.path, Choices("service", cache="redis"))
    project.git("init", "--quiet")
    project.commit()
    return project


def test_both_changes_survive_and_a_conflict_is_marked(
    tmp_path: Path, old: Path, later: Path
) -> None:
    project = Project(tmp_path)
    assert project.new(old, "--cache", "redis").returncode == 0
    pack(old, tmp_path)
    project.git("init", "--quiet")
    project.replace("app/notes.py", "The routes below /notes.", "My routes.")
    project.replace("README.md", "## In production", "## My production")
    (project.path / "app/mine.py").write_text("mine = 1\n")
    (project.path / "compose.yaml").unlink()
    project.commit()

    updated = project.new(later, "--update")

    assert updated.returncode == 1
    assert updated.stderr.splitlines()[1:] == ["  README.md"]
    notes = (project.path / "app/notes.py").read_text()
    assert "My routes." in notes
    assert "what is new" in notes
    assert (project.path / "app/mine.py").read_text() == "mine = 1\n"
    assert not (project.path / "compose.yaml").exists()
    readme = (project.path / "README.md").read_text()
    marks = [readme.index(text) for text in ("<<<<<<<", "## My", "=====", "## What", ">>>>>>>")]
    assert marks == sorted(marks)
    changed = project.git("status", "--porcelain").split()
    assert changed[1::2] == [".copier-answers.yml", "README.md", "app/notes.py", "pyproject.toml"]
    assert ">=0.10.0" in (project.path / "pyproject.toml").read_text()
    assert (project.path / "app/cache.py").exists()


def test_what_is_not_committed_is_not_touched(
    project: Project, old: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pack(old, project.wheels)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(project.wheels))
    project.replace("README.md", "## In production", "## My production")

    with pytest.raises(PenstockError, match="commit"):
        update(project.path, "penstock==0.9.0")

    assert project.git("status", "--porcelain") == " M README.md\n"


def test_nothing_is_done_where_nothing_is_new(tmp_path: Path, old: Path) -> None:
    project = Project(tmp_path)
    assert project.new(old).returncode == 0

    updated = project.new(old, "--update")

    assert updated.returncode == 0
    assert updated.stdout.startswith("Nothing is new")


VERSION = version("penstock")


@pytest.mark.parametrize(
    ("before", "after", "refusal"),
    [
        (VERSION, "99.0", "99.0"),
        # What is in a directory may have changed since.
        (VERSION, "0.0.1", "--base"),
        ("auth: ", "authentication: ", "auth"),
        ("auth: ", "- auth ", "cannot be read"),
    ],
)
def test_what_cannot_be_updated_is_refused(
    project: Project, before: str, after: str, refusal: str
) -> None:
    answers = project.path / ".copier-answers.yml"
    lines = answers.read_text().splitlines()
    directory = project.wheels / "my penstock"
    directory.mkdir()
    source = f'penstock: " @ {directory.as_uri()}"'
    lines = [source if line.startswith("penstock:") else line for line in lines]
    answers.write_text("\n".join(lines))
    project.replace(answers.name, before, after)
    project.commit()

    with pytest.raises(PenstockError, match=refusal):
        update(project.path)

    assert project.git("status", "--porcelain") == ""


def test_a_directory_of_the_same_version_may_have_changed(project: Project) -> None:
    with pytest.raises(PenstockError, match="--base"):
        update(project.path)


def test_what_penstock_has_not_made_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PenstockError, match="penstock new"):
        update(tmp_path)

"""A project that was made from the template in this package."""

import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import distribution, version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from urllib.parse import unquote

import yaml
from copier import run_copy, run_update
from copier.errors import CopierError
from packaging.utils import canonicalize_name
from packaging.version import Version

from penstock.base_error import PenstockError

ANSWERS = ".copier-answers.yml"
_TEMPLATE = Path(__file__).with_name("template")
_NAME = re.compile(r"[a-z]([a-z0-9-]{0,38}[a-z0-9])?")
_REQUIRED = re.compile(r'^    "([a-z-]+)', re.MULTILINE)
"""What pyproject.toml wants installed, in any choice."""
_OLD, _NEW = "1", "2"
"""The tags of the two versions of the template that an update compares."""


@dataclass(frozen=True, slots=True)
class Choices:
    """What a project is to have.

    Args:
        name: Of the service.
        auth: Who may write: ``none`` asks nobody, ``jwt`` wants a token.
        cache: Where responses are kept: ``none`` or ``redis``.

    Raises:
        PenstockError: The name cannot stand in the project's files, or is a package's that they
            require.
    """

    name: str
    auth: str = "none"
    cache: str = "none"

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise PenstockError(
                f"--name {self.name}: 1 to 40 of a-z, 0-9 and - are accepted, the first a letter"
            )
        requirements = (_TEMPLATE / "project/pyproject.toml.jinja").read_text(encoding="utf-8")
        if canonicalize_name(self.name) in _REQUIRED.findall(requirements):
            raise PenstockError(
                f"--name {self.name}: a package of that name is installed with the service, and "
                "pip has no place for two"
            )


def name_of(directory: Path) -> str:
    """Return the name that a service has by its directory.

    Args:
        directory: Of the project.
    """
    return re.sub(r"[^a-z0-9]+", "-", directory.absolute().name.lower()).strip("-")


def create(directory: Path, choices: Choices) -> None:
    """Write a new project.

    Args:
        directory: Where; it is made where it is missing.
        choices: What it has.

    Raises:
        PenstockError: Something is there already, or cannot be written. Nothing is left then.
    """
    try:
        if directory.exists() and any(each.name != ".git" for each in directory.iterdir()):
            raise PenstockError(
                f"{directory} is not empty; nothing was written. A project begins in a new "
                "directory, or in one with nothing but .git."
            )
        data = {
            "name": choices.name,
            "auth": choices.auth,
            "cache": choices.cache,
            **_installed(),
        }
        with _all_or_nothing(directory):
            run_copy(
                str(_TEMPLATE), directory, data, defaults=True, quiet=True, cleanup_on_error=False
            )
    except (CopierError, OSError) as error:
        raise PenstockError(f"{directory}: {error}") from error


@contextmanager
def _all_or_nothing(directory: Path) -> Iterator[None]:
    """Leave the directory as it was where the block does not end, as by Ctrl-C."""
    was_there = directory.exists()
    try:
        yield
    except BaseException:
        if was_there:
            _empty(directory)
        else:
            shutil.rmtree(directory, ignore_errors=True)
        raise


def _empty(directory: Path) -> None:
    for each in directory.iterdir():
        if each.name != ".git":
            shutil.rmtree(each) if each.is_dir() else each.unlink()


def update(directory: Path, base: str | None = None) -> list[str] | None:
    """Merge what has changed in the template since the project was made or last updated.

    Args:
        directory: Of the project, the root of a git repository or below it.
        base: A requirement of pip for the penstock of that time; None for the recorded one.

    Returns:
        The files with conflicts, which are marked as git does; None where nothing is new.

    Raises:
        PenstockError: It is no such project, has changes that are not committed, or the earlier
            version cannot be had.
    """
    answers = _answers(directory)
    installed = _installed()
    is_same = all(answers[key] == value for key, value in installed.items())
    if base is None and is_same and _directory_of(answers) is None:
        return None
    if Version(answers["version"]) > Version(installed["version"]):
        raise PenstockError(
            f"{directory} was made by penstock {answers['version']}, and this is "
            f"{installed['version']}: install the later one"
        )
    with TemporaryDirectory(prefix="penstock-new-") as name:
        work = Path(name).resolve()
        before = _install(base or _base(answers), work / "before")
        _commit_both(before, _TEMPLATE, work / "template")
        known = {**answers, "_src_path": str(work / "template"), "_commit": _OLD}
        (work / "answers.yml").write_text(yaml.safe_dump(known), encoding="utf-8")
        try:
            run_update(
                directory,
                installed,
                # The project's own says neither where the template was, nor as which commit.
                answers_file=os.path.relpath(work / "answers.yml", directory.resolve()),
                vcs_ref=_NEW,
                defaults=True,
                overwrite=True,
                quiet=True,
            )
        except CopierError as error:
            raise PenstockError(f"{directory}: {error}") from error
    return _git(directory, "diff", "--name-only", "--diff-filter=U", "--relative").splitlines()


def _answers(directory: Path) -> dict[str, Any]:
    try:
        found = yaml.safe_load((directory / ANSWERS).read_text(encoding="utf-8"))
        answers = {key: str(found[key]) for key in ("name", "auth", "cache", "penstock")}
        return {**answers, "version": str(found["_commit"])}
    except FileNotFoundError:
        raise PenstockError(
            f"{directory} has no {ANSWERS}: it was not made by penstock new"
        ) from None
    except (OSError, KeyError, TypeError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise PenstockError(f"{directory / ANSWERS} cannot be read: {error!r}") from error


def _installed() -> dict[str, str]:
    """Return this penstock's version, and what follows ``penstock[...]`` to have the same again."""
    told = distribution("penstock").read_text("direct_url.json")
    found: dict[str, Any] = {"url": ""} if told is None else json.loads(told)
    source = f" @ {found['url']}" if found["url"] else f">={version('penstock')}"
    if vcs := found.get("vcs_info"):
        source = f" @ {vcs['vcs']}+{found['url']}@{vcs['commit_id']}"
    return {"version": version("penstock"), "penstock": source}


def _base(answers: dict[str, Any]) -> str:
    source: str = answers["penstock"]
    if not source.startswith(" @ "):
        return f"penstock=={answers['version']}"
    if (directory := _directory_of(answers)) is not None:
        raise PenstockError(
            f"The project was made by the penstock in {directory}, which may have changed since. "
            "--base says where the earlier one is, such as 'penstock @ git+file:///...@COMMIT'"
        )
    return f"penstock{source}"


def _directory_of(answers: dict[str, Any]) -> Path | None:
    """Return the directory that penstock was installed from, where it was one."""
    source: str = answers["penstock"]
    path = Path(unquote(source.removeprefix(" @ file://")))
    return path if source.startswith(" @ file://") and path.is_dir() else None


def _install(requirement: str, target: Path) -> Path:
    """Install the penstock of a requirement apart, and return its template."""
    if importlib.util.find_spec("pip") is not None:
        install = [sys.executable, "-m", "pip", "install"]
    elif (uv := shutil.which("uv")) is not None:
        install = [uv, "pip", "install", "--python", sys.executable]
    else:
        raise PenstockError(
            "An update compares with the earlier penstock: install pip or uv, which get it"
        )
    _run([*install, "--quiet", "--no-deps", "--target", str(target), requirement])
    template = target / "penstock/starter/template"
    if not template.exists():
        raise PenstockError("The earlier penstock has no starter; --base says where another is")
    return template


def _commit_both(before: Path, after: Path, repository: Path) -> None:
    """Make a repository in which each version of the template has a tag."""
    repository.mkdir()
    _git(repository, "init", "--quiet")
    for template, tag in ((before, _OLD), (after, _NEW)):
        _empty(repository)
        shutil.copytree(template, repository, dirs_exist_ok=True)
        _git(repository, "add", "--all", "--force")
        _git(repository, "commit", "--quiet", "--allow-empty", "--no-verify", "--message", tag)
        _git(repository, "tag", tag)


def _git(directory: Path, *arguments: str) -> str:
    program = shutil.which("git")
    if program is None:
        raise PenstockError("an update is merged by git, which is not installed")
    settings = ("user.name=penstock", "user.email=", "commit.gpgsign=false", "tag.gpgsign=false")
    options = [option for setting in settings for option in ("-c", setting)]
    return _run([program, "-C", str(directory), *options, *arguments])


def _run(command: Sequence[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - ours
    if done.returncode:
        # Not the command, in which a URL may have a password.
        raise PenstockError(f"{Path(command[0]).name} failed:\n{done.stderr}".rstrip())
    return done.stdout

"""The reference has an entry for each public name, and the entries say what there is to know."""

import importlib
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import griffe
import pytest

import penstock
from penstock import errors, fastapi, migrations, testing

ROOT = Path(__file__).parents[2]
PAGES = sorted((ROOT / "docs/reference").glob("*.md"))
ENTRY = re.compile(r"^::: (\S+)(?:\n    options:\n      heading: (\S+))?", re.MULTILINE)
ENTRIES = {
    heading or path: path
    for page in PAGES
    for path, heading in ENTRY.findall(page.read_text(encoding="utf-8"))
}
PUBLIC = [
    *(f"penstock.{name}" for name in penstock.__all__),
    *(f"penstock.errors.{name}" for name in errors.__all__),
    *(f"penstock.fastapi.{name}" for name in fastapi.__all__),
    "penstock.cluster.Position",
    "penstock.cluster.ReadPolicy",
    "penstock.exporters.opentelemetry.instrument",
    "penstock.exporters.prometheus.PoolCollector",
    "penstock.exporters.prometheus.exposition",
    "penstock.exporters.sentry.instrument",
    *(f"penstock.migrations.{name}" for name in migrations.__all__),
]


def made_in(module: ModuleType) -> Iterator[str]:
    """The names of a module that has no ``__all__``."""
    for name, value in vars(module).items():
        if not name.startswith("_") and getattr(value, "__module__", None) == module.__name__:
            yield f"{module.__name__}.{name}"


@pytest.mark.parametrize("name", [*PUBLIC, *made_in(testing)])
def test_every_public_name_has_an_entry(name: str) -> None:
    assert name in ENTRIES


@pytest.mark.parametrize("path", ENTRIES.values())
def test_every_entry_is_of_something_that_is_there(path: str) -> None:
    module, _, name = path.rpartition(".")

    assert hasattr(importlib.import_module(module), name)


def test_every_page_of_the_reference_is_in_the_navigation() -> None:
    navigation = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")

    assert PAGES
    for page in PAGES:
        assert f": reference/{page.name}\n" in navigation


Loaded = griffe.Object | griffe.Alias


@pytest.fixture(scope="module")
def package() -> Loaded:
    return griffe.load("penstock", search_paths=[ROOT / "src"], docstring_parser="google")


def functions(package: Loaded) -> Iterator[griffe.Function]:
    """Every function and method that the reference has an entry for."""
    for path in ENTRIES.values():
        entry = package[path.removeprefix("penstock.")]
        found = entry.final_target if isinstance(entry, griffe.Alias) else entry
        if isinstance(found, griffe.Class):
            for name, member in found.all_members.items():
                target = member.final_target if isinstance(member, griffe.Alias) else member
                if isinstance(target, griffe.Function) and not name.startswith("_"):
                    yield target
        elif isinstance(found, griffe.Function):
            yield found


def described(function: griffe.Function) -> set[str]:
    """The names of the parameters that a docstring tells of."""
    sections = function.docstring.parsed if function.docstring else []
    return {
        parameter.name
        for section in sections
        if isinstance(section, griffe.DocstringSectionParameters)
        for parameter in section.value
    }


def test_every_parameter_of_a_public_function_is_described(package: Loaded) -> None:
    found = {function.path: function for function in functions(package)}
    taken = {
        path: {f"{'*' * stars_of(p)}{p.name}" for p in function.parameters} - {"self", "cls"}
        for path, function in found.items()
    }

    assert len(found) > 60
    assert sum(map(len, taken.values())) > 90
    assert not {
        path: missing
        for path, function in found.items()
        if (missing := taken[path] - described(function))
    }


def stars_of(parameter: griffe.Parameter) -> int:
    kinds = {griffe.ParameterKind.var_positional: 1, griffe.ParameterKind.var_keyword: 2}
    return kinds.get(parameter.kind, 0) if parameter.kind else 0


def test_a_class_describes_what_it_is_made_of(package: Loaded) -> None:
    missing = {}
    for path in ENTRIES.values():
        made = package[path.removeprefix("penstock.")]
        if not made.is_class or "__init__" not in made.members or not made.docstring:
            continue
        taken = {p.name for p in made.parameters if not p.name.startswith("*")} - {"self"}
        told = {
            parameter.name.lstrip("*")
            for section in made.docstring.parsed
            if isinstance(section, griffe.DocstringSectionParameters)
            for parameter in section.value
        }
        if taken - told:
            missing[path] = taken - told

    assert not missing


def test_no_entry_refers_to_another_one_for_what_it_takes(package: Loaded) -> None:
    """A reader of one entry has not read the one above it."""
    elsewhere = re.compile(r"\bAs (?:above|below|for)\b|: As ``")

    for function in functions(package):
        text = function.docstring.value if function.docstring else ""
        assert not elsewhere.search(text), function.path


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_the_pages_are_built_with_every_entry(tmp_path: Path) -> None:
    for name in ("docs", "src", ".ci"):
        shutil.copytree(ROOT / name, tmp_path / name)
    shutil.copy(ROOT / "mkdocs.yml", tmp_path)
    zensical = Path(sys.executable).with_name("zensical")
    built = subprocess.run(
        [zensical, "build", "--strict"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert built.returncode == 0, built.stdout + built.stderr

    for page in PAGES:
        text = (tmp_path / "site/reference" / page.stem / "index.html").read_text(encoding="utf-8")
        for path, _ in ENTRY.findall(page.read_text(encoding="utf-8")):
            assert f'id="{path}"' in text
        assert not re.search(r":(?:class|func|meth|mod):", text)

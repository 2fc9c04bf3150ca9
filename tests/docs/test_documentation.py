"""The documentation says what the code does."""

import ast
import pkgutil
import re
from pathlib import Path

import pytest
from fastapi import FastAPI

import penstock
from penstock import Database, DatabaseSettings
from penstock.fastapi import install
from penstock.fastapi.errors import CODES
from penstock.fastapi.routes import OperationsRoute
from penstock.telemetry.rules import RULES

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_code_that_names_its_example_is_that_example(page: Path) -> None:
    text = page.read_text(encoding="utf-8")

    for example, shown in re.findall(
        r"<!-- (examples/\S+) -->\n```python\n(.*?)```", text, re.DOTALL
    ):
        assert shown == (ROOT / example).read_text(encoding="utf-8"), example


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    text = page.read_text(encoding="utf-8")

    for target in re.findall(r"\]\((?!https?:)([^)#]+)", text):
        assert (page.parent / target).exists(), target


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_python_in_the_documentation_is_python(page: Path) -> None:
    for block in re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL):
        compile(block, page.name, "exec", flags=_TOP_LEVEL_AWAIT)


_TOP_LEVEL_AWAIT = 0x2000


def loggers() -> set[str]:
    """The names under which the library logs."""
    return {
        name
        for module in (ROOT / "src").rglob("*.py")
        for name in re.findall(r'getLogger\("([\w.]+)"\)', module.read_text(encoding="utf-8"))
    }


def is_there(name: str) -> bool:
    """Return whether a dotted name is of a module, or of something in one."""
    try:
        pkgutil.resolve_name(name)
    except (ImportError, AttributeError):
        return False
    return True


@pytest.mark.parametrize("page", [*PAGES, ROOT / "CHANGELOG.md"], ids=lambda page: page.name)
def test_every_name_of_the_library_is_there(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    names = set(re.findall(r"(?<![\w/.-])penstock(?:\.[A-Za-z_]\w*)+", text)) - FILES

    assert not {name for name in names - loggers() if not is_there(name)}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_import_from_the_library_is_possible(page: Path) -> None:
    blocks = re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)
    names = {
        f"{statement.module}.{name.name}"
        for block in blocks
        for statement in ast.walk(ast.parse(block))
        if isinstance(statement, ast.ImportFrom)
        and (statement.module or "").partition(".")[0] == "penstock"
        for name in statement.names
    }

    assert not {name for name in names if not is_there(name)}


FILES = {"penstock.json"}
"""Names of files, of which a page speaks."""


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_file_that_is_named_is_there(page: Path) -> None:
    rooms = [path.name for path in (ROOT / "src/penstock").iterdir() if path.is_dir()]
    folders = "|".join(["src/penstock", "tests", "benchmarks", "examples", "docs", *rooms])
    text = page.read_text(encoding="utf-8")

    for file in re.findall(rf"`((?:{folders})/[\w/]+\.(?:py|sql|txt|md))`", text):
        assert any((base / file).exists() for base in (ROOT, ROOT / "src/penstock")), file


def test_every_page_is_in_the_navigation() -> None:
    navigation = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")

    for page in (ROOT / "docs").glob("*.md"):
        assert f" {page.name}\n" in navigation


def test_every_answer_to_an_error_is_documented() -> None:
    page = (ROOT / "docs/errors.md").read_text(encoding="utf-8")

    assert len(CODES) >= 10
    for code in CODES:
        assert f"`{code}`" in page


def test_every_public_error_is_documented() -> None:
    page = (ROOT / "docs/errors.md").read_text(encoding="utf-8")

    for name in penstock.__all__:
        exported = getattr(penstock, name)
        if isinstance(exported, type) and issubclass(exported, Exception):
            assert f"`{name}`" in page or f"penstock.{name}`" in page, name


def test_every_finding_that_is_shown_exists() -> None:
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        for finding in re.findall(r"^(?:critical|warning|info) ([a-z-]+): ", text, re.MULTILINE):
            assert finding in RULES, page.name


def test_every_operations_route_is_documented() -> None:
    app = FastAPI()
    install(app, Database.from_url("sqlite://"))
    page = (ROOT / "docs/operations.md").read_text(encoding="utf-8")
    own = [route.path for route in app.routes if isinstance(route, OperationsRoute)]
    paths = {path for path in own if not path.startswith("/pool/assets/")}

    assert len(paths) == 7
    for path in paths:
        assert f"`{path}`" in page


def test_the_first_lines_of_the_readme_are_the_two_commands() -> None:
    commands = re.findall(
        r"^make (\w+)", (ROOT / "README.md").read_text(encoding="utf-8"), re.MULTILINE
    )

    assert commands[:2] == ["demo", "test"]


def test_the_readmes_ten_settings_exist_with_their_defaults() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    reference = (ROOT / "docs/settings.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `([A-Z_]+)` \| ([^|]+) \|", readme, re.MULTILINE)

    assert len(rows) == 10
    for variable, default in rows:
        assert f"`{variable}`" in reference
        field = DatabaseSettings.model_fields[variable.removeprefix("DATABASE_").lower()]
        if not field.is_required() and field.default is not None:
            assert default.partition(",")[0].strip(" `").removesuffix(" s") == _plain(
                field.default
            ), variable


def _plain(default: object) -> str:
    if default == ():
        return "none"
    return f"{default:g}" if isinstance(default, float) else str(default)

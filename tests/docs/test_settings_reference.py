"""The settings reference says what the code does: every name, default, range and table."""

import re
from enum import StrEnum
from pathlib import Path

import pytest

from penstock.errors import SettingsError
from penstock.settings import DatabaseSettings, settings_from_environment
from penstock.settings.environment import variable
from penstock.settings.profiles import (
    OVERFLOW_SHARE,
    PRESETS,
    PROFILES,
    Profile,
)
from penstock.settings.proxies import TCP_KEEPALIVE
from penstock.settings.validation import OFF, accepted

PAGE = (Path(__file__).parents[2] / "docs" / "settings.md").read_text(encoding="utf-8")
FIELDS = DatabaseSettings.model_fields


def sections() -> dict[str, str]:
    """The text below each heading of the reference, by the setting's name."""
    reference = PAGE.partition("\n## Reference\n")[2]
    _, *parts = re.split(r"^### (.+)$", reference, flags=re.MULTILINE)
    return {name.strip("`"): text for name, text in zip(parts[::2], parts[1::2], strict=True)}


def entry(field: str, label: str) -> str:
    (text,) = re.findall(rf"^- {label}: (.+)$", sections()[field], flags=re.MULTILINE)
    return str(text)


def table(heading: str) -> list[dict[str, str]]:
    """The rows of the table below a heading, by the names of its columns."""
    section = PAGE.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in section.splitlines()
        if line.startswith("|")
    ]
    names, _, *body = rows
    return [dict(zip(names, row, strict=True)) for row in body]


def written(field: str, value: object) -> str:
    """A setting's value as the page writes it."""
    if isinstance(value, StrEnum):
        return value.value
    if value == ():
        return "none"
    if value is None:
        return OFF if accepted(FIELDS[field]).startswith(f"{OFF} or ") else "not set"
    if isinstance(value, float):
        return f"{value:g}"
    return str(value).lower()


def default_of(field: str) -> str:
    info = FIELDS[field]
    if hasattr(next(iter(PROFILES.values())), field):
        numbers = (
            f"{name} {written(field, getattr(data, field))}" for name, data in PROFILES.items()
        )
        return f"by environment: {', '.join(numbers)}"
    if field == "tcp_keepalive":
        return written(field, TCP_KEEPALIVE)
    if info.is_required():
        return "none, it is required"
    return written(field, info.get_default(call_default_factory=True, validated_data={}))


def test_every_setting_has_a_heading_and_every_heading_a_setting() -> None:
    assert list(sections()) == list(FIELDS)


@pytest.mark.parametrize("field", FIELDS)
def test_a_heading_is_followed_by_what_the_setting_is(field: str) -> None:
    assert sections()[field].strip().splitlines()[0] == FIELDS[field].description


@pytest.mark.parametrize("field", FIELDS)
def test_the_variable_is_the_one_that_is_read(field: str) -> None:
    assert entry(field, "Variable") == f"`{variable(field)}`"


@pytest.mark.parametrize("field", FIELDS)
def test_the_default_is_the_one_in_force(field: str) -> None:
    assert entry(field, "Default") == default_of(field)


@pytest.mark.parametrize("field", FIELDS)
def test_the_range_is_the_one_that_is_enforced(field: str) -> None:
    assert entry(field, "Accepted") == accepted(FIELDS[field]).rstrip(",")


@pytest.mark.parametrize("field", FIELDS)
def test_a_setting_has_a_reason_below_its_entries(field: str) -> None:
    *_, reason = sections()[field].strip().split("\n\n")

    assert not reason.startswith("- ")


def test_the_table_of_environments_is_the_data() -> None:
    expected = [
        {"setting": field}
        | {name.value: written(field, getattr(data, field)) for name, data in PROFILES.items()}
        for field in Profile.__slots__
    ]

    assert table("Environments") == expected


def test_the_table_of_presets_is_the_data() -> None:
    expected = []
    for name, size in PRESETS.items():
        largest = f" to {size.largest_pool_size}" if size.largest_pool_size else ""
        overflow = f"{OVERFLOW_SHARE:.0%}".replace("%", " %")
        expected.append(
            {
                "preset": name.value,
                "pool_size": f"{size.pool_size}{largest}",
                "max_overflow": overflow if size.max_overflow is None else str(size.max_overflow),
            }
        )

    assert table("Size presets") == expected


def test_the_refusal_that_is_shown_is_the_one_that_comes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", "postgresql://user:password@localhost:none/app")
    monkeypatch.setenv("DATABASE_POOL_SIZE", "abc")
    with pytest.raises(SettingsError) as refused:
        settings_from_environment(env_file=None)

    assert f"```text\n{refused.value}\n```" in PAGE


def test_links_within_the_page_lead_somewhere() -> None:
    headings = re.findall(r"^#+ (.+)$", PAGE, flags=re.MULTILINE)
    anchors = {re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in headings}

    assert set(re.findall(r"\]\(#([^)]+)\)", PAGE)) <= anchors

"""The one form in which wrong settings are reported: a line for each, and never a secret."""

import difflib
import re
from collections.abc import Iterable, Mapping
from enum import StrEnum
from pathlib import PurePath

from pydantic import ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from penstock.errors import SettingsError
from penstock.settings.acceptance import accepted

__all__ = ["EXAMPLE_URL", "nearest", "refusal"]

EXAMPLE_URL = "postgresql+asyncpg://user:password@localhost:5432/app"

LONGEST_SHOWN = 200
NEVER_SHOWN = frozenset({"url", "server_settings"})
# What a whole URL or connection string looks like in the wrong variable.
LIKE_A_SECRET = re.compile(r"://|@|passw|pwd|secret|token", re.IGNORECASE)


def refusal(
    error: ValidationError, fields: Mapping[str, FieldInfo], names: Mapping[str, str]
) -> SettingsError:
    """Put pydantic's error into words for who has to mend it.

    Args:
        error: What pydantic found, on the fields of ``DatabaseSettings``.
        fields: Those fields.
        names: Each field's name where the reader set it, such as ``DATABASE_POOL_SIZE``.

    Returns:
        An error with one line for each wrong setting, in the order of the fields.
    """
    lines: dict[str, str] = {}
    for detail in error.errors(include_url=False):
        field = str(detail["loc"][0])
        lines.setdefault(field, _line(field, detail, fields, names))
    return SettingsError("\n".join(lines.values()))


def nearest(name: str, names: Iterable[str]) -> str | None:
    """The name that ``name`` was probably meant to be; None if there is none like it."""
    return next(iter(difflib.get_close_matches(name, list(names), n=1, cutoff=0.8)), None)


def _line(
    field: str,
    detail: ErrorDetails,
    fields: Mapping[str, FieldInfo],
    names: Mapping[str, str],
) -> str:
    if field not in fields:
        meant = nearest(field, fields)
        return f"{field} is not a setting" + (f"; did you mean {meant}?" if meant else "")
    name = names[field]
    if detail["type"] == "missing":
        return f"{name} is not set: for example {name}={EXAMPLE_URL}"
    reason = detail.get("ctx", {}).get("error")
    why = str(reason) if reason else f"{accepted(fields[field])} is accepted"
    return f"{name}{_value(field, detail['input'])}: {why}"


def _value(field: str, value: object) -> str:
    if field in NEVER_SHOWN:
        return ""
    if isinstance(value, StrEnum | PurePath):
        value = str(value)
    if not isinstance(value, str | int | float | None):
        return f" (a {type(value).__name__})"
    text = repr(value)
    if LIKE_A_SECRET.search(text):
        return " (not shown, as it may hold a secret)"
    return f"={text}" if len(text) <= LONGEST_SHOWN else f"={text[:LONGEST_SHOWN]}..."

"""What each setting accepts, and the one form in which wrong ones are reported."""

import difflib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import PurePath
from types import UnionType
from typing import Annotated, Any, get_args, get_origin

from annotated_types import Ge, Gt, Le
from pydantic import BeforeValidator, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails, PydanticCustomError

from penstock.base_error import SettingsError

OFF = "off"
"""What stands for None where a number is optional."""


@dataclass(frozen=True, slots=True)
class Unit:
    """What a setting's number counts, such as ``seconds``."""

    name: str


@dataclass(frozen=True, slots=True)
class Accepted:
    """What a setting accepts, where its type and bounds do not say it."""

    text: str


def accepted(field: FieldInfo) -> str:
    """Say what a setting accepts.

    Args:
        field: The setting, from ``DatabaseSettings.model_fields``.

    Returns:
        The range or the choices, such as ``a whole number of seconds from 1 to 86400``.
    """
    for item in field.metadata:
        if isinstance(item, Accepted):
            return item.text
    kind = _without_none(field.annotation)
    if kind is bool:
        return "true or false"
    if issubclass(kind, StrEnum):
        return f"one of {', '.join(kind)}"
    number = f"{_number(kind, field.metadata)} {_bounds(field.metadata)}"
    return number if kind is field.annotation else f"{OFF} or {number}"


def _without_none(annotation: Any) -> type:
    parts = get_args(annotation) if get_origin(annotation) is UnionType else (annotation,)
    return next(part for part in parts if isinstance(part, type) and part is not type(None))


def _number(kind: type, metadata: list[Any]) -> str:
    number = "a whole number" if kind is int else "a number"
    units = [f"of {item.name}" for item in metadata if isinstance(item, Unit)]
    return " ".join([number, *units])


def _bounds(metadata: list[Any]) -> str:
    lowest = highest = ""
    for item in metadata:
        if isinstance(item, Ge):
            lowest = f"from {item.ge} to"
        elif isinstance(item, Gt):
            lowest = f"above {item.gt} and up to"
        elif isinstance(item, Le):
            highest = str(item.le)
    return f"{lowest} {highest}"


SECONDS = Unit("seconds")


def _no_bool(value: object) -> object:
    if isinstance(value, bool):
        raise PydanticCustomError("bool", "a bool is no number")
    return value


def _none_for_off(value: object) -> object:
    return None if value == OFF else _no_bool(value)


Whole = Annotated[int, BeforeValidator(_no_bool)]
Real = Annotated[float, BeforeValidator(_no_bool)]

# A variable cannot hold None, and an empty one is more often a mistake than a wish.
WholeOrOff = Annotated[int | None, BeforeValidator(_none_for_off)]
RealOrOff = Annotated[float | None, BeforeValidator(_none_for_off)]


EXAMPLE_URL = "postgresql+asyncpg://user:password@localhost:5432/app"

LONGEST_SHOWN = 200
NEVER_SHOWN = frozenset({"url", "server_settings"})
# What a whole URL or connection string looks like in the wrong variable.
LIKE_A_SECRET = re.compile(r"://|@|passw|pwd|secret|token", re.IGNORECASE)


def refusal(
    error: ValidationError, fields: Mapping[str, FieldInfo], names: Mapping[str, str]
) -> SettingsError:
    """Put pydantic's error into words for the person who has to correct it.

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

"""What each setting accepts, and the one form in which wrong ones are reported."""

import difflib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path, PurePath
from types import UnionType
from typing import Annotated, Any, get_args, get_origin

from annotated_types import Ge, Gt, Le
from pydantic import AfterValidator, BeforeValidator, PlainSerializer, SecretStr, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails, PydanticCustomError

from penstock.base_error import SettingsError
from penstock.context import refused_name
from penstock.settings.proxies import Proxy

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
RECYCLE = "-1 for never, or a whole number of seconds from 1 to 86400"


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
NEVER_SHOWN = frozenset({"url", "server_settings", "replicas", "position_key"})
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
    if isinstance(value, list | tuple) and all(isinstance(each, str) for each in value):
        value = ",".join(value)
    if not isinstance(value, str | int | float | None):
        return f" (a {type(value).__name__})"
    text = repr(value)
    if LIKE_A_SECRET.search(text):
        return " (not shown, as it may hold a secret)"
    return f"={text}" if len(text) <= LONGEST_SHOWN else f"={text[:LONGEST_SHOWN]}..."


# PostgreSQL cuts a longer application_name (NAMEDATALEN - 1).
LONGEST_NAME = 63


def _name_of_length(value: str) -> str:
    if not 1 <= len(value.encode(errors="surrogatepass")) <= LONGEST_NAME or "\0" in value:
        raise PydanticCustomError("name", "too short or too long")
    return value


ApplicationName = Annotated[
    str, AfterValidator(_name_of_length), Accepted(f"text of 1 to {LONGEST_NAME} bytes")
]


def _no_empty(value: object) -> object:
    if value == "" or "\0" in str(value):
        raise PydanticCustomError("folder", "empty, or a NUL")
    return value


def _made_when_needed(value: Path) -> Path:
    try:
        is_something_else = value.exists() and not value.is_dir()
    except OSError as error:  # too long a name
        raise ValueError(f"it cannot be used: {error.strerror}") from None
    if is_something_else:
        raise ValueError("it is not a folder")
    return value


Folder = Annotated[Path, BeforeValidator(_no_empty), AfterValidator(_made_when_needed)]


def _from_text(value: object) -> object:
    if isinstance(value, str):
        return tuple(name.strip() for name in value.split(","))
    return tuple(value) if isinstance(value, Sequence | set | frozenset) else value


def _context_names(names: tuple[str, ...]) -> tuple[str, ...]:
    for name in names:
        why = None if name.lower() == "role" else refused_name(name)
        if why is not None:
            raise ValueError(f"the name {name!r} is refused: {why}")
    return names


_PROXIES = f"one of {', '.join(Proxy)}, or several with commas between,"


def _proxies(value: object) -> object:
    # An empty variable takes back the one of a base image.
    if value is None or (isinstance(value, str) and not value.strip()):
        return ()
    names = _from_text(value)
    if not isinstance(names, tuple) or not all(isinstance(name, str) for name in names):
        raise ValueError(f"{_PROXIES} is accepted")
    unknown = next((name for name in names if name not in set(Proxy)), None)
    if unknown is None:
        return names
    meant = nearest(unknown.lower(), Proxy)
    hint = f"did you mean {meant}?" if meant else f"{unknown!r} is none" if unknown else _EMPTY
    raise ValueError(f"{_PROXIES} is accepted; {hint}")


_EMPTY = "an entry is empty"

Proxies = Annotated[tuple[Proxy, ...], BeforeValidator(_proxies), Accepted(_PROXIES)]


RequiredContext = Annotated[
    tuple[str, ...],
    BeforeValidator(_from_text),
    AfterValidator(_context_names),
    Accepted("names of settings with commas between, such as app.tenant,role,"),
]


HAVE_A_SETTING = frozenset({"application_name", "jit"})
_SETTING_NAME = re.compile(r"[a-z_][\w$]*(\.[a-z_][\w$]*)*", re.ASCII | re.IGNORECASE)


def _from_json(value: object) -> object:
    if isinstance(value, dict):
        return {name: _plain(text) for name, text in value.items()}
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        raise PydanticCustomError("json", "not JSON") from None


def _plain(text: object) -> object:
    return text.get_secret_value() if isinstance(text, SecretStr) else text


def _hidden(value: dict[str, str]) -> dict[str, SecretStr]:
    return {name: SecretStr(text) for name, text in value.items()}


def _settings_as_text(value: dict[str, str]) -> dict[str, str]:
    for name in value:
        if name in HAVE_A_SETTING:
            raise ValueError(f"{name} has its own setting")
    if any(not _SETTING_NAME.fullmatch(name) or "\0" in text for name, text in value.items()):
        raise PydanticCustomError("server_settings", "a name that no setting has, or a NUL")
    return value


ServerSettings = Annotated[
    dict[str, str],
    BeforeValidator(_from_json),
    AfterValidator(_settings_as_text),
    PlainSerializer(_hidden),
    Accepted('names and their values as text, such as {"timezone": "UTC"},'),
]

"""PostgreSQL's own settings, as names and values that a connection starts with."""

import json
from typing import Annotated

from pydantic import AfterValidator, BeforeValidator, PlainSerializer, SecretStr
from pydantic_core import PydanticCustomError

from penstock.settings.acceptance import Accepted

__all__ = ["ServerSettings"]

HAVE_A_SETTING = frozenset({"application_name", "jit"})


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


def _checked(value: dict[str, str]) -> dict[str, str]:
    for name in value:
        if name in HAVE_A_SETTING:
            raise ValueError(f"{name} has a setting of its own")
    if any(not name or "\0" in name or "\0" in text for name, text in value.items()):
        raise PydanticCustomError("server_settings", "an empty name or a NUL")
    return value


ServerSettings = Annotated[
    dict[str, str],
    BeforeValidator(_from_json),
    AfterValidator(_checked),
    PlainSerializer(_hidden),
    Accepted('names and their values as text, such as {"timezone": "UTC"},'),
]

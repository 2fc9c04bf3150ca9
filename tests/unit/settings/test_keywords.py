"""Every setting can be completed in an editor, and none that does not exist is accepted."""

from dataclasses import fields
from enum import Enum
from typing import Any, get_args, get_type_hints

import pytest
from pydantic import TypeAdapter

from penstock.engine import EngineKeywords, EngineOptions
from penstock.settings import DatabaseSettings, SettingsKeywords

HINTS = get_type_hints(SettingsKeywords)
URL = "postgresql://u@h/d"


def test_each_setting_has_its_keyword() -> None:
    assert HINTS.keys() == DatabaseSettings.model_fields.keys() - {"url"}


def test_each_option_of_the_engine_has_its_keyword() -> None:
    assert get_type_hints(EngineKeywords).keys() == {each.name for each in fields(EngineOptions)}


@pytest.mark.parametrize("name", sorted(HINTS))
def test_a_keyword_has_the_type_of_its_setting(name: str) -> None:
    settings = DatabaseSettings.of(URL, environment="testing")

    TypeAdapter(HINTS[name]).validate_python(getattr(settings, name))


def _literals(hint: Any) -> list[Any]:
    return [each for part in get_args(hint) for each in (_literals(part) or [part])]


@pytest.mark.parametrize("name", ["preset", "nested_checkout", "tls", "budget"])
def test_each_text_of_a_keyword_is_accepted_and_none_is_missing(name: str) -> None:
    parts = _literals(HINTS[name])
    [kind] = [each for each in parts if isinstance(each, type) and issubclass(each, Enum)]
    texts = {each for each in parts if isinstance(each, str)}

    assert texts == {member.value for member in kind}

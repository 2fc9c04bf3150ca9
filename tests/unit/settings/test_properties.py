"""What holds for every setting and every combination of settings, by generated examples."""

import json
from typing import Any

import pytest
from annotated_types import Ge, Gt, Le
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from sqlalchemy import make_url

from penstock.errors import SettingsError
from penstock.settings import (
    BudgetPolicy,
    DatabaseSettings,
    Environment,
    NestedCheckoutPolicy,
    Proxy,
    SizePreset,
    TlsMode,
    settings_from_environment,
)
from penstock.settings.environment import variable
from penstock.settings.profiles import PRESETS, filled_in
from penstock.settings.proxies import PROXIES, least_patient
from penstock.settings.url import SCHEMES

FIELDS = DatabaseSettings.model_fields
URL = "postgresql+asyncpg://user:password@localhost:5432/app"


def bounds(name: str) -> tuple[float, bool, float]:
    """Lowest value, whether it is itself accepted, and highest value."""
    metadata = FIELDS[name].metadata
    (highest,) = (item.le for item in metadata if isinstance(item, Le))
    lowest = [item.ge for item in metadata if isinstance(item, Ge)]
    above = [item.gt for item in metadata if isinstance(item, Gt)]
    (low,) = lowest or above
    assert isinstance(low, int | float)
    assert isinstance(highest, int | float)
    return low, bool(lowest), highest


OPTIONAL = [
    name for name, field in FIELDS.items() if field.annotation in (int | None, float | None)
]
NUMBERS = [
    name for name, field in FIELDS.items() if field.annotation in (int, float) or name in OPTIONAL
]
WHOLE = [name for name in NUMBERS if FIELDS[name].annotation in (int, int | None)]


def inside(name: str) -> st.SearchStrategy[Any]:
    low, included, high = bounds(name)
    if name in WHOLE:
        return st.integers(int(low), int(high)).filter(lambda n: n != 0 or name != "pool_recycle")
    return st.floats(low, high, exclude_min=not included)


def outside(name: str) -> st.SearchStrategy[Any]:
    low, included, high = bounds(name)
    if name in WHOLE:
        return st.integers(max_value=int(low) - 1) | st.integers(min_value=int(high) + 1)
    return st.floats(max_value=low, exclude_max=included) | st.floats(
        min_value=high, exclude_min=True
    )


identifiers = st.text("abcdefghijklmnopqrstuvwxyz_.", min_size=1, max_size=10)
texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=10)
names = st.lists(st.sampled_from(["app.tenant", "role", "work_mem"]), max_size=3)
combinations = st.fixed_dictionaries(
    {},
    optional={
        **{name: inside(name) for name in NUMBERS},
        **{name: st.none() | inside(name) for name in OPTIONAL},
        "environment": st.sampled_from(Environment),
        "preset": st.none() | st.sampled_from(SizePreset),
        "proxy": st.lists(st.sampled_from(Proxy), max_size=3).map(tuple),
        "pool_pre_ping": st.booleans(),
        "reclaim_leaks": st.booleans(),
        "nested_checkout": st.sampled_from(NestedCheckoutPolicy),
        "echo": st.booleans(),
        "application_name": identifiers,
        "jit": st.booleans(),
        "server_settings": st.dictionaries(
            st.from_regex(r"x\.[a-z_][a-z0-9_$]{0,20}", fullmatch=True), texts
        ),
        "requires_context": names.map(tuple),
        "tls": st.none() | st.sampled_from(TlsMode),
        "budget": st.sampled_from(BudgetPolicy),
    },
)


def accepted(given: dict[str, Any]) -> dict[str, Any]:
    """The combination without what its preset, its proxy or another of its numbers rules out."""
    preset, proxy = given.get("preset"), given.get("proxy")
    if preset and "pool_size" in given and not PRESETS[preset].fits(given["pool_size"]):
        del given["pool_size"]
    least = least_patient(proxy or ())
    limit = PROXIES[least].idle_timeout if least else None
    if limit and not 0 < given.get("pool_recycle", 1) < limit:
        del given["pool_recycle"]
    if limit and given.get("tcp_keepalive", 1) >= limit:
        del given["tcp_keepalive"]
    if limit and given.get("keepalive", 0) >= limit:
        del given["keepalive"]
    complete: dict[str, Any] = filled_in(given)
    if complete["min_idle"] > complete["pool_size"]:
        del given["min_idle"]
    if complete["leak_after"] is None and "reclaim_leaks" in given:
        del given["reclaim_leaks"]
    longest = given.get("replica_max_lag", FIELDS["replica_max_lag"].default)
    if given.get("position_lifetime", FIELDS["position_lifetime"].default) <= longest:
        given.pop("replica_max_lag", None)
        given.pop("position_lifetime", None)
    return given


sound = combinations.map(accepted)


@given(sound)
def test_what_was_given_is_what_is_set(given: dict[str, Any]) -> None:
    settings = DatabaseSettings.of(URL, **given)

    assert {name: getattr(settings, name) for name in given} == given


@given(sound)
def test_accepted_settings_round_trip(given: dict[str, Any]) -> None:
    settings = DatabaseSettings.of(URL, **given)

    assert DatabaseSettings.of(**settings.model_dump()) == settings


@given(sound, st.sampled_from(sorted(FIELDS)))
def test_accepted_settings_are_frozen(given: dict[str, Any], name: str) -> None:
    settings = DatabaseSettings.of(URL, **given)

    with pytest.raises(ValidationError):
        setattr(settings, name, getattr(settings, name))


def as_variable(value: Any) -> str | None:
    if isinstance(value, dict):
        return json.dumps(value)
    if isinstance(value, tuple):
        return ",".join(value) or None
    return None if value is None else str(value)


def spelled(name: str, value: Any) -> str | None:
    return "off" if value is None and name in OPTIONAL else as_variable(value)


def can_be_a_variable(given: dict[str, Any]) -> bool:
    return "\0" not in str(given)


@given(sound.filter(can_be_a_variable))
def test_environment_and_python_give_the_same_settings(given: dict[str, Any]) -> None:
    variables = {name: spelled(name, value) for name, value in given.items()}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DATABASE_URL", URL)
        for name, value in variables.items():
            if value is not None:
                patch.setenv(variable(name), value)
        from_environment = settings_from_environment()

    assert from_environment == DatabaseSettings.of(URL, **given)


@given(st.data())
@pytest.mark.parametrize("name", NUMBERS)
def test_a_number_out_of_range_is_refused_with_its_name_and_range(
    name: str, data: st.DataObject
) -> None:
    value = data.draw(outside(name))
    low, _, high = bounds(name)

    with pytest.raises(SettingsError) as refused:
        DatabaseSettings.of(URL, **{name: value})
    (line,) = str(refused.value).splitlines()
    assert line.startswith(f"{name}=")
    assert f" {low} " in line
    assert f" {high} is accepted" in line


@given(st.data())
@pytest.mark.parametrize("name", NUMBERS)
def test_a_variable_out_of_range_is_refused_by_the_variables_name(
    name: str, data: st.DataObject
) -> None:
    value = data.draw(outside(name))

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DATABASE_URL", URL)
        patch.setenv(variable(name), str(value))
        with pytest.raises(SettingsError) as refused:
            settings_from_environment()
    assert str(refused.value).startswith(f"{variable(name)}='")


@given(sound, st.sampled_from(WHOLE), st.sampled_from(WHOLE))
def test_wrong_settings_among_sound_ones_are_the_only_ones_reported(
    given: dict[str, Any], first: str, second: str
) -> None:
    wrong = {first: -2, second: -2}

    with pytest.raises(SettingsError) as refused:
        DatabaseSettings.of(URL, **{**given, **wrong})
    reported = {line.partition("=")[0] for line in str(refused.value).splitlines()}
    assert reported == set(wrong)


def attempt(url: str) -> tuple[str, DatabaseSettings | None]:
    try:
        return "", DatabaseSettings.of(url)
    except SettingsError as error:
        return str(error), None


url_texts = st.text(st.sampled_from("ab1:/@[]?=&,%#. é\0"), max_size=30)


@given(st.sampled_from(["", *(f"{scheme}://" for scheme in SCHEMES)]), st.text() | url_texts)
def test_any_text_as_a_url_is_refused_for_itself_alone_or_understood_by_sqlalchemy(
    start: str, rest: str
) -> None:
    refused, settings = attempt(start + rest)
    if settings is None:
        assert refused.startswith("url")
        return
    url = make_url(settings.url.get_secret_value())
    if settings.driver != "aiosqlite":  # which warns of parameters that it does not know
        url.get_dialect()().create_connect_args(url)
    assert DatabaseSettings.of(settings.url) == settings

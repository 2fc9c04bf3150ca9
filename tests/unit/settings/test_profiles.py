"""Profiles and presets hold the promised numbers, and explicit beats preset beats profile."""

from typing import Any

import pytest
from tests.told import numbers

from penstock.errors import SettingsError
from penstock.settings import DatabaseSettings, Environment, SizePreset, settings_from_environment

URL = "postgresql://user:password@localhost/app"


@pytest.mark.parametrize(
    ("environment", "numbers"),
    [
        ("development", (5, 10, 30, 1800, False, True)),
        ("testing", (2, 5, 10, 600, False, False)),
        ("production", (20, 30, 30, 3600, True, False)),
    ],
)
def test_an_environment_has_the_promised_profile(
    environment: str, numbers: tuple[object, ...]
) -> None:
    settings = DatabaseSettings.of(URL, environment=environment)

    assert numbers == (
        settings.pool_size,
        settings.max_overflow,
        settings.pool_timeout,
        settings.pool_recycle,
        settings.pool_pre_ping,
        settings.echo,
    )


@pytest.mark.parametrize(
    ("environment", "numbers"),
    [
        ("development", (0, None, None, 0.1, 60, "refuse")),
        ("testing", (0, None, None, 0.1, None, "refuse")),
        ("production", (5, None, 0.5, 5.0, 60, "warn")),
        ("serverless", (0, None, None, 0.1, None, "warn")),
    ],
)
def test_an_environment_has_the_promised_guards(
    environment: str, numbers: tuple[object, ...]
) -> None:
    settings = DatabaseSettings.of(URL, environment=environment)

    assert numbers == (
        settings.min_idle,
        settings.max_waiting,
        settings.codel_target,
        settings.codel_interval,
        settings.leak_after,
        settings.nested_checkout,
    )


def test_what_production_has_on_is_switched_off_by_a_word(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", URL)
    monkeypatch.setenv("ENVIRONMENT", "production")
    monkeypatch.setenv("DATABASE_CODEL_TARGET", "off")
    monkeypatch.setenv("DATABASE_LEAK_AFTER", "off")

    settings = settings_from_environment()

    assert (settings.codel_target, settings.leak_after) == (None, None)


@pytest.mark.parametrize(
    ("pool_size", "min_idle"), [(1, 1), (4, 4), ("4", 4), (5, 5), (6, 5), (50, 5)]
)
def test_production_keeps_no_more_ready_than_the_pool_keeps(
    pool_size: object, min_idle: int
) -> None:
    settings = DatabaseSettings.of(URL, environment="production", pool_size=pool_size)

    assert settings.min_idle == min_idle


@pytest.mark.parametrize("pool_size", [-5, 0, 1001, float("inf"), float("nan"), "five", None])
def test_a_senseless_pool_size_is_refused_for_that_alone_in_production(pool_size: object) -> None:
    with pytest.raises(SettingsError) as refused:
        DatabaseSettings.of(URL, environment="production", pool_size=pool_size)

    assert str(refused.value).startswith("pool_size=")
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    "setting", [{"min_idle": 1}, {"max_waiting": 0}, {"codel_target": 0.1}, {"leak_after": 1}]
)
def test_serverless_takes_settings_of_a_pool_that_it_has_not(setting: dict[str, Any]) -> None:
    settings = DatabaseSettings.of(URL, environment="serverless", **setting)

    assert not settings.keeps_connections


@pytest.mark.parametrize(
    ("preset", "sizes"),
    [
        ("development", (5, 5)),
        ("small", (10, 10)),
        ("medium", (20, 10)),
        ("high", (50, 20)),
        ("container", (5, 2)),
    ],
)
@pytest.mark.parametrize("environment", Environment)
def test_a_preset_has_the_promised_sizes_in_every_environment(
    preset: str, sizes: tuple[int, int], environment: Environment
) -> None:
    settings = DatabaseSettings.of(URL, preset=preset, environment=environment)

    assert (settings.pool_size, settings.max_overflow) == sizes


def test_a_preset_leaves_the_rest_to_the_profile() -> None:
    settings = DatabaseSettings.of(URL, preset="small", environment="production")

    assert (settings.pool_recycle, settings.pool_pre_ping) == (3600, True)


@pytest.mark.parametrize(
    ("pool_size", "max_overflow"), [(5, 2), (6, 3), (7, 3), (8, 4), (9, 4), (10, 5), ("8", 4)]
)
def test_a_container_overflows_by_half_of_its_pool_rounded_down(
    pool_size: object, max_overflow: int
) -> None:
    settings = DatabaseSettings.of(URL, preset="container", pool_size=pool_size)

    assert settings.max_overflow == max_overflow


@pytest.mark.parametrize("pool_size", [4, 11])
def test_a_container_with_another_pool_size_is_refused(pool_size: int) -> None:
    with pytest.raises(SettingsError) as refused:
        DatabaseSettings.of(URL, preset="container", pool_size=pool_size)

    assert str(refused.value).startswith(f"pool_size={pool_size}: ")
    assert "container" in str(refused.value)
    assert numbers(str(refused.value))[-2:] == ["5", "10"]


@pytest.mark.parametrize("pool_size", [-5, 0, 10**400, float("inf"), float("nan"), "five", None])
def test_a_container_with_a_senseless_pool_size_is_refused_for_that_alone(
    pool_size: object,
) -> None:
    with pytest.raises(SettingsError) as refused:
        DatabaseSettings.of(URL, preset="container", pool_size=pool_size)

    assert str(refused.value).startswith("pool_size=")
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    "explicit",
    [
        {"pool_size": 7},
        {"max_overflow": 0},
        {"pool_timeout": 1.5},
        {"pool_recycle": 60},
        {"pool_pre_ping": False},
        {"min_idle": 0},
        {"max_waiting": 9},
        {"codel_target": None},
        {"codel_interval": 0.1},
        {"leak_after": None},
        {"nested_checkout": "refuse"},
        {"echo": True},
    ],
)
@pytest.mark.parametrize("preset", [None, *SizePreset])
def test_what_is_explicit_outranks_preset_and_profile(
    explicit: dict[str, Any], preset: SizePreset | None
) -> None:
    without = DatabaseSettings.of(URL, environment="production", preset=preset)
    settings = DatabaseSettings.of(URL, environment="production", preset=preset, **explicit)

    (name,) = explicit
    others = {name, "max_overflow"} if preset is SizePreset.CONTAINER else {name}
    assert getattr(settings, name) == explicit[name]
    assert settings.model_dump(exclude=others) == without.model_dump(exclude=others)

"""Arguments as a configuration file gives them: each is a text."""

from dataclasses import fields
from typing import Any, cast

import pytest
from sqlalchemy.ext.asyncio import async_engine_from_config

from penstock import PenstockPool
from penstock.errors import SettingsError
from penstock.pool.policy import PoolPolicy

OWN = tuple(field.name for field in fields(PoolPolicy))
TEXTS: dict[str, tuple[str, object]] = {
    "min_idle": ("1", 1),
    "max_waiting": ("100", 100),
    "codel_target": ("0.5", 0.5),
    "codel_interval": ("5", 5.0),
    "overflow_idle": ("30", 30.0),
    "keepalive": ("0", 0.0),
    "idle_before_ping": ("inf", float("inf")),
    "ping_timeout": ("1.5", 1.5),
    "connect_timeout": (" 7 ", 7.0),
    "connects_at_once": ("2", 2),
    "connect_retry": ("3", 3.0),
    "leak_after": ("60", 60.0),
    "reclaim_leaks": ("true", True),
    "nested_checkout": ("refuse", "refuse"),
}
BOOLEANS = {
    **dict.fromkeys(("true", "True", "yes", "on", "1"), True),
    **dict.fromkeys(("false", "False", "no", "off", "0"), False),
}


def pool_from(**settings: str) -> PenstockPool:
    """Return the pool of an engine that is read from a file; nothing is connected."""
    config = {"db.url": "postgresql+asyncpg://app@nowhere/app", "db.pool_size": "3"}
    config |= {f"db.{name}": value for name, value in settings.items()}
    engine = async_engine_from_config(config, prefix="db.", poolclass=PenstockPool)
    return PenstockPool.of(engine)


def test_every_argument_has_a_text() -> None:
    assert set(TEXTS) == set(OWN)


@pytest.mark.parametrize("name", OWN)
def test_a_text_is_read_as_the_argument_s_own_type(name: str) -> None:
    text, value = TEXTS[name]

    pool = pool_from(**{name: text})

    assert pool.size() == 3
    assert getattr(pool.policy, name) == value
    assert getattr(pool.recreate().policy, name) == value


@pytest.mark.parametrize("name", ["max_waiting", "codel_target", "connect_retry", "leak_after"])
@pytest.mark.parametrize("text", ["", "none", "None"])
def test_an_optional_argument_is_switched_off_by_a_text(name: str, text: str) -> None:
    assert getattr(pool_from(**{name: text}).policy, name) is None


@pytest.mark.parametrize("text", BOOLEANS)
@pytest.mark.parametrize("name", ["reclaim_leaks", "pool_use_lifo", "pool_pre_ping"])
def test_a_text_that_says_false_is_false(name: str, text: str) -> None:
    pool = pool_from(**{name: text})

    read = {
        "reclaim_leaks": pool.policy.reclaim_leaks,
        "pool_use_lifo": pool.uses_lifo,
        "pool_pre_ping": pool._pre_ping,
    }
    assert read[name] is BOOLEANS[text]


@pytest.mark.parametrize("name", [*OWN, "pool_use_lifo", "pool_pre_ping"])
@pytest.mark.parametrize("text", ["soon", "nan", "1,5"])
def test_what_says_nothing_is_refused_by_name(name: str, text: str) -> None:
    with pytest.raises(SettingsError) as refused:
        pool_from(**{name: text})

    assert str(refused.value).startswith(f"{name.removeprefix('pool_')}=")


@pytest.mark.parametrize("value", [None, 2.5, []])
def test_what_is_no_boolean_is_refused(value: object) -> None:
    with pytest.raises(SettingsError, match=r"reclaim_leaks=.*true or false"):
        PoolPolicy(reclaim_leaks=cast("Any", value))

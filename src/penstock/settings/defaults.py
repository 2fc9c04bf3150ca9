"""The values of what was not set: by the preset, the proxy and the environment's profile."""

from collections.abc import Mapping
from dataclasses import asdict
from enum import StrEnum
from typing import TypeVar

from penstock.settings.profiles import OVERFLOW_SHARE, PRESETS, PROFILES, Environment, SizePreset
from penstock.settings.proxies import PROXIES, SHARING, SLEEPING, Proxy

__all__ = ["TCP_KEEPALIVE", "filled_in"]

# Seconds. 300 to 600 is rare enough to cost nothing and outlasts what most firewalls allow.
TCP_KEEPALIVE = 300

Choice = TypeVar("Choice", bound=StrEnum)


def filled_in(given: Mapping[str, object]) -> dict[str, object]:
    """Complete settings that were given in part.

    Args:
        given: What was set, by field name, unchecked.

    Returns:
        The same with the numbers of its preset, its proxy and its environment's profile.
        A wrong choice among them counts as none and is left for the model to refuse.
    """
    environment = _member(Environment, given.get("environment")) or Environment.DEVELOPMENT
    profile = PROFILES[environment]
    complete = {
        **asdict(profile),
        "tcp_keepalive": TCP_KEEPALIVE,
        **_by_proxy(_member(Proxy, given.get("proxy"))),
        **_by_preset(_member(SizePreset, given.get("preset")), given.get("pool_size")),
        **given,
    }
    if "min_idle" not in given:
        complete["min_idle"] = _within(complete["pool_size"], complete["min_idle"])
    return complete


def _member(choices: type[Choice], value: object) -> Choice | None:
    return choices(value) if isinstance(value, str) and value in set(choices) else None


def _by_proxy(proxy: Proxy | None) -> dict[str, object]:
    if proxy is None:
        return {}
    defaults: dict[str, object] = {"pool_pre_ping": True}
    early = PROXIES[proxy].pool_recycle
    if early is not None:
        defaults |= {"pool_recycle": early, "tcp_keepalive": min(TCP_KEEPALIVE, early)}
    if proxy in SHARING:
        defaults["statement_cache_size"] = 0
    if proxy in SLEEPING:
        defaults |= {"keepalive": 0, "min_idle": 0}
    return defaults


def _by_preset(preset: SizePreset | None, pool_size: object) -> dict[str, object]:
    if preset is None:
        return {}
    size = PRESETS[preset]
    if size.max_overflow is not None:
        return {"pool_size": size.pool_size, "max_overflow": size.max_overflow}
    kept = _whole(pool_size)
    if kept is None or not size.fits(kept):
        kept = size.pool_size
    return {"pool_size": size.pool_size, "max_overflow": int(kept * OVERFLOW_SHARE)}


def _within(pool_size: object, min_idle: int) -> int:
    kept = _whole(pool_size)
    return min_idle if kept is None else max(0, min(min_idle, kept))


def _whole(value: object) -> int | None:
    try:
        return int(float(value)) if isinstance(value, str | int | float) else None
    except (ValueError, OverflowError):
        return None

"""The page of clouds and poolers has every service of the data, with its numbers and sources."""

import os
from collections.abc import Sequence
from pathlib import Path

import pytest

from penstock.settings.proxies import PROXIES, Proxy, ProxyProfile

PAGE = Path(__file__).parents[2] / "docs" / "clouds.md"


def rows(head: Sequence[str], body: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *body]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def settings_of(name: Proxy, profile: ProxyProfile) -> list[str]:
    limit = profile.idle_timeout
    return [
        f"`{name}`",
        profile.title,
        str(profile.idle_end) if limit is None else f"{limit}, then {profile.idle_end}",
        str(profile.pool_recycle or "the profile's"),
        f"{profile.keepalive:g}",
        str(profile.pool_mode or "no pooler"),
        "fast" if profile.keeps_statements else "safe",
        profile.refuses or "none",
    ]


def notes_on(name: Proxy, profile: ProxyProfile) -> list[str]:
    sources = ", ".join(f"[{number}]({source})" for number, source in enumerate(profile.sources, 1))
    pins = [f"Pinned by {profile.pins}."] if profile.pins else []
    return [f"`{name}`", " ".join([*pins, profile.note]), sources]


SETTINGS = (
    "proxy,service,idle timeout,pool_recycle,keepalive,pool mode,statements,parameters refused"
)
TABLES = {
    "services": rows(SETTINGS.split(","), [settings_of(*each) for each in PROXIES.items()]),
    "notes": rows(["proxy", "note", "sources"], [notes_on(*each) for each in PROXIES.items()]),
}


@pytest.mark.parametrize("table", TABLES)
def test_a_table_is_the_data(table: str) -> None:
    before, begin, rest = PAGE.read_text(encoding="utf-8").partition(f"<!-- {table} -->\n")
    written, end, after = rest.partition(f"<!-- /{table} -->")
    assert begin
    assert end
    if os.environ.get("WRITE_CLOUDS"):
        PAGE.write_text(before + begin + TABLES[table] + end + after, encoding="utf-8")
    else:
        assert written == TABLES[table], "run this test with WRITE_CLOUDS=1"

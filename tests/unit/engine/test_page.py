"""docs/engine.md says what the engine room does."""

from pathlib import Path
from typing import get_args

import pytest

from penstock.engine.connect_arguments import EXTRAS
from penstock.engine.connector import INTERVAL, PRAGMAS, PROBES, USER_TIMEOUT
from penstock.pool import FailureReason
from penstock.settings import Driver, Proxy, TlsMode
from penstock.settings.proxies import poolers_among

PAGE = (Path(__file__).parents[3] / "docs" / "engine.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("reason", FailureReason)
def test_every_reason_of_a_failure_has_a_line(reason: FailureReason) -> None:
    assert f"\n| `{reason}` | " in PAGE


@pytest.mark.parametrize("driver", get_args(Driver))
def test_every_driver_has_a_line_with_its_extra(driver: Driver) -> None:
    package = f"penstock[{EXTRAS[driver]}]" if driver in EXTRAS else "penstock"
    assert f" | {driver} | `{package}` | " in PAGE


@pytest.mark.parametrize("mode", TlsMode)
def test_every_tls_mode_has_a_line(mode: TlsMode) -> None:
    assert f"\n| `{mode}` | " in PAGE


@pytest.mark.parametrize("proxy", Proxy)
def test_every_proxy_is_named_with_its_kind(proxy: Proxy) -> None:
    poolers, tunnels = PAGE.split("## Behind a proxy")[1].split("The other proxies")
    assert f"`{proxy}`" in (poolers if poolers_among([proxy]) else tunnels)


def test_the_keepalive_numbers_are_those_in_force() -> None:
    assert f"| `TCP_KEEPINTVL` | {INTERVAL} s |" in PAGE
    assert f"| `TCP_KEEPCNT` | {PROBES} |" in PAGE
    assert f"| `TCP_USER_TIMEOUT` (Linux) | {USER_TIMEOUT} s |" in PAGE


@pytest.mark.parametrize("pragma", PRAGMAS)
def test_every_pragma_is_named(pragma: str) -> None:
    assert f"`{pragma}`" in PAGE

"""A proxy's idle timeout decides when a connection is replaced."""

import pytest
from tests.told import numbers

from penstock.errors import SettingsError
from penstock.settings import DatabaseSettings, Proxy
from penstock.settings.profiles import PROXIES

URL = "postgresql://user:password@localhost/app"
LIMITED = [proxy for proxy in Proxy if PROXIES[proxy].idle_timeout is not None]
UNLIMITED = [proxy for proxy in Proxy if PROXIES[proxy].idle_timeout is None]


def test_every_proxy_has_its_limit_and_the_source_of_it() -> None:
    assert set(PROXIES) == set(Proxy)
    assert all(len(limit.source) > 20 for limit in PROXIES.values())


@pytest.mark.parametrize(
    ("proxy", "recycle"),
    [
        ("aws-network-load-balancer", 262),
        ("aws-rds-proxy", 1350),
        ("azure-load-balancer", 180),
        ("cloud-sql-auth-proxy", 450),
        ("neon", 225),
    ],
)
def test_a_connection_is_replaced_at_three_quarters_of_the_idle_timeout(
    proxy: str, recycle: int
) -> None:
    settings = DatabaseSettings.of(URL, environment="production", proxy=proxy)

    assert settings.pool_recycle == recycle


@pytest.mark.parametrize("proxy", UNLIMITED)
def test_a_proxy_without_an_idle_timeout_leaves_the_profile_its_recycle(proxy: Proxy) -> None:
    assert DatabaseSettings.of(URL, environment="production", proxy=proxy).pool_recycle == 3600


@pytest.mark.parametrize("proxy", Proxy)
def test_behind_a_proxy_connections_are_pinged_unless_told_otherwise(proxy: Proxy) -> None:
    assert DatabaseSettings.of(URL, proxy=proxy).pool_pre_ping
    assert not DatabaseSettings.of(URL, proxy=proxy, pool_pre_ping=False).pool_pre_ping


@pytest.mark.parametrize("proxy", Proxy)
def test_tcp_keepalive_comes_before_the_idle_timeout(proxy: Proxy) -> None:
    limit = PROXIES[proxy].idle_timeout

    assert DatabaseSettings.of(URL, proxy=proxy).tcp_keepalive == min(
        300, int((limit or 400) * 0.75)
    )


@pytest.mark.parametrize("proxy", LIMITED)
def test_an_explicit_recycle_below_the_idle_timeout_is_taken(proxy: Proxy) -> None:
    highest = (PROXIES[proxy].idle_timeout or 0) - 1

    assert DatabaseSettings.of(URL, proxy=proxy, pool_recycle=highest).pool_recycle == highest


@pytest.mark.parametrize("proxy", LIMITED)
def test_an_explicit_recycle_at_the_idle_timeout_is_refused_with_both_numbers(
    proxy: Proxy,
) -> None:
    limit = PROXIES[proxy].idle_timeout or 0

    with pytest.raises(SettingsError) as refused:
        DatabaseSettings.of(URL, proxy=proxy, pool_recycle=limit)
    assert str(refused.value).startswith(f"pool_recycle={limit}: {proxy} ")
    expected = [limit, 1, limit - 1, PROXIES[proxy].pool_recycle]
    assert numbers(str(refused.value))[1:] == [str(number) for number in expected]


@pytest.mark.parametrize("proxy", Proxy)
def test_statements_are_not_cached_where_clients_share_server_connections(proxy: Proxy) -> None:
    shared = proxy in {Proxy.AZURE_PGBOUNCER, Proxy.PGBOUNCER, Proxy.SUPAVISOR}

    assert DatabaseSettings.of(URL, proxy=proxy).statement_cache_size == (0 if shared else 100)
    assert DatabaseSettings.of(URL, proxy=proxy, statement_cache_size=7).statement_cache_size == 7


def test_a_pool_does_not_keep_a_database_awake_that_sleeps_when_nobody_uses_it() -> None:
    settings = DatabaseSettings.of(URL, environment="production", proxy="neon")
    assert (settings.keepalive, settings.min_idle) == (0, 0)
    awake = DatabaseSettings.of(URL, environment="production", proxy="neon", min_idle=1)
    assert awake.min_idle == 1

"""What stands in between decides when a connection is replaced, and what may be kept on it."""

from itertools import combinations
from typing import Any

import pytest
from tests.told import numbers

from penstock.errors import SettingsError
from penstock.settings import DatabaseSettings, Environment, Proxy, SizePreset
from penstock.settings.proxies import PROXIES, IdleEnd, PoolMode, least_patient, poolers_among

URL = "postgresql://user:password@localhost/app"
LIMITED = [proxy for proxy in Proxy if PROXIES[proxy].idle_timeout is not None]
UNLIMITED = [proxy for proxy in Proxy if proxy not in LIMITED]
POOLERS = poolers_among(Proxy)
KEEPING = {Proxy.NEON}
"""Poolers behind which prepared statements are kept by default."""


def behind(*proxies: str, **overrides: Any) -> DatabaseSettings:
    return DatabaseSettings.of(URL, **{"environment": "production", "proxy": proxies, **overrides})


@pytest.mark.parametrize("proxy", Proxy)
def test_every_proxy_has_sources_and_a_limit_exactly_where_one_is_known(proxy: Proxy) -> None:
    profile = PROXIES[proxy]

    assert profile.sources
    assert all(source.startswith("https://") for source in profile.sources)
    assert (profile.idle_timeout is None) == (profile.idle_end in {IdleEnd.KEPT, IdleEnd.UNKNOWN})
    assert bool(profile.refuses) == (proxy in POOLERS)
    assert bool(profile.pins) == (profile.pool_mode is PoolMode.PINNED)


@pytest.mark.parametrize(
    ("proxy", "recycle"),
    [
        ("alloydb-auth-proxy", 450),
        ("aws-nat-gateway", 262),
        ("aws-nlb", 262),
        ("aws-rds", 262),
        ("aws-rds-proxy", 1350),
        ("azure-load-balancer", 180),
        ("cloud-sql-auth-proxy", 450),
        ("fly-pgbouncer", 225),
        ("gcp-vpc", 450),
        ("neon", 225),
    ],
)
def test_a_connection_is_replaced_at_three_quarters_of_the_idle_timeout(
    proxy: str, recycle: int
) -> None:
    assert behind(proxy).pool_recycle == recycle


@pytest.mark.parametrize("proxy", UNLIMITED)
def test_a_proxy_without_an_idle_timeout_leaves_the_profile_its_recycle(proxy: Proxy) -> None:
    assert behind(proxy).pool_recycle == 3600


@pytest.mark.parametrize("proxy", Proxy)
def test_each_of_the_three_that_guard_against_idle_ends_comes_before_the_limit(
    proxy: Proxy,
) -> None:
    settings, limit = behind(proxy), PROXIES[proxy].idle_timeout

    assert settings.pool_pre_ping
    assert not behind(proxy, pool_pre_ping=False).pool_pre_ping
    assert settings.tcp_keepalive == min(300, int((limit or 400) * 0.75))
    assert settings.keepalive == (0 if proxy is Proxy.NEON else 120)
    assert 2 * settings.keepalive <= (limit or 240)
    assert settings.idle_before_ping < (limit or 400)


@pytest.mark.parametrize("proxy", LIMITED)
def test_a_setting_of_one_s_own_counts_below_the_idle_timeout(proxy: Proxy) -> None:
    highest = (PROXIES[proxy].idle_timeout or 0) - 1

    assert behind(proxy, pool_recycle=highest).pool_recycle == highest
    assert behind(proxy, tcp_keepalive=highest).tcp_keepalive == highest
    assert behind(proxy, keepalive=highest + 0.5).keepalive == highest + 0.5
    assert behind(proxy, keepalive=0).keepalive == 0


@pytest.mark.parametrize("proxy", LIMITED)
def test_a_setting_at_the_idle_timeout_is_refused_with_both_numbers(proxy: Proxy) -> None:
    limit = PROXIES[proxy].idle_timeout or 0
    expectations: dict[str, list[int | None]] = {
        "pool_recycle": [limit, 1, limit - 1, PROXIES[proxy].pool_recycle],
        "tcp_keepalive": [limit, 10, limit - 1],
        "keepalive": [limit, limit - 1, 0],
    }
    for name, expected in expectations.items():
        with pytest.raises(SettingsError) as refused:
            behind(proxy, **{name: limit})
        assert str(refused.value).startswith(f"{name}={limit}: {proxy} ")
        assert numbers(str(refused.value))[1:] == [str(number) for number in expected]


@pytest.mark.parametrize("proxy", Proxy)
def test_statements_are_kept_where_each_client_finds_its_own_again(proxy: Proxy) -> None:
    kept = proxy not in POOLERS or proxy in KEEPING

    assert behind(proxy).statement_cache_size == (100 if kept else 0)
    assert behind(proxy, statement_cache_size=7).statement_cache_size == 7


@pytest.mark.parametrize("proxy", Proxy)
def test_a_pool_behind_a_pooler_is_small_and_has_no_overflow(proxy: Proxy) -> None:
    sizes = {
        environment: (settings.pool_size, settings.max_overflow)
        for environment in ("development", "testing", "production")
        for settings in [behind(proxy, environment=environment)]
    }

    assert list(sizes.values()) == (
        [(5, 0), (2, 0), (10, 0)] if proxy in POOLERS else [(5, 10), (2, 5), (20, 30)]
    )
    chosen = behind(proxy, pool_size=30, max_overflow=7)
    assert (chosen.pool_size, chosen.max_overflow) == (30, 7)


@pytest.mark.parametrize("proxy", [None, *Proxy])
@pytest.mark.parametrize("environment", Environment)
@pytest.mark.parametrize("preset", [None, *SizePreset])
def test_a_proxy_makes_no_number_larger_than_it_is_without(
    proxy: Proxy | None, environment: Environment, preset: SizePreset | None
) -> None:
    alone = DatabaseSettings.of(URL, environment=environment, preset=preset)
    settings = DatabaseSettings.of(URL, environment=environment, preset=preset, proxy=proxy)
    pools = proxy in POOLERS
    recycle = (proxy and PROXIES[proxy].pool_recycle) or alone.pool_recycle

    assert settings.pool_size == (min(alone.pool_size, 10) if pools else alone.pool_size)
    assert settings.max_overflow == (0 if pools else alone.max_overflow)
    assert settings.pool_recycle == min(alone.pool_recycle, recycle)
    for name in ("keepalive", "tcp_keepalive", "statement_cache_size", "min_idle"):
        assert getattr(settings, name) <= getattr(alone, name)


def test_a_pool_does_not_keep_a_database_awake_that_sleeps_when_nobody_uses_it() -> None:
    settings = behind("neon")

    assert (settings.keepalive, settings.min_idle) == (0, 0)
    assert behind("neon", min_idle=1).min_idle == 1


def test_behind_two_proxies_the_more_careful_value_of_each_setting_counts() -> None:
    alone = {proxy: behind(proxy) for proxy in Proxy}
    for one, other in combinations(Proxy, 2):
        both = behind(one, other)

        assert both == behind(other, one).model_copy(update={"proxy": (one, other)})
        for name in (
            *("pool_recycle", "keepalive", "tcp_keepalive", "statement_cache_size"),
            *("pool_size", "max_overflow", "min_idle"),
        ):
            least = min(getattr(alone[one], name), getattr(alone[other], name))
            assert getattr(both, name) == least, (one, other, name)


def test_the_shortest_of_several_limits_is_the_one_that_refuses() -> None:
    assert least_patient([Proxy.PGBOUNCER, Proxy.GCP_VPC, Proxy.AWS_NLB]) is Proxy.AWS_NLB
    with pytest.raises(SettingsError, match=r"^pool_recycle=400: aws-nlb ends"):
        behind("pgbouncer", "cloud-sql-auth-proxy", "aws-nlb", pool_recycle=400)


@pytest.mark.parametrize(
    "given",
    [
        "aws-nlb,pgbouncer",
        " aws-nlb , pgbouncer ",
        ["aws-nlb", "pgbouncer"],
        (Proxy.AWS_NLB, Proxy.PGBOUNCER),
    ],
)
def test_several_are_given_as_text_or_as_a_sequence(given: object) -> None:
    settings = DatabaseSettings.of(URL, proxy=given)

    assert settings.proxy == (Proxy.AWS_NLB, Proxy.PGBOUNCER)
    assert settings.poolers == (Proxy.PGBOUNCER,)
    assert (settings.pool_recycle, settings.statement_cache_size) == (262, 0)


@pytest.mark.parametrize(
    ("given", "shown", "hint"),
    [
        ("pgbuncer", "'pgbuncer'", "did you mean pgbouncer?"),
        ("PgBouncer", "'PgBouncer'", "did you mean pgbouncer?"),
        ("aws_rds_proxy", "'aws_rds_proxy'", "did you mean aws-rds-proxy?"),
        ("aws-nlb,pgbuncer", "'aws-nlb,pgbuncer'", "did you mean pgbouncer?"),
        (["aws-nlb", "pgbuncer"], "'aws-nlb,pgbuncer'", "did you mean pgbouncer?"),
        ("aws-nlb,", "'aws-nlb,'", "an entry is empty"),
        ("aws-nlb,,pgbouncer", "'aws-nlb,,pgbouncer'", "an entry is empty"),
        (",", "','", "an entry is empty"),
        ([""], "''", "an entry is empty"),
        ('["aws-nlb", "pgbouncer"]', '\'["aws-nlb", "pgbouncer"]\'', "did you mean aws-nlb?"),
        ("haproxy", "'haproxy'", "'haproxy' is none"),
        (7, "7", "is accepted"),
    ],
)
def test_a_wrong_name_is_refused_as_typed_with_all_that_are_known(
    given: object, shown: str, hint: str
) -> None:
    with pytest.raises(SettingsError) as refused:
        DatabaseSettings.of(URL, proxy=given)

    assert str(refused.value).startswith(f"proxy={shown}: one of {', '.join(Proxy)}, ")
    assert str(refused.value).endswith(hint)


@pytest.mark.parametrize("given", [None, "", "  ", [], ()])
def test_what_is_empty_names_none(given: object) -> None:
    assert DatabaseSettings.of(URL, proxy=given).proxy == ()
    assert DatabaseSettings.of("sqlite:///app.db", proxy=given).proxy == ()


@pytest.mark.parametrize("proxy", Proxy)
@pytest.mark.parametrize("driver", ["asyncmy", "aiomysql"])
def test_a_pooler_of_postgresql_is_refused_for_mysql(proxy: Proxy, driver: str) -> None:
    url, network = URL.replace("postgresql", f"mysql+{driver}"), Proxy.AWS_NLB
    serves_both = {Proxy.AWS_RDS_PROXY, Proxy.CLOUD_SQL_AUTH_PROXY} | {
        each for each in Proxy if each not in POOLERS and "postgres" not in each
    }
    if proxy in serves_both - {Proxy.ALLOYDB_AUTH_PROXY}:
        assert DatabaseSettings.of(url, proxy=proxy).proxy == (proxy,)
    else:
        with pytest.raises(SettingsError, match=rf"^proxy='{network},{proxy}': {proxy} stands"):
            DatabaseSettings.of(url, proxy=f"{network},{proxy}")


@pytest.mark.parametrize("proxy", Proxy)
def test_a_server_connection_is_kept_for_a_client_by_what_pins_or_pools_sessions(
    proxy: Proxy,
) -> None:
    mode = PROXIES[proxy].pool_mode

    assert behind(proxy).keeps_server_sessions == (mode in {PoolMode.SESSION, PoolMode.PINNED})
    assert not behind(proxy, "pgbouncer").keeps_server_sessions

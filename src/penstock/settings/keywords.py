"""The settings of a database as keywords, for editors and type checkers."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal, TypedDict

from penstock.settings.profiles import (
    BudgetPolicy,
    Environment,
    IsolationLevel,
    NestedCheckoutPolicy,
    SizePreset,
    TlsMode,
)
from penstock.settings.proxies import Proxy


class SettingsKeywords(TypedDict, total=False):
    """Each setting by the name of its field in :class:`DatabaseSettings`; all may be left out.

    ``docs/settings.md`` has the meaning, the default and the range of each.
    """

    credentials_file: str | Path | None
    migrations_url: object
    environment: Environment | str
    preset: SizePreset | Literal["development", "small", "medium", "high", "container"] | None
    proxy: Proxy | str | Sequence[Proxy | str] | None
    pool_size: int
    max_overflow: int
    pool_timeout: float
    pool_recycle: int
    pool_pre_ping: bool
    min_idle: int
    max_waiting: int | Literal["off"] | None
    codel_target: float | Literal["off"] | None
    codel_interval: float
    overflow_idle: float
    keepalive: float
    idle_before_ping: float
    leak_after: float | Literal["off"] | None
    reclaim_leaks: bool
    nested_checkout: NestedCheckoutPolicy | Literal["allow", "warn", "refuse"]
    autoflush: bool
    isolation_level: IsolationLevel | str | None
    echo: bool
    connect_timeout: float
    command_timeout: float
    statement_cache_size: int
    application_name: str
    jit: bool
    server_settings: Mapping[str, str]
    requires_context: Sequence[str]
    replicas: str | Sequence[str]
    replica_max_lag: float
    replica_wait: float
    replica_primary_share: float
    replica_check_interval: float
    position_key: str | None
    position_lifetime: float
    hold_writes: float
    tls: TlsMode | Literal["disable", "prefer", "require", "verify-ca", "verify-full"] | None
    tls_ca_file: str | Path | None
    tls_cert_file: str | Path | None
    tls_key_file: str | Path | None
    tcp_keepalive: int
    workers: int
    instances: int
    plan: str | Path | None
    connection_reserve: float
    budget: BudgetPolicy | Literal["warn", "refuse", "off"]
    fleet: bool
    fleet_weight: int
    fleet_surge: float
    utilisation_warning: float
    slow_query: float | Literal["off"] | None
    batch_reads: bool
    telemetry: bool
    telemetry_dir: str | Path | None

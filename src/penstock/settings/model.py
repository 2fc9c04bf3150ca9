"""The settings of one database: complete, checked, and frozen."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Self, cast

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic_core import PydanticCustomError

from penstock.settings.profiles import (
    PRESETS,
    BudgetPolicy,
    Environment,
    IsolationLevel,
    NestedCheckoutPolicy,
    SizePreset,
    TlsMode,
    filled_in,
)
from penstock.settings.proxies import (
    PROXIES,
    PoolMode,
    Proxy,
    check_idle_limit,
    only_postgresqls,
    poolers_among,
)
from penstock.settings.replicas import PositionKey, Replicas, sources
from penstock.settings.url import (
    SCHEMES,
    DatabaseUrl,
    Driver,
    check_ca_file,
    check_readable,
    move_tls,
    text_of,
)
from penstock.settings.validation import (
    RECYCLE,
    SECONDS,
    Accepted,
    ApplicationName,
    Folder,
    Proxies,
    Real,
    RealOrOff,
    RequiredContext,
    ServerSettings,
    Unit,
    Whole,
    WholeOrOff,
    refusal,
)

# The name by which uvicorn and gunicorn learn how many workers to start.
WORKERS_VARIABLE = "WEB_CONCURRENCY"


class DatabaseSettings(BaseModel):
    """How to reach one database and how to pool its connections.

    Built by ``DatabaseSettings.of`` or ``settings_from_environment``, which fill in what was
    not set. Frozen; comparable, but not hashable. Each setting is explained in
    ``docs/settings.md``.
    """

    model_config = ConfigDict(
        frozen=True, extra="forbid", hide_input_in_errors=True, allow_inf_nan=False
    )

    url: Annotated[SecretStr, Accepted(f"a URL whose scheme is one of {', '.join(SCHEMES)}")] = (
        Field(description="Where the database is and who connects.")
    )
    credentials_file: Annotated[Path | None, Accepted("the path of a readable file")] = Field(
        None, description="A file with the password, read again when it changes."
    )
    migrations_url: Annotated[SecretStr | None, Accepted("a URL like that of url")] = Field(
        None, description="Where migrations connect, if not by the service's own URL."
    )
    environment: Environment = Field(
        Environment.DEVELOPMENT, description="Whose profile of pool settings applies."
    )
    preset: SizePreset | None = Field(
        None, description="A pool size by name, in place of the profile's."
    )
    proxy: Proxies = Field((), description="What stands between the service and the database.")
    pool_size: Whole = Field(ge=1, le=1000, description="Connections that the pool keeps.")
    max_overflow: Whole = Field(
        ge=0, le=1000, description="Connections that it opens above them in a burst."
    )
    pool_timeout: Annotated[Real, SECONDS] = Field(
        gt=0, le=600, description="How long a request waits for a connection."
    )
    pool_recycle: Annotated[Whole, Accepted(RECYCLE)] = Field(
        ge=-1, le=86400, description="The age at which a connection is replaced."
    )
    pool_pre_ping: bool = Field(
        description="Whether a connection is tested when it is checked out."
    )
    min_idle: Whole = Field(ge=0, le=1000, description="Connections that are kept ready.")
    max_waiting: WholeOrOff = Field(
        None, ge=0, le=100_000, description="Requests that may wait for a connection at once."
    )
    codel_target: Annotated[RealOrOff, SECONDS] = Field(
        gt=0, le=600, description="The wait above which the pool counts as overloaded."
    )
    codel_interval: Annotated[Real, SECONDS] = Field(
        gt=0, le=600, description="How long every wait has to be above it."
    )
    overflow_idle: Annotated[Real, SECONDS] = Field(
        60.0, gt=0, le=86400, description="How long an overflow connection is kept unused."
    )
    keepalive: Annotated[Real, SECONDS] = Field(
        120.0, ge=0, le=86400, description="Idleness after which the pool pings in the background."
    )
    idle_before_ping: Annotated[Real, SECONDS] = Field(
        30.0, ge=0, le=86400, description="Idleness after which a connection is tested first."
    )
    leak_after: Annotated[RealOrOff, SECONDS] = Field(
        gt=0, le=86400, description="How long a connection is checked out before that is reported."
    )
    reclaim_leaks: bool = Field(
        default=False, description="Whether what is reported is also taken back by force."
    )
    nested_checkout: NestedCheckoutPolicy = Field(
        description="What happens to a task that would wait for itself."
    )
    autoflush: bool = Field(
        default=False, description="Whether a session sends what is pending before it reads."
    )
    isolation_level: IsolationLevel | None = Field(
        None, description="The isolation level of transactions that ask for none."
    )
    echo: bool = Field(description="Whether every statement is logged.")
    connect_timeout: Annotated[Real, SECONDS] = Field(
        10.0, gt=0, le=120, description="How long opening a new connection may take."
    )
    command_timeout: Annotated[Real, SECONDS] = Field(
        60.0, gt=0, le=86400, description="How long one statement may take."
    )
    statement_cache_size: Annotated[Whole, Unit("statements")] = Field(
        100, ge=0, le=500, description="Prepared statements kept on each connection."
    )
    application_name: ApplicationName = Field(
        "penstock", description="The name under which the server lists the connections."
    )
    jit: bool = Field(
        default=False, description="Whether PostgreSQL may compile queries just in time."
    )
    server_settings: ServerSettings = Field(
        default_factory=dict,
        repr=False,
        description="PostgreSQL's own settings, set when a connection starts.",
    )
    requires_context: RequiredContext = Field(
        (), description="Settings without which no transaction may begin."
    )
    replicas: Replicas = Field((), repr=False, description="The servers that only read.")
    replica_max_lag: Annotated[Real, SECONDS] = Field(
        10.0, gt=0, le=3600, description="How far behind a replica may be that is read from."
    )
    replica_wait: Annotated[Real, SECONDS] = Field(
        0.05, ge=0, le=10, description="How long a read waits for a replica to have a write."
    )
    replica_primary_share: Real = Field(
        0.5, gt=0, le=1, description="The share of the primary's pool for reads of no replica."
    )
    replica_check_interval: Annotated[Real, SECONDS] = Field(
        1.0, ge=0.05, le=60, description="How often each server's role and position are looked at."
    )
    position_key: PositionKey = Field(
        None, description="The secret that signs the tokens of read-your-writes."
    )
    position_lifetime: Annotated[Real, SECONDS] = Field(
        60.0, ge=1, le=86400, description="How long such a token counts."
    )
    hold_writes: Annotated[Real, SECONDS] = Field(
        3.0, ge=0, le=60, description="How long a write waits for a primary to be there again."
    )
    tls: TlsMode | None = Field(
        None, description="How the connection is encrypted; unset, the driver decides."
    )
    tls_ca_file: Annotated[Path | None, Accepted("the path of a readable file")] = Field(
        None, description="The authorities that the server's certificate is checked against."
    )
    tls_cert_file: Annotated[Path | None, Accepted("the path of a readable file")] = Field(
        None, description="The client's own certificate, which the server asks for."
    )
    tls_key_file: Annotated[Path | None, Accepted("the path of a readable file")] = Field(
        None, description="The private key of that certificate."
    )
    tcp_keepalive: Annotated[Whole, SECONDS] = Field(
        ge=10, le=7200, description="Silence after which TCP asks whether the server is alive."
    )
    workers: Whole = Field(
        1, ge=1, le=1024, description="Processes of this service on one machine."
    )
    instances: Whole = Field(
        1, ge=1, le=10000, description="Machines, containers or pods that run the service."
    )
    connection_reserve: Real = Field(
        0.25, ge=0, le=0.9, description="The share of the server's connections left to others."
    )
    plan: Annotated[Path | None, Accepted("the path of a readable file")] = Field(
        None, description="The capacity plan from which drift is reported."
    )
    budget: BudgetPolicy = Field(
        BudgetPolicy.WARN, description="What happens at start when the connections do not fit."
    )
    fleet: bool = Field(
        default=False,
        description="Whether the processes that share the server divide its connections.",
    )
    fleet_weight: Whole = Field(
        1, ge=1, le=1000, description="Each process's share, in proportion to the others' weights."
    )
    fleet_surge: Real = Field(
        0.03,
        ge=0,
        le=0.5,
        description="The share of the fleet's connections left to those that join.",
    )
    utilisation_warning: Real = Field(
        0.8, ge=0, le=1, description="The share of the pool in use at which a warning is logged."
    )
    slow_query: Annotated[RealOrOff, SECONDS] = Field(
        0.1, gt=0, le=3600, description="How long a statement takes before it is logged."
    )
    batch_reads: bool = Field(
        default=True,
        description="Whether reads of one statement leave together while others are under way.",
    )
    telemetry: bool = Field(
        default=True,
        description="Whether numbers are kept for the live page, metrics and diagnosis.",
    )
    telemetry_dir: Annotated[
        Folder | None, Accepted("the path of a folder, which need not exist,")
    ] = Field(None, description="Where the workers of one machine keep those numbers.")

    @classmethod
    def of(cls, url: object, **overrides: object) -> Self:
        """Settings from Python.

        Args:
            url: Where the database is, such as ``postgresql://user:password@host:5432/name``, as
                text, a ``SecretStr``, or a URL object of SQLAlchemy's or Pydantic's.
            **overrides: Any other setting, by its field's name. What is left out comes from
                ``proxy``, ``preset`` and ``environment``, in this order.

        Returns:
            Complete settings.

        Raises:
            SettingsError: A value is wrong; every wrong one has a line in the message.
        """
        url = text_of(url)
        url = SecretStr(url) if isinstance(url, str) else url
        return cls.accept({**overrides, "url": url})

    @classmethod
    def accept(cls, given: Mapping[str, object], names: Mapping[str, str] | None = None) -> Self:
        """Settings from any source.

        Args:
            given: What was set, by field name. Without ``workers``, ``WEB_CONCURRENCY`` counts.
            names: Each field's name where it was set, for the messages; None for its own.

        Returns:
            Complete settings.

        Raises:
            SettingsError: A value is wrong or the URL is missing.
        """
        complete = dict(given)
        named = dict(names or {field: field for field in cls.model_fields})
        if "workers" not in given and WORKERS_VARIABLE in os.environ:
            complete["workers"] = os.environ[WORKERS_VARIABLE]
            named["workers"] = WORKERS_VARIABLE
        for parameter, field in move_tls(complete).items():
            named[field] = f"{named['url']}, {parameter}"
        try:
            return cls.model_validate(complete)
        except ValidationError as error:
            refused = refusal(error, cls.model_fields, named)
        raise refused

    @property
    def driver(self) -> Driver:
        """The Python package that talks to the database."""
        scheme = self.url.get_secret_value().partition("://")[0]
        return cast("Driver", scheme.partition("+")[2])

    @property
    def keeps_connections(self) -> bool:
        """Whether a connection outlives the request that opened it; not so in serverless."""
        return self.environment is not Environment.SERVERLESS

    @property
    def is_clustered(self) -> bool:
        """Whether there are several servers, of which one writes."""
        url = DatabaseUrl.parse(self.url.get_secret_value())
        return (
            bool(self.replicas)
            or "," in (url.parameter("host") or "")
            or ([name for name, _ in url.parameters].count("host") > 1)
        )

    @property
    def poolers(self) -> tuple[Proxy, ...]:
        """What ``proxy`` names that shares server connections among clients."""
        return poolers_among(self.proxy)

    @property
    def keeps_server_sessions(self) -> bool:
        """Whether each pooler is said to leave a client with state there its server connection."""
        modes = {PROXIES[pooler].pool_mode for pooler in self.poolers}
        return bool(modes) and PoolMode.TRANSACTION not in modes

    @property
    def names_environment(self) -> bool:
        """Whether the environment was chosen; else it is development's, with care."""
        return "environment" in self.model_fields_set

    @property
    def shows_values(self) -> bool:
        """Whether statements' values may be in the log and in the text of errors.

        They are people's data: only a developer who sets this sees them.
        """
        return self.environment is Environment.DEVELOPMENT and self.names_environment

    @model_validator(mode="before")
    @classmethod
    def _fill_in(cls, given: Any) -> Any:
        return filled_in(given) if isinstance(given, Mapping) else given

    @field_validator("migrations_url", mode="before")
    @classmethod
    def _check_migrations_url(cls, value: object) -> SecretStr | None:
        return None if value is None else cls._check_url(text_of(value))

    @field_validator("url", mode="before")
    @classmethod
    def _check_url(cls, value: object) -> SecretStr:
        text = value.get_secret_value() if isinstance(value, SecretStr) else value
        if not isinstance(text, str):
            raise PydanticCustomError("url", "not text")
        url = DatabaseUrl.parse(text)
        url.check_query()
        return SecretStr(url.text())

    @field_validator(
        "credentials_file",
        "proxy",
        "isolation_level",
        "tls",
        "tls_ca_file",
        "tls_cert_file",
        "tls_key_file",
        "server_settings",
        "requires_context",
        "replicas",
        "fleet",
    )
    @classmethod
    def _check_database(cls, value: object, info: ValidationInfo) -> object:
        database = _database(info)
        if value and database == "sqlite":
            raise ValueError("SQLite has no server to connect to: leave it out")
        is_postgresqls = info.field_name in {
            "server_settings",
            "requires_context",
            "replicas",
            "fleet",
        }
        if value and is_postgresqls and database == "mysql":
            raise ValueError("it is understood for PostgreSQL only")
        return value

    @field_validator("proxy")
    @classmethod
    def _check_proxy(cls, value: tuple[Proxy, ...], info: ValidationInfo) -> tuple[Proxy, ...]:
        if _database(info) == "mysql" and (others := only_postgresqls(value)):
            raise ValueError(f"{', '.join(others)} stands in front of PostgreSQL only")
        return value

    @field_validator("replicas")
    @classmethod
    def _check_replicas(
        cls, value: tuple[SecretStr, ...], info: ValidationInfo
    ) -> tuple[SecretStr, ...]:
        if value and info.data.get("environment") is Environment.SERVERLESS:
            raise ValueError("serverless keeps no connections by which replicas could be looked at")
        if value and (url := info.data.get("url")) is not None:
            sources(value, url.get_secret_value())
        return value

    @field_validator("position_lifetime")
    @classmethod
    def _check_lifetime(cls, value: float, info: ValidationInfo) -> float:
        longest = info.data.get("replica_max_lag")
        if longest is not None and value <= longest:
            raise ValueError(
                f"a replica may be behind for replica_max_lag={longest:g}: more than that is "
                "accepted, or a write is forgotten before each replica has it"
            )
        return value

    @field_validator("fleet")
    @classmethod
    def _check_fleet(cls, value: bool, info: ValidationInfo) -> bool:
        if value and info.data.get("environment") is Environment.SERVERLESS:
            raise ValueError("serverless keeps no connections that could be divided")
        return value

    @field_validator("pool_size")
    @classmethod
    def _check_preset(cls, value: int, info: ValidationInfo) -> int:
        preset = info.data.get("preset")
        if preset is not None and not (size := PRESETS[preset]).fits(value):
            raise ValueError(
                f"with the preset {preset}, a whole number from {size.pool_size} to "
                f"{size.largest_pool_size} is accepted"
            )
        return value

    @field_validator("min_idle")
    @classmethod
    def _check_room(cls, value: int, info: ValidationInfo) -> int:
        size = info.data.get("pool_size")
        if size is not None and value > size:
            raise ValueError(f"a whole number from 0 to pool_size, which is {size}, is accepted")
        return value

    @field_validator("reclaim_leaks")
    @classmethod
    def _check_leaks(cls, value: bool, info: ValidationInfo) -> bool:
        if value and "leak_after" in info.data and info.data["leak_after"] is None:
            raise ValueError("it takes effect with leak_after only, which is off")
        return value

    @field_validator("pool_recycle", "keepalive", "tcp_keepalive")
    @classmethod
    def _check_idle_limit(cls, value: float, info: ValidationInfo) -> float:
        name = info.field_name or ""
        if name == "pool_recycle" and value == 0:
            raise ValueError(f"{RECYCLE} is accepted")
        check_idle_limit(name, value, info.data.get("proxy", ()))
        return value

    @field_validator("credentials_file", "plan")
    @classmethod
    def _check_file(cls, value: Path | None) -> Path | None:
        if value is not None:
            check_readable(value)
        return value

    @field_validator("tls_cert_file", "tls_key_file")
    @classmethod
    def _check_client_file(cls, value: Path | None, info: ValidationInfo) -> Path | None:
        if value is not None:
            check_readable(value)
            if info.data.get("tls", TlsMode.REQUIRE) not in _WITH_CLIENT_CERTIFICATE:
                raise ValueError("it takes effect with tls require, verify-ca or verify-full only")
            if info.field_name == "tls_key_file" and info.data.get("tls_cert_file", "") is None:
                raise ValueError("it takes effect with tls_cert_file only")
        return value

    @field_validator("tls_ca_file")
    @classmethod
    def _check_ca_file(cls, value: Path | None, info: ValidationInfo) -> Path | None:
        if value is not None:
            # A wrong tls has its own line.
            tls = info.data.get("tls", TlsMode.VERIFY_FULL)
            check_ca_file(value, is_used=tls is not None and tls.verifies)
        return value


_WITH_CLIENT_CERTIFICATE = (TlsMode.REQUIRE, TlsMode.VERIFY_CA, TlsMode.VERIFY_FULL)


def _database(info: ValidationInfo) -> str | None:
    url = info.data.get("url")
    return url.get_secret_value().partition("+")[0] if url else None

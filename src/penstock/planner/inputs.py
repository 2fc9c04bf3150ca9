"""What a plan is made from, checked, and kept in a file."""

import json
import tomllib
from collections.abc import Mapping
from math import ceil, inf
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
)
from pydantic_core import InitErrorDetails, PydanticCustomError

from penstock.base_error import SettingsError
from penstock.budget import ConnectionBudget, ServerLimits
from penstock.planner.durations import LARGEST_P99
from penstock.planner.hold import HoldTime
from penstock.planner.units import Duration, OptionalDuration, Size, WorkMem, shown
from penstock.settings import (
    PROXIES,
    Accepted,
    DatabaseSettings,
    PoolMode,
    Proxies,
    Real,
    Unit,
    Whole,
    WholeOrOff,
    least_patient,
    refusal,
)

_HOUR = 3600.0
LARGEST_RATE = 1e6
LARGEST_POOL = 1000
"""Largest ``pool_size`` and ``max_overflow`` that the settings accept."""
_Rate = Annotated[
    float | None, Accepted(f"a number of requests per second above 0 and up to {LARGEST_RATE:.0f}")
]

_ProxiesOrNone = Annotated[Proxies, BeforeValidator(lambda value: () if value == "none" else value)]


class PlanInputs(BaseModel):
    """What is known of a service, its deployment and its server.

    Durations are seconds or text with a unit (``"4ms"``), sizes are bytes or text (``"8GB"``).
    ``docs/planning.md`` explains each.
    """

    model_config = ConfigDict(
        frozen=True, extra="forbid", hide_input_in_errors=True, allow_inf_nan=False
    )

    rate: _Rate = Field(
        None, gt=0, le=LARGEST_RATE, description="Requests per second of the whole service."
    )
    p99: OptionalDuration = Field(
        None,
        gt=0,
        le=_HOUR,
        description="In place of rate: the 99th percentile of wait and hold time to keep.",
    )
    query_time: OptionalDuration = Field(
        None, gt=0, le=_HOUR, description="Mean time of one query, as the service sees it."
    )
    query_p99: OptionalDuration = Field(
        None, gt=0, le=_HOUR, description="99th percentile of that; without it, exponential."
    )
    sample: WholeOrOff = Field(
        None, ge=0, description="Checkouts that the times were measured from."
    )
    queries: Real = Field(1.0, gt=0, le=10_000, description="Queries of each request.")
    code_time: Duration = Field(
        0.0, ge=0, le=_HOUR, description="Time of the code between them, the connection held."
    )
    transaction_time: Duration = Field(
        0.0, ge=0, le=_HOUR, description="Round trips of BEGIN and COMMIT, together."
    )
    connections_per_request: Annotated[Whole, Unit("connections")] = Field(
        1, ge=1, le=100, description="Connections that one request holds at once."
    )
    concurrency: Annotated[Whole, Unit("requests")] = Field(
        40, ge=1, le=100_000, description="Requests that a worker has under way at once."
    )
    workers: Whole = Field(1, ge=1, le=1024, description="Processes of one instance.")
    instances: Whole = Field(1, ge=1, le=10_000, description="Machines, containers or pods.")
    surge: Real = Field(
        1.25, ge=1, le=2, description="Instances during a deployment, as a multiple."
    )
    other_connections: Annotated[Whole, Unit("connections")] = Field(
        3, ge=0, le=100_000, description="Connections of jobs, migrations and the doctor."
    )
    reserve: Real = Field(
        0.25, ge=0, le=0.9, description="Share of the server's connections left to others."
    )
    max_connections: WholeOrOff = Field(
        None, ge=1, le=262_143, description="What the server accepts."
    )
    reserved: Annotated[Whole, Unit("connections")] = Field(
        3, ge=0, le=1000, description="Of these, for superusers and reserved roles."
    )
    cores: WholeOrOff = Field(
        None, ge=1, le=4096, description="Processor cores of the database server."
    )
    spindles: Whole = Field(1, ge=0, le=4096, description="Its disks that seek independently.")
    memory: Size = Field(None, ge=2**20, le=2**46, description="Its memory.")
    work_mem: WorkMem = Field(None, ge=2**16, le=2**40, description="Its work_mem.")
    work_mem_nodes: Whole = Field(
        2, ge=1, le=100, description="Sorts and hashes of one query, each of which may use it."
    )
    utilisation: Real = Field(
        0.75, ge=0.05, le=0.95, description="Largest mean share of the connections in use."
    )
    wait: OptionalDuration = Field(
        0.01, gt=0, le=_HOUR, description="Largest 99th percentile of the wait for a connection."
    )
    proxy: _ProxiesOrNone = Field((), description="What stands between service and database.")
    proxy_idle_timeout: OptionalDuration = Field(
        None, gt=0, le=86_400, description="Idleness after which that closes a connection."
    )
    pool_size: WholeOrOff = Field(
        None, ge=1, le=LARGEST_POOL, description="Fixed; without it, it is planned."
    )
    max_overflow: WholeOrOff = Field(
        None, ge=0, le=LARGEST_POOL, description="Fixed; without it, it is planned."
    )
    pool_timeout: OptionalDuration = Field(
        None, gt=0, le=600, description="Fixed; without it, it is planned."
    )
    statement_timeout: OptionalDuration = Field(
        None, gt=0, le=86_400, description="Longest time of a statement (command_timeout)."
    )
    request_timeout: OptionalDuration = Field(
        None, gt=0, le=86_400, description="After which the server gives a request up."
    )
    balancer_timeout: OptionalDuration = Field(
        None, gt=0, le=86_400, description="After which the load balancer does."
    )
    pool_recycle: OptionalDuration = Field(
        None, gt=0, le=86_400, description="Fixed; without it, it is planned."
    )

    @field_validator("p99")
    @classmethod
    def _check_one_of_both(cls, value: float | None, info: ValidationInfo) -> float | None:
        if value is not None and info.data.get("rate") is not None:
            raise ValueError("the largest rate is looked for: leave the rate out")
        return value

    @field_validator("query_p99")
    @classmethod
    def _check_shape(cls, value: float | None, info: ValidationInfo) -> float | None:
        mean = info.data.get("query_time")
        if value is not None and mean and not mean <= value <= mean * LARGEST_P99:
            raise ValueError(
                f"from the mean, {shown(mean)}, to {LARGEST_P99:.2f} times it, "
                f"{shown(mean * LARGEST_P99)}, is accepted"
            )
        return value

    @classmethod
    def of(cls, given: Mapping[str, object], names: Mapping[str, str] | None = None) -> Self:
        """Return checked inputs.

        Args:
            given: By field name; None counts as left out.
            names: What each is called where it was given, for the messages; None for its own name.

        Raises:
            SettingsError: One is wrong, with a line for each, or one that is needed is missing.
        """
        named = dict(names or {field: field for field in cls.model_fields})
        try:
            made = cls.model_validate({name: x for name, x in given.items() if x is not None})
        except ValidationError as error:
            refused = refusal(_as_given(error, given), cls.model_fields, named)
        else:
            if made.query_time is None:
                raise SettingsError(f"{named['query_time']} is not set: for example 4ms")
            if made.rate is None and made.p99 is None:
                raise SettingsError(
                    f"{named['rate']}, {named['p99']}: give one of the two, such as 800 or 50ms"
                )
            return made
        raise refused

    @classmethod
    def of_settings(cls, settings: DatabaseSettings) -> dict[str, object]:
        """Return what the settings of a database tell beside the sizes, by field name.

        Args:
            settings: Of the database.
        """
        return {
            "workers": settings.workers,
            "instances": settings.instances,
            "reserve": settings.connection_reserve,
            "proxy": settings.proxy,
            "statement_timeout": settings.command_timeout,
        }

    @property
    def hold(self) -> HoldTime:
        """How long a request holds each of its connections."""
        assert self.query_time is not None  # noqa: S101 - of() has seen to it
        return HoldTime.of(
            self.query_time, self.query_p99, self.queries, self.code_time + self.transaction_time
        )

    @property
    def pools(self) -> int:
        """Number of pools: each worker has its own."""
        return self.workers * self.instances

    @property
    def shares_connections(self) -> bool:
        """Whether a pooler stands in between that gives one server connection to many clients."""
        return any(PROXIES[proxy].pool_mode is PoolMode.TRANSACTION for proxy in self.proxy)

    @property
    def server(self) -> ServerLimits | None:
        """What the server accepts; None where it is not known."""
        limit = self.max_connections
        return None if limit is None else ServerLimits(limit, self.reserved)

    @property
    def idle_limit(self) -> float | None:
        """Seconds of idleness after which the proxy closes a connection; None for never."""
        if self.proxy_idle_timeout is not None:
            return self.proxy_idle_timeout
        proxy = least_patient(self.proxy)
        return None if proxy is None else PROXIES[proxy].idle_timeout

    @property
    def deadlock_floor(self) -> int:
        """The fewest connections of a pool with which not all of its holders wait for more."""
        return self.concurrency * (self.connections_per_request - 1) + 1

    @property
    def most_active(self) -> float:
        """Connections that the server works on at once with profit: 2 x cores + spindles."""
        return inf if self.cores is None else 2 * self.cores + self.spindles

    def active(self, rate: float) -> float:
        """Return the mean number of connections that the server works on at a rate.

        Args:
            rate: Requests per second of the whole service.
        """
        assert self.query_time is not None  # noqa: S101 - of() has seen to it
        return rate * (self.query_time * self.queries + self.transaction_time)

    def budget(self, pool_size: int, max_overflow: int) -> ConnectionBudget:
        """Return the connections that pools of such a size may have open during a deployment.

        Args:
            pool_size: Connections that each pool keeps.
            max_overflow: Connections that each may add.
        """
        return ConnectionBudget(
            workers=self.workers,
            instances=ceil(self.instances * self.surge),
            pool_size=pool_size,
            max_overflow=max_overflow,
            reserve=self.reserve,
            others=self.other_connections,
        )

    def given(self) -> dict[str, Any]:
        """Return what was set, by field name, in values that JSON and TOML have."""
        return self.model_dump(mode="json", exclude_unset=True, exclude_none=True)


def _as_given(error: ValidationError, given: Mapping[str, object]) -> ValidationError:
    """Return an error that shows what was typed in place of the seconds or bytes of it."""
    details = error.errors(include_url=False)
    return ValidationError.from_exception_data(
        error.title,
        [
            InitErrorDetails(
                type=PydanticCustomError(each["type"], "refused", each.get("ctx")),
                loc=each["loc"],
                input=given.get(str(each["loc"][0]), each["input"]),
            )
            for each in details
        ],
    )


_KINDS = {
    OptionalDuration: "DURATION",
    Duration: "DURATION",
    Size: "SIZE",
    WorkMem: "SIZE",
    _Rate: "RATE",
    _ProxiesOrNone: "NAME,...",
}


def input_kind(name: str) -> str:
    """Return what an input is written as, such as ``DURATION``.

    Args:
        name: Of a field of :class:`PlanInputs`.
    """
    return _KINDS.get(PlanInputs.__annotations__[name], "NUMBER")


def input_default(name: str) -> str | None:
    """Return the default of an input as it is written, such as ``10ms``; None for unknown.

    Args:
        name: Of a field of :class:`PlanInputs`.
    """
    default = PlanInputs.model_fields[name].default
    if default is None:
        return None
    if default == ():
        return "none"
    if input_kind(name) == "DURATION":
        return shown(default).replace(" ", "") if default else "0s"
    return f"{default:g}"


def overridden(known: Mapping[str, object], chosen: Mapping[str, object]) -> dict[str, object]:
    """Return inputs of which some have priority over others.

    Args:
        known: As a service or a file has them.
        chosen: They take the place of those; ``p99`` that of the rate, too, and ``query_time``
            that of the percentile that belonged to the other mean.
    """
    replaced = {"p99": ("rate",), "rate": ("p99",), "query_time": ("query_p99", "sample")}
    gone = {
        other
        for name, others in replaced.items()
        if chosen.get(name) is not None
        for other in others
    }
    return {**{name: each for name, each in known.items() if name not in gone}, **chosen}


def write_inputs(path: Path, inputs: PlanInputs) -> None:
    """Write inputs into a file.

    Args:
        path: Whose name ends in ``.json`` or ``.toml``.
        inputs: All that :func:`read_inputs` gives back.

    Raises:
        SettingsError: It cannot be written, or its name ends otherwise.
    """
    if path.suffix not in {".json", ".toml"}:
        raise SettingsError(f"{path}: a name that ends in .json or .toml is accepted")
    given = inputs.given()
    lines = [f"{name} = {json.dumps(value)}" for name, value in given.items()]
    text = "\n".join(lines) if path.suffix == ".toml" else json.dumps(given, indent=2)
    try:
        path.write_text(f"{text}\n", encoding="utf-8")
    except OSError as error:
        raise SettingsError(f"{path} cannot be written: {error.strerror}") from None


def read_inputs(path: Path) -> dict[str, Any]:
    """Return what is in a file of inputs, with its values unchecked.

    Args:
        path: Whose name ends in ``.toml``, or else it is JSON.

    Raises:
        SettingsError: It cannot be read, is no such file, or has a key that is no input.
    """
    try:
        text = path.read_text(encoding="utf-8")
        found = tomllib.loads(text) if path.suffix == ".toml" else json.loads(text)
    except (OSError, ValueError) as error:
        raise SettingsError(f"{path} cannot be read as a plan: {error}") from None
    if not isinstance(found, dict):
        raise SettingsError(f"{path} is no plan: penstock plan --save writes one")
    if unknown := sorted(found.keys() - PlanInputs.model_fields.keys()):
        raise SettingsError(
            f"{path}: {', '.join(unknown)}: accepted are {', '.join(PlanInputs.model_fields)}"
        )
    return found

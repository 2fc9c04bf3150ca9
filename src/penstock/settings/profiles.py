"""The values of what was not set: by proxy, preset and environment."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import TypeVar

from penstock.settings.proxies import TCP_KEEPALIVE, named, settings_behind


class TlsMode(StrEnum):
    """How a connection is encrypted, by libpq's names for ``sslmode``.

    PostgreSQL's documentation, "SSL Support", says what each protects against. Its ``allow``
    is left out: it prefers a connection in the clear.
    """

    DISABLE = "disable"
    PREFER = "prefer"
    REQUIRE = "require"
    VERIFY_CA = "verify-ca"
    VERIFY_FULL = "verify-full"

    @property
    def verifies(self) -> bool:
        """Whether the server's certificate is checked against trusted authorities."""
        return self in {TlsMode.VERIFY_CA, TlsMode.VERIFY_FULL}


class BudgetPolicy(StrEnum):
    """What happens at start when all workers together want more connections than there are."""

    WARN = "warn"
    REFUSE = "refuse"
    OFF = "off"


class IsolationLevel(StrEnum):
    """The isolation level of a transaction, as SQLAlchemy spells it."""

    READ_UNCOMMITTED = "READ UNCOMMITTED"
    READ_COMMITTED = "READ COMMITTED"
    REPEATABLE_READ = "REPEATABLE READ"
    SERIALIZABLE = "SERIALIZABLE"


class NestedCheckoutPolicy(StrEnum):
    """What is done with a task that holds a connection and waits for another."""

    REFUSE = "refuse"
    WARN = "warn"
    ALLOW = "allow"


class Environment(StrEnum):
    """Where the service runs; each has a profile of pool settings."""

    DEVELOPMENT = "development"
    TESTING = "testing"
    PRODUCTION = "production"
    SERVERLESS = "serverless"


class SizePreset(StrEnum):
    """A pool size by name, for who would rather not choose numbers."""

    DEVELOPMENT = "development"
    SMALL = "small"
    MEDIUM = "medium"
    HIGH = "high"
    CONTAINER = "container"


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """Pool settings that suit an environment.

    Args:
        pool_size: Connections that are kept.
        max_overflow: Connections above them in a burst.
        pool_timeout: Seconds that a request waits for a connection.
        pool_recycle: Seconds after which a connection is replaced.
        pool_pre_ping: Whether a connection is tested when it is checked out.
        echo: Whether every statement is logged.
        min_idle: Connections that are kept ready, as far as ``pool_size`` allows.
        codel_target: Seconds that the wait may last before waiters are rejected; None for ever.
        codel_interval: Seconds for which it has to last longer than that.
        leak_after: Seconds after which a connection that is still checked out is reported; None
            for never.
        nested_checkout: What is done with a task that would wait for itself.
    """

    pool_size: int
    max_overflow: int
    pool_timeout: float
    pool_recycle: int
    pool_pre_ping: bool = False
    echo: bool = False
    min_idle: int = 0
    codel_target: float | None = None
    codel_interval: float = 0.1
    leak_after: float | None = None
    nested_checkout: NestedCheckoutPolicy = NestedCheckoutPolicy.WARN


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """A pool's size.

    Args:
        pool_size: Connections that are kept.
        max_overflow: Connections above them in a burst; None for ``OVERFLOW_SHARE`` of the
            ``pool_size`` in force, rounded down.
        largest_pool_size: The largest ``pool_size`` that fits this size's name, with its own
            as the smallest; None where any is fine.
    """

    pool_size: int
    max_overflow: int | None
    largest_pool_size: int | None = None

    def fits(self, pool_size: int) -> bool:
        """Whether a ``pool_size`` may go by this size's name."""
        if self.largest_pool_size is None:
            return True
        return self.pool_size <= pool_size <= self.largest_pool_size


OVERFLOW_SHARE = 0.5

PROFILES: Mapping[Environment, Profile] = {
    Environment.DEVELOPMENT: Profile(
        pool_size=5,
        max_overflow=10,
        pool_timeout=30,
        pool_recycle=1800,
        echo=True,
        leak_after=60,
        nested_checkout=NestedCheckoutPolicy.REFUSE,
    ),
    Environment.TESTING: Profile(
        pool_size=2,
        max_overflow=5,
        pool_timeout=10,
        pool_recycle=600,
        nested_checkout=NestedCheckoutPolicy.REFUSE,
    ),
    Environment.PRODUCTION: Profile(
        pool_size=20,
        max_overflow=30,
        pool_timeout=30,
        pool_recycle=3600,
        pool_pre_ping=True,
        min_idle=5,
        # Far above the 0.005 and 0.1 of RFC 8289: without a named goal it guards against a
        # standing queue, and not against one slow statement.
        codel_target=0.5,
        codel_interval=5.0,
        leak_after=60,
    ),
    # No connection is kept: the sizes only say that each call has one.
    Environment.SERVERLESS: Profile(
        pool_size=1, max_overflow=0, pool_timeout=30, pool_recycle=3600
    ),
}

PRESETS: Mapping[SizePreset, Size] = {
    SizePreset.DEVELOPMENT: Size(pool_size=5, max_overflow=5),
    SizePreset.SMALL: Size(pool_size=10, max_overflow=10),
    SizePreset.MEDIUM: Size(pool_size=20, max_overflow=10),
    SizePreset.HIGH: Size(pool_size=50, max_overflow=20),
    SizePreset.CONTAINER: Size(pool_size=5, max_overflow=None, largest_pool_size=10),
}


Choice = TypeVar("Choice", bound=StrEnum)


def filled_in(given: Mapping[str, object]) -> dict[str, object]:
    """Complete settings that were given in part.

    Args:
        given: What was set, by field name, unchecked.

    Returns:
        The same with the numbers of its proxy, its preset and its environment's profile, of which
        a proxy makes none larger. A wrong choice among them counts as none and is left for the
        model to refuse.
    """
    environment = _member(Environment, given.get("environment")) or Environment.DEVELOPMENT
    alone = {
        **asdict(PROFILES[environment]),
        "tcp_keepalive": TCP_KEEPALIVE,
        **_by_preset(_member(SizePreset, given.get("preset")), given.get("pool_size")),
    }
    complete = {**alone, **settings_behind(named(given.get("proxy")), alone), **given}
    if "min_idle" not in given:
        complete["min_idle"] = _within(complete["pool_size"], complete["min_idle"])
    return complete


def _member(choices: type[Choice], value: object) -> Choice | None:
    return choices(value) if isinstance(value, str) and value in set(choices) else None


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

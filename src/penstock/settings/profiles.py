"""The numbers behind each environment's name and each size's name."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from penstock.settings.policies import NestedCheckoutPolicy

__all__ = [
    "OVERFLOW_SHARE",
    "PRESETS",
    "PROFILES",
    "Environment",
    "Profile",
    "Size",
    "SizePreset",
]


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
        codel_target: Seconds that the wait may last before waiters are turned away; None for ever.
        codel_interval: Seconds for which it has to last longer than that.
        leak_after: Seconds after which a connection that is still lent is reported; None for never.
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
        # Far above the 0.005 and 0.1 of RFC 8289: who has named no goal is guarded against a
        # standing queue, and not against one slow statement.
        codel_target=0.5,
        codel_interval=5.0,
        leak_after=60,
    ),
    # No connection is kept: the sizes only say that a call has one of its own.
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

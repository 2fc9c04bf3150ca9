"""The settings of a pool that SQLAlchemy's pools do not have."""

import contextlib
import math
from dataclasses import dataclass, fields
from typing import Any

from penstock.base_error import SettingsError
from penstock.pool.queue import AdmissionPolicy
from penstock.settings import NestedCheckoutPolicy


@dataclass(frozen=True, slots=True)
class PoolPolicy:
    """The settings of :class:`PenstockPool` that SQLAlchemy's pools do not have.

    All times are in seconds; None means that the feature is off.

    Args:
        min_idle: Connections that are kept ready, up to ``pool_size``.
        max_waiting: Callers that may wait at once.
        codel_target: Wait that every caller of a ``codel_interval`` has to exceed before waiters
            are shed.
        codel_interval: Time over which the wait is measured; RFC 8289 proposes 0.1 with a target
            of 0.005.
        overflow_idle: Time after which connections above ``pool_size`` that were not needed are
            closed.
        keepalive: Idleness after which a connection is pinged in the background; 0 for never.
        idle_before_ping: Idleness after which a connection is pinged before it is checked out.
        ping_timeout: Time for the server to answer a ping.
        connect_timeout: Time for each attempt to connect.
        connects_at_once: Connections opened in parallel at most.
        connect_retry: Time for which a failed connect is tried again for a waiting caller, within
            ``pool_timeout``; None for as long as that.
        leak_after: Time after which a lease is reported as a possible leak.
        reclaim_leaks: Whether the connection of a reported lease is closed under its holder.
        nested_checkout: What happens to a task that would wait for itself: ``refuse``, ``warn``
            or ``allow``.

    Raises:
        SettingsError: A value is out of its range.
    """

    min_idle: int = 0
    max_waiting: int | None = None
    codel_target: float | None = None
    codel_interval: float = 0.1
    overflow_idle: float = 60.0
    keepalive: float = 120.0
    idle_before_ping: float = 30.0
    ping_timeout: float = 2.0
    connect_timeout: float = 60.0
    connects_at_once: int = 4
    connect_retry: float | None = None
    leak_after: float | None = None
    reclaim_leaks: bool = False
    nested_checkout: NestedCheckoutPolicy = NestedCheckoutPolicy.WARN

    def __post_init__(self) -> None:
        for name, least in _LEAST.items():
            value = getattr(self, name)
            if value is None and name in _OPTIONAL:
                continue
            if not (is_number(value) and least <= value):
                raise SettingsError(f"{name}={value!r}: a number of {least:g} or more is accepted")
            if name in _WHOLE and not float(value).is_integer():
                raise SettingsError(f"{name}={value!r}: a whole number is accepted")
        if not isinstance(self.reclaim_leaks, bool):
            raise SettingsError(f"reclaim_leaks={self.reclaim_leaks!r}: {_BOOLEANS}")
        for name in _POSITIVE:
            value = getattr(self, name)
            if value is None and name in _OPTIONAL:
                continue
            if not (is_number(value) and value > 0):
                raise SettingsError(f"{name}={value!r}: a number greater than 0 is accepted")

    def as_arguments(self) -> dict[str, object]:
        """Return the settings as arguments of another pool."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    @property
    def records_checkouts(self) -> bool:
        """Whether the stack of each checkout is recorded."""
        return self.leak_after is not None or self.nested_checkout == NestedCheckoutPolicy.REFUSE

    @property
    def admission(self) -> AdmissionPolicy:
        """The settings of the wait queue."""
        return AdmissionPolicy(self.max_waiting, self.codel_target, self.codel_interval)


def check_size(pool_size: int, max_overflow: int) -> None:
    """Check the size of a pool.

    Args:
        pool_size: Connections that are kept; 0 for no limit.
        max_overflow: Connections above that; -1 for no limit.

    Raises:
        SettingsError: A value is out of its range.
    """
    if not (is_number(pool_size) and pool_size >= 0):
        raise SettingsError(f"pool_size={pool_size!r}: 0 (no limit) or more is accepted")
    if not (is_number(max_overflow) and max_overflow >= -1):
        raise SettingsError(f"max_overflow={max_overflow!r}: -1 (no limit) or more is accepted")


def check_times(timeout: float | None, recycle: float) -> None:
    """Check the times of a pool.

    Args:
        timeout: ``pool_timeout`` in seconds; None for no limit.
        recycle: ``pool_recycle`` in seconds; -1 for never.

    Raises:
        SettingsError: A value is not a number or out of its range.
    """
    if timeout is not None and not (is_number(timeout) and timeout >= 0):
        raise SettingsError(f"pool_timeout={timeout!r}: None (no limit) or 0 or more is accepted")
    if not is_number(recycle):
        raise SettingsError(f"pool_recycle={recycle!r}: a number is accepted, -1 for never")


def from_text(name: str, value: Any) -> Any:
    """Convert an argument that a configuration file gives as a text.

    Args:
        name: The name of the argument.
        value: Its value; a text that is not of the argument's type is returned unchanged.
    """
    if not isinstance(value, str):
        return value
    text = value.strip().lower()
    if name in _BOOLEAN:
        return _BY_TEXT.get(text, value)
    if name in _OPTIONAL and text in ("", "none"):
        return None
    if name in (*_LEAST, *_POSITIVE):
        with contextlib.suppress(ValueError):
            return int(text) if name in _WHOLE else float(text)
    return value


def boolean(name: str, value: Any) -> bool:
    """Convert an argument that is true or false, or a text that says so.

    Args:
        name: The name of the argument.
        value: Its value.

    Raises:
        SettingsError: The value is neither.
    """
    value = from_text(name, value)
    if not isinstance(value, bool | int):
        raise SettingsError(f"{name}={value!r}: {_BOOLEANS}")
    return bool(value)


def nested_checkout_policy(value: str) -> NestedCheckoutPolicy:
    """Return the policy of a name.

    Args:
        value: ``refuse``, ``warn`` or ``allow``.

    Raises:
        SettingsError: There is no such policy.
    """
    try:
        return NestedCheckoutPolicy(value)
    except ValueError:
        accepted = ", ".join(NestedCheckoutPolicy)
        raise SettingsError(f"nested_checkout={value!r}: one of {accepted} is accepted") from None


_BOOLEAN = ("reclaim_leaks", "use_lifo", "pre_ping")
_BOOLEANS = "true or false is accepted"
_BY_TEXT = {
    **dict.fromkeys(("true", "yes", "on", "1"), True),
    **dict.fromkeys(("false", "no", "off", "0"), False),
}
_OPTIONAL = ("max_waiting", "codel_target", "connect_retry", "leak_after")
_WHOLE = ("min_idle", "max_waiting", "connects_at_once")
_LEAST = {
    "min_idle": 0,
    "max_waiting": 0,
    "keepalive": 0,
    "idle_before_ping": 0,
    "connects_at_once": 1,
    "connect_retry": 0,
}
_POSITIVE = (
    "codel_target",
    "codel_interval",
    "overflow_idle",
    "ping_timeout",
    "connect_timeout",
    "leak_after",
)


def is_number(value: object) -> bool:
    """Return whether a value is a number; a bool and NaN are not."""
    return isinstance(value, int | float) and not isinstance(value, bool) and not math.isnan(value)

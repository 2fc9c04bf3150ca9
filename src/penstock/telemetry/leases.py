"""What is checked out at this moment: by which route, for how long, and what it does."""

from collections.abc import Callable, Iterable
from math import inf
from typing import Any

from penstock.drivers.effects import Effect
from penstock.drivers.sql_text import shape
from penstock.pool.lease import STATEMENT_KEY, Lease
from penstock.pool.slot import CHECKED_OUT, Slot
from penstock.telemetry.reading import NO_ROUTE, STATES, LeaseSample

__all__ = ["IDLE_IN_TRANSACTION_KEY", "Leases", "count_idle_in_transaction", "in_transaction"]

IDLE_IN_TRANSACTION_KEY = "penstock_at_rest_since"
"""Where in a connection's ``info`` the moment stands at which its last statement ended, on the
monotonic clock; infinity while one runs."""

IDLE_IN_TRANSACTION_AFTER = 5.0
"""Seconds without a statement that are no mere pause between two."""


def count_idle_in_transaction(slots: Iterable[Slot], now: float) -> int:
    """Return how many connections are held by a transaction that has done nothing for 5 seconds.

    Args:
        slots: Of the pool's ledger.
        now: By the monotonic clock, in seconds.
    """
    return sum(slot.state is CHECKED_OUT and _is_idle_in_transaction(slot, now) for slot in slots)


def _is_idle_in_transaction(slot: Slot, now: float) -> bool:
    record = slot.content
    since = record.info.get(IDLE_IN_TRANSACTION_KEY, inf)
    # What is older than the lease is the holder's before.
    if since < slot.checked_out_at or now - since < IDLE_IN_TRANSACTION_AFTER:
        return False
    return in_transaction(record)


def in_transaction(record: Any) -> bool:
    """Return whether a transaction is open on a pool's connection, as far as its driver knows."""
    connection = record.dbapi_connection
    if connection is None:
        return False
    try:
        is_open: bool = record.runtime.driver_of(connection).is_in_transaction(connection)
    except Exception:  # noqa: BLE001 - it is closed
        return False
    return is_open


_LOOKED_AT = 2_000
"""Characters of a statement that are looked at each second; its shape is remembered."""


class Leases:
    """Looks at what is checked out of one pool.

    Args:
        leak_after: The pool's; None for none.
        is_mysql: Whether its statements are written for MySQL or MariaDB.
    """

    def __init__(self, leak_after: float | None, *, is_mysql: bool) -> None:
        self._leak_after = inf if leak_after is None else leak_after
        self._is_mysql = is_mysql

    def look(
        self, slots: Iterable[Slot], monotonic: float, now: float, most: int
    ) -> list[LeaseSample]:
        """Return the leases that have lasted longest, these first.

        Args:
            slots: Of the pool's ledger.
            monotonic: The time on the pool's clock.
            now: The same as Unix time.
            most: How many at most.
        """
        checked_out = sorted(
            (slot for slot in slots if slot.state is CHECKED_OUT),
            key=lambda slot: slot.checked_out_at,
        )
        return [self._lease(slot, monotonic, now) for slot in checked_out[:most]]

    def _lease(self, slot: Slot, monotonic: float, now: float) -> LeaseSample:
        age = monotonic - slot.checked_out_at
        record, route = slot.content, slot.route
        lasts = bool(record.trace.effects & Effect.LASTING)
        return LeaseSample(
            route=NO_ROUTE if route is None else _called(route),
            since=now - age,
            state=_state(slot),
            is_overdue=age >= self._leak_after and not lasts,
            statement=self._statement(slot),
        )

    def _statement(self, slot: Slot) -> str:
        # Of a lease that is not noted it may be the one before's.
        statement = slot.content.info.get(STATEMENT_KEY) if isinstance(slot.lease, Lease) else None
        return shape(statement[:_LOOKED_AT], is_mysql=self._is_mysql) if statement else ""


def _called(route: Callable[[], str]) -> str:
    try:
        return route()
    except Exception:  # noqa: BLE001 - an application's own; the others are to be seen
        return NO_ROUTE


def _state(slot: Slot) -> str:
    info: dict[Any, Any] = slot.content.info
    if info.get(IDLE_IN_TRANSACTION_KEY) == inf:
        return STATES[0]
    return STATES[1] if in_transaction(slot.content) else STATES[2]

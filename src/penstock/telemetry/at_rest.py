"""Connections that are lent, within a transaction, while no statement runs."""

from collections.abc import Iterable
from math import inf
from typing import Any

from penstock.pool.slot import LENT, Slot

__all__ = ["AT_REST_KEY", "count_at_rest", "in_transaction"]

AT_REST_KEY = "penstock_at_rest_since"
"""Where in a connection's ``info`` the moment stands at which its last statement ended, on the
monotonic clock; infinity while one runs."""

AT_REST_FOR = 5.0
"""Seconds without a statement that are no mere pause between two."""


def count_at_rest(slots: Iterable[Slot], now: float) -> int:
    """Return how many connections are held by a transaction that has done nothing for 5 seconds.

    Args:
        slots: Of the pool's ledger.
        now: By the monotonic clock, in seconds.
    """
    return sum(slot.state is LENT and _is_at_rest(slot, now) for slot in slots)


def _is_at_rest(slot: Slot, now: float) -> bool:
    record = slot.content
    since = record.info.get(AT_REST_KEY, inf)
    # What is older than the loan is the borrower's before.
    if since < slot.lent_at or now - since < AT_REST_FOR:
        return False
    return in_transaction(record)


def in_transaction(record: Any) -> bool:
    """Return whether a transaction is open on a pool's connection, as far as its driver knows."""
    connection = record.dbapi_connection
    if connection is None:
        return False
    try:
        is_open: bool = record.keeper.driver_of(connection).is_in_transaction(connection)
    except Exception:  # noqa: BLE001 - it is closed
        return False
    return is_open

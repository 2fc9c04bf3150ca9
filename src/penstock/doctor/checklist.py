"""Every check by its id."""

from collections.abc import Collection, Mapping, Sequence
from types import MappingProxyType

from penstock.base_error import PenstockError
from penstock.doctor.check import Check
from penstock.doctor.checks import (
    memory,
    pgbouncer,
    replication,
    schema,
    security,
    sequences,
    sessions,
    settings,
    statistics,
)

GROUPS: Mapping[str, tuple[Check, ...]] = MappingProxyType(
    {
        "Connections, transactions and locks": sessions.CHECKS,
        "Replication and the write-ahead log": replication.CHECKS,
        "Statistics": statistics.CHECKS,
        "Tables, indexes and sequences": (*schema.CHECKS, *sequences.CHECKS),
        "Settings": settings.CHECKS,
        "Memory": memory.CHECKS,
        "Versions, roles and rights": security.CHECKS,
        "PgBouncer": pgbouncer.CHECKS,
    }
)
"""Checks by the headings under which ``docs/doctor.md`` has them."""

CHECKS: Mapping[str, Check] = MappingProxyType(
    {check.id: check for checks in GROUPS.values() for check in checks}
)


def chosen(
    only: Collection[str], skip: Collection[str], further: Sequence[Check] = ()
) -> list[Check]:
    """Return the checks to run.

    Args:
        only: Ids of those alone; empty for all.
        skip: Ids of those that are not run.
        further: Checks beside those that are always there.

    Raises:
        PenstockError: There is no check of such an id.
    """
    known = {**CHECKS, **{check.id: check for check in further}}
    for name in [*only, *skip]:
        if name not in known:
            raise PenstockError(f"There is no check {name}; docs/doctor.md has all of them.")
    return [
        check for check in known.values() if (not only or check.id in only) and check.id not in skip
    ]

"""Ending connections of one application that have been idle for long."""

import re
from dataclasses import dataclass

import asyncpg

from penstock.base_error import PenstockError
from penstock.doctor.check import Query, Rows, listed, span
from penstock.doctor.examination import connected
from penstock.settings import DatabaseSettings

_FIND, _END = Query("idle"), Query("end_idle")
_UNITS = {"s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0}


@dataclass(frozen=True, slots=True)
class IdleConnections:
    """Connections that may be ended.

    Args:
        application: Whose they are.
        seconds: For how long they have been idle at least.
        rows: Each with ``pid``, ``role``, ``database``, ``client``, ``seconds``.
    """

    application: str
    seconds: float
    rows: Rows

    def __str__(self) -> str:
        named = [
            f"pid {row['pid']} of {row['role']} on {row['database']} for {span(row['seconds'])}"
            for row in self.rows
        ]
        return (
            f"{len(self.rows)} connections of {self.application} idle for more than "
            f"{span(self.seconds)}: {listed(named, most=20)}"
        )


def seconds_of(text: str) -> float:
    """Return the seconds of a duration such as ``30s``, ``10m`` or ``2h``.

    Raises:
        PenstockError: It is none, or less than a second.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)(s|m|min|h)", text.strip())
    if match is None or float(match[1]) * _UNITS[match[2]] < 1:
        raise PenstockError(f"--end-idle {text}: a duration such as 30s, 10m or 2h is accepted")
    return float(match[1]) * _UNITS[match[2]]


async def find_idle(
    settings: DatabaseSettings, application: str, seconds: float
) -> IdleConnections:
    """Return the connections of an application that have been idle for long.

    Args:
        settings: As ``doctor_settings`` returns them.
        application: Its ``application_name``, whole.
        seconds: How long at least.
    """
    async with connected(settings) as connection:
        rows = await connection.fetch(_FIND.sql, application, seconds)
    return IdleConnections(application, seconds, [dict(row) for row in rows])


async def end_idle(settings: DatabaseSettings, idle: IdleConnections) -> int:
    """End those that are still idle, and return how many were.

    Args:
        settings: As ``doctor_settings`` returns them.
        idle: As :func:`find_idle` returned them.

    Raises:
        PenstockError: The role may not end them.
    """
    pids = [row["pid"] for row in idle.rows]
    async with connected(settings) as connection:
        try:
            ended = await connection.fetchval(_END.sql, idle.application, idle.seconds, pids)
        except asyncpg.InsufficientPrivilegeError as error:
            raise PenstockError(f"The connections were not ended: {error}") from error
    return int(ended)

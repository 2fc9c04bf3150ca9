"""The table of everything that a worker counts and measures.

Each number is declared once, as a field of :class:`Counters`, :class:`Sample` or ``HISTOGRAMS``,
with its unit, its description, its metric and the way in which the numbers of several workers are
aggregated. The layout of the workers' files, the sums over workers, the exported metrics and the
columns of the live document follow from the declaration.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from math import nan
from typing import Any

from penstock.telemetry.field import Field, Kind, aggregate, declare, declared, largest, named


def _counter(metric: str, unit: str, description: str) -> int:
    return declare(0, Field(Kind.COUNTER, description, unit, metric))


def _gauge(metric: str, unit: str, description: str, **more: Any) -> int:
    return declare(0, Field(Kind.GAUGE, description, unit, metric, **more))


def _seconds(description: str) -> float:
    return declare(0.0, Field(Kind.GAUGE, description, "s"))


def _server(metric: str, unit: str, description: str) -> float:
    return declare(nan, Field(Kind.GAUGE, description, unit, metric, largest))


def _peak(metric: str, description: str) -> float:
    return declare(0.0, Field(Kind.PEAK, description, "s", metric, largest))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Counts:
    """The counters: since a worker's start, or within one second."""

    checkouts: int = _counter("penstock_checkouts", "{checkout}", "Connections checked out.")
    waits: int = _counter(
        "penstock_checkouts_waited", "{checkout}", "Checkouts that waited for a connection."
    )
    checkins: int = _counter("penstock_checkins", "{checkin}", "Connections returned to the pool.")
    refused: int = _counter(
        "penstock_checkouts_rejected",
        "{request}",
        "Callers that got no connection, for any reason.",
    )
    timeouts: int = _counter(
        "db.client.connection.timeouts",
        "{timeout}",
        "Callers that got no connection within pool_timeout.",
    )
    shed: int = _counter(
        "penstock_checkouts_shed",
        "{request}",
        "Callers rejected before pool_timeout, because too many waited.",
    )
    opened: int = _counter("penstock_connections_opened", "{connection}", "Connections opened.")
    open_failures: int = _counter(
        "penstock_connection_open_failures",
        "{attempt}",
        "Failed attempts to open a connection.",
    )
    closed: int = _counter("penstock_connections_closed", "{connection}", "Connections closed.")
    short_lived: int = _counter(
        "penstock_connections_short_lived",
        "{connection}",
        "Connections closed within a minute of being opened, although they were not broken.",
    )
    died: int = _counter(
        "penstock_connections_died",
        "{connection}",
        "Connections found closed, unresponsive or broken, or invalidated by the application.",
    )
    recovered: int = _counter(
        "penstock_connections_recovered",
        "{connection}",
        "Connections recovered after a cancelled query.",
    )
    leaks: int = _counter(
        "penstock_leaks", "{checkout}", "Connections checked out for longer than leak_after."
    )
    nested: int = _counter(
        "penstock_checkouts_nested",
        "{checkout}",
        "Tasks that held a connection and requested another while all were checked out.",
    )
    slow: int = _counter(
        "penstock_slow_statements", "{statement}", "Statements slower than slow_query."
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Counters(_Counts):
    """Number of events since a worker's start."""

    def __add__(self, other: "Counters") -> "Counters":
        return Counters(**aggregate([self, other], COUNTERS))


@dataclass(frozen=True, slots=True)
class Sample(_Counts):
    """One second of one worker, or of all workers together; counters are those of this second."""

    at: float = declare(
        0.0, Field(Kind.GAUGE, "Unix time at which the second ends.", "s", aggregation=max)
    )
    size: int = _gauge(
        "db.client.connection.idle.max",
        "{connection}",
        "Connections that the pool keeps open (pool_size).",
    )
    limit: int = _gauge(
        "db.client.connection.max",
        "{connection}",
        "Connections that may be open at once (pool_size + max_overflow).",
        absent=0,
    )
    checked_in: int = _gauge(
        "db.client.connection.count", "{connection}", "Idle connections.", state="idle"
    )
    checked_out: int = _gauge(
        "db.client.connection.count", "{connection}", "Checked-out connections.", state="used"
    )
    overflow: int = _gauge(
        "penstock_connections_overflow", "{connection}", "Open connections above pool_size."
    )
    opening: int = _gauge(
        "penstock_connections_opening", "{connection}", "Connections being opened."
    )
    invalid: int = _gauge(
        "penstock_connections_invalid",
        "{connection}",
        "Connections being closed, or recovered after a cancelled query.",
    )
    waiting: int = _gauge(
        "db.client.connection.pending_requests", "{request}", "Callers waiting for a connection."
    )
    idle_in_transaction: int = _gauge(
        "penstock_connections_idle_in_transaction",
        "{connection}",
        "Connections that have been idle in transaction for 5 seconds or more.",
    )
    wait_seconds: float = declare(
        0.0, Field(Kind.GAUGE, "Total duration of the waits that ended within the second.", "s")
    )
    hold_seconds: float = declare(
        0.0, Field(Kind.GAUGE, "Total duration of the checkouts that ended within the second.", "s")
    )
    wait_longest: float = _peak(
        "penstock_wait_longest_seconds", "Longest wait for a connection within the last minute."
    )
    loop_late: float = _peak(
        "penstock_event_loop_late_seconds",
        "Longest delay of an event loop within the last minute.",
    )
    server_connections: float = _server(
        "penstock_server_connections",
        "{connection}",
        "Connections open on the server, from all clients.",
    )
    server_limit: float = _server(
        "penstock_server_connections_max",
        "{connection}",
        "Connections that the server accepts (max_connections).",
    )
    replica_lag_bytes: float = _server(
        "penstock_replica_lag_bytes",
        "By",
        "Write-ahead log that the replica furthest behind has not replayed.",
    )
    replica_lag_seconds: float = _server(
        "penstock_replica_lag_seconds",
        "s",
        "Delay of the replica furthest behind, as the server estimates it.",
    )

    @property
    def utilisation(self) -> float:
        """Share of ``limit`` that is checked out, from 0.0 to 1.0; 0.0 without a limit."""
        return self.checked_out / self.limit if self.limit else 0.0

    @staticmethod
    def of_all(samples: Sequence["Sample"]) -> "Sample":
        """Return the sample of several workers together, for one second.

        Args:
            samples: One of each worker; at least one.
        """
        return Sample(**aggregate(samples, SAMPLE))


COUNTERS: Mapping[str, Field] = declared(Counters)
SAMPLE: Mapping[str, Field] = declared(Sample)
OPTIONAL = tuple(each.name for each in fields(Sample) if each.default != each.default)  # NaN
"""Fields of a :class:`Sample` that are NaN while they are not known."""


def _duration(metric: str, description: str) -> Field:
    return Field(Kind.HISTOGRAM, description, "s", metric)


HISTOGRAMS: Mapping[str, Field] = named(
    "HISTOGRAMS",
    {
        "wait": _duration(
            "db.client.connection.wait_time",
            "Time from requesting a connection to its checkout.",
        ),
        "hold": _duration(
            "db.client.connection.use_time", "Time from a connection's checkout to its return."
        ),
        "create": _duration("db.client.connection.create_time", "Time to open a connection."),
        "ping": _duration("penstock_ping_time", "Round trip of a ping."),
        "commit": _duration("penstock_commit_time", "Time that a COMMIT took."),
    },
)
"""What is timed, by name."""

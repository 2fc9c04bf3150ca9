"""What Prometheus calls each number of the telemetry, and how it explains it."""

from dataclasses import dataclass

__all__ = ["COUNTERS", "GAUGES", "HISTOGRAMS", "PEAKS", "Named"]


@dataclass(frozen=True, slots=True)
class Named:
    """A metric and where its value is.

    Args:
        name: In full, but for the ``_total`` of a counter.
        help: What it counts.
        field: The attribute of what has it.
        unit: The name's last word, where it is a unit.
    """

    name: str
    help: str
    field: str
    unit: str = ""


GAUGES = (
    Named("db_client_connection_idle_max", "Idle connections kept for good (pool_size).", "size"),
    Named("db_client_connection_pending_requests", "Askers that wait for a connection.", "waiting"),
    Named("penstock_connections_opening", "Connections being opened.", "opening"),
    Named("penstock_connections_invalid", "Connections being closed or cleaned up.", "invalid"),
    Named("penstock_connections_overflow", "Open connections above pool_size.", "overflow"),
    Named(
        "penstock_connections_at_rest",
        "Lent connections within a transaction without a statement for five seconds or more.",
        "at_rest",
    ),
    Named(
        "penstock_server_connections",
        "Connections of everybody to the server.",
        "server_connections",
    ),
    Named(
        "penstock_server_connections_max",
        "Connections that the server accepts (max_connections).",
        "server_limit",
    ),
    Named(
        "penstock_replica_lag_bytes",
        "What the replica furthest behind has not replayed.",
        "replica_lag_bytes",
        "bytes",
    ),
    Named(
        "penstock_replica_lag_seconds",
        "How far the replica furthest behind is behind, as the server estimates.",
        "replica_lag_seconds",
        "seconds",
    ),
)
PEAKS = (
    Named(
        "penstock_wait_longest_seconds",
        "Longest wait for a connection within the last minute.",
        "wait_longest",
        "seconds",
    ),
    Named(
        "penstock_event_loop_late_seconds",
        "By how much an event loop was late at most within the last minute.",
        "loop_late",
        "seconds",
    ),
)
COUNTERS = (
    Named(
        "db_client_connection_timeouts",
        "Askers whose pool_timeout passed before they got a connection.",
        "timeouts",
    ),
    Named("penstock_checkouts", "Loans of connections.", "checkouts"),
    Named("penstock_checkouts_waited", "Loans that had to be waited for.", "waits"),
    Named(
        "penstock_checkouts_refused", "Askers that got no connection, for any reason.", "refused"
    ),
    Named("penstock_checkouts_shed", "Askers turned away early, for too many waited.", "shed"),
    Named(
        "penstock_checkouts_nested",
        "Tasks that held one of a pool's connections, all lent, and asked for another.",
        "nested",
    ),
    Named("penstock_checkins", "Loans that have ended.", "checkins"),
    Named("penstock_connections_opened", "Connections opened.", "opened"),
    Named(
        "penstock_connection_open_failures",
        "Attempts to open a connection that failed.",
        "open_failures",
    ),
    Named("penstock_connections_closed", "Connections closed.", "closed"),
    Named(
        "penstock_connections_short_lived",
        "Connections closed, though not broken, within a minute.",
        "short_lived",
    ),
    Named(
        "penstock_connections_died", "Connections that were found closed, mute or broken.", "died"
    ),
    Named("penstock_connections_mended", "Connections saved after a cancelled query.", "mended"),
    Named("penstock_leaks", "Loans that lasted longer than leak_after.", "leaks"),
    Named("penstock_slow_statements", "Statements slower than slow_query.", "slow"),
)
HISTOGRAMS = (
    Named(
        "db_client_connection_wait_time",
        "Time from the asking for a connection to the lending.",
        "wait",
    ),
    Named(
        "db_client_connection_use_time",
        "Time from the lending of a connection to its return.",
        "hold",
    ),
    Named(
        "db_client_connection_create_time", "Time that the opening of a connection took.", "create"
    ),
    Named("penstock_ping_time", "Time that a sign of life from a connection took.", "ping"),
    Named("penstock_commit_time", "Time that a COMMIT took.", "commit"),
)

"""What a running service tells a plan: its rate, its hold times and its server."""

from penstock.base_error import PenstockError
from penstock.planner import fitting_p99
from penstock.watch import Document, Part

_SECONDS = 60
"""The last seconds of the history from which the rate is taken."""


def only_database(document: Document, name: str | None = None) -> Part:
    """Return one database of a live document.

    Args:
        document: Of a service.
        name: Its name in ``install``; None for the only one, or that of the name ``default``.

    Raises:
        PenstockError: There is no such one.
    """
    databases = {each.text("name"): each for each in document.databases}
    wanted = next(iter(databases)) if name is None and len(databases) == 1 else name or "default"
    if (found := databases.get(wanted)) is None:
        raise PenstockError(
            f"--database {wanted}: the service shows {', '.join(databases) or 'no database'}"
        )
    return found


def measured_inputs(database: Part, instances: int) -> dict[str, object]:
    """Return what a service's telemetry tells, by the names of :class:`PlanInputs`.

    Each checkout counts as a request, and the time for which it held its connection as one query,
    so that nothing else of a request has to be known.

    Args:
        database: Of its live document.
        instances: How many there are of it; the document is of one.

    Raises:
        PenstockError: Nothing was checked out lately.
    """
    checkouts = [each or 0.0 for each in database.part("history").column("checkouts")][-_SECONDS:]
    hold = hold_of(database)
    if not sum(checkouts) or hold is None:
        raise PenstockError("No connection was checked out within the last minute: send it load")
    mean, p99, sample = hold
    limit = database.part("now").count("server_limit")
    return {
        "rate": sum(checkouts) / len(checkouts) * instances,
        "query_time": mean,
        "query_p99": p99,
        "sample": sample,
        "workers": max(1, len(database.parts("workers"))),
        "instances": instances,
        "max_connections": limit or None,
    }


def hold_of(database: Part) -> tuple[float, float, int] | None:
    """Return mean, 99th percentile and number of the hold times, the last minute's if known."""
    for when in ("recent", "times"):
        hold = database.part(when).part("hold")
        mean, p99 = hold.number("mean"), hold.number("p99")
        if (number := hold.count("count")) and mean and p99:
            return mean, fitting_p99(mean, p99), number
    return None

"""Rules about statements that a request repeats, or that hold the connections."""

from penstock.findings import Finding, Severity
from penstock.telemetry.reading import Reading, StatementUse
from penstock.telemetry.rules.capacity import bounded
from penstock.telemetry.rules.rule import moment

__all__ = ["n_plus_one", "slow_statement"]

REPEATED = 10
"""Times that one request ran the same statement, from which it looks like a loop over rows."""

FRESH = 900.0
"""Seconds after which a statement that was not seen again is history: as long as the samples'."""

HOLD_SHARE = 0.5
"""Share of all the time that connections are lent, which one statement takes."""

HOLD_SECONDS = 60.0
"""Seconds that connections have to be lent, and calls, for a share to mean something."""

SLOW_CALLS = 10
"""Calls of it, as above."""


def n_plus_one(reading: Reading) -> Finding | None:
    """A request runs one statement again and again, most likely once for each row of another."""
    repeated = [use for use in _fresh(reading) if use.most_in_request >= REPEATED]
    if not repeated:
        return None
    worst = max(repeated, key=lambda use: use.most_in_request)
    others = f" {len(repeated) - 1} more were repeated, too." if len(repeated) > 1 else ""
    return Finding(
        id="n-plus-one",
        severity=Severity.WARNING,
        evidence=(
            f"One request of {worst.route} ran the same statement {worst.most_in_request} times: "
            f"{worst.statement}.{others}"
        ),
        remedy=(
            f"Ask once for all {worst.most_in_request}: a relationship with selectinload(), "
            "anything else with a join or WHERE ... IN."
        ),
    )


def slow_statement(reading: Reading) -> Finding | None:
    """Slow calls of one statement take most of the time for which connections are lent."""
    hold = sum(
        worker.histograms["hold"].seconds
        for worker in reading.workers
        if "hold" in worker.histograms
    )
    slow = [use for use in _fresh(reading) if use.calls >= SLOW_CALLS]
    worst = max(slow, key=lambda use: use.seconds, default=None)
    if worst is None or not (hold >= HOLD_SECONDS and worst.seconds > hold * HOLD_SHARE):
        return None
    mean = worst.seconds / worst.calls
    return Finding(
        id="slow-statement",
        severity=Severity.INFO,
        evidence=(
            f"Slow calls of one statement took {worst.seconds:.0f} s of the {hold:.0f} s for which "
            f"connections were lent since the workers started: {worst.calls} calls of {mean:.2f} s "
            f"on average, {worst.longest:.2f} s at most, on {worst.route}: {worst.statement}."
        ),
        remedy=(
            "Read its EXPLAIN (ANALYZE, BUFFERS); without it the pool would be "
            f"{min(1.0, worst.seconds / hold):.0%} freer. To bound it, set command_timeout to "
            f"{bounded(worst.longest, 1, 86_400)}."
        ),
    )


def _fresh(reading: Reading) -> list[StatementUse]:
    since = moment(reading) - FRESH
    return [use for use in reading.statements if use.last_at > since]

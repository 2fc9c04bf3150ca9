"""Rules about leases: leaks, idle transactions, repeated and slow statements."""

from collections import Counter
from collections.abc import Sequence
from itertools import chain, pairwise

from penstock.findings import Finding, Severity, bounded, number_of
from penstock.telemetry.reading import STATES, LeaseSample, Reading, StatementUse, WorkerReading
from penstock.telemetry.schema import Sample

LEAK_MINUTES = 5
"""Minutes over which the number of missing connections must grow."""
SAMPLES_A_MINUTE = 30
"""Samples that a minute must have for its minimum to count."""
LEAKED = 2
"""Least number of missing connections. One may be checked out for as long as a service runs: to
listen for notifications, or to hold an advisory lock."""
RISES = 3
"""Rises that are needed among the four steps from minute to minute. A single jump is a server that
hangs, or several reports that started together."""
UNEXPLAINED = 0.5
"""Share of the growth that returned connections must leave unexplained. More traffic checks out
more connections, too, but returns them."""
LEAK_AFTER_FACTOR = 10
"""The proposed ``leak_after``, as a multiple of the 99th percentile of all leases."""
IDLE_IN_TRANSACTION_SECONDS = 10
"""Seconds with an idle transaction, of the last 60, that make a finding."""

_, IDLE_IN_TRANSACTION, _ = STATES

# Seconds after which a transaction counts as idle, in Sample.idle_in_transaction.
_IDLE_IN_TRANSACTION_AFTER = 5


def connection_leak(reading: Reading) -> Finding | None:
    """Return a finding if checked-out connections are not returned."""
    missing = [(_missing(reading, worker), worker) for worker in reading.workers]
    missing = [(count, worker) for count, worker in missing if count]
    if not missing:
        return _overdue(reading) or _past_leaks(reading)
    count, worker = max(missing, key=lambda found: found[0])
    samples = reading.recent(worker, LEAK_MINUTES * 60)
    usual = worker.histograms["hold"].quantile(0.99) if "hold" in worker.histograms else 0.0
    return Finding(
        id="connection-leak",
        severity=_severity(count, samples[-1]),
        evidence=(
            f"Possible connection leak in {reading.workers_of(len(missing))}: worker "
            f"{worker.pid} is missing {count} of {number_of(samples[-1].limit, 'connection')} "
            f"after {LEAK_MINUTES} minutes with {sum(sample.checkouts for sample in samples)} "
            f"checkouts and {sum(sample.checkins for sample in samples)} check-ins."
            f"{holder(worker.leases, reading.moment, reading.now.checked_out)}"
        ),
        remedy=(
            f"Set leak_after to {bounded(usual * LEAK_AFTER_FACTOR, 10, 60)}, which logs where "
            "each of them was checked out, and reclaim_leaks to true until that code is fixed."
        ),
    )


def idle_in_transaction(reading: Reading) -> Finding | None:
    """Return a finding if transactions stay open without a statement."""
    windows = [
        [sample for sample in reading.recent(worker, 60) if sample.idle_in_transaction]
        for worker in reading.workers
    ]
    windows = [window for window in windows if len(window) >= IDLE_IN_TRANSACTION_SECONDS]
    if not windows:
        return None
    worst = max(windows, key=len)
    most = max(sample.idle_in_transaction for sample in chain.from_iterable(windows))
    bound = _IDLE_IN_TRANSACTION_AFTER + IDLE_IN_TRANSACTION_SECONDS
    leases = chain.from_iterable(worker.leases for worker in reading.workers)
    idle = [lease for lease in leases if lease.state == IDLE_IN_TRANSACTION]
    return Finding(
        id="idle-in-transaction",
        severity=Severity.WARNING,
        evidence=(
            f"Up to {number_of(most, 'connection')} of {reading.workers_of(len(windows))} were "
            f"idle in transaction for more than {_IDLE_IN_TRANSACTION_AFTER} s, in {len(worst)} "
            "of the last 60 seconds."
            f"{holder(idle, reading.moment, reading.now.checked_out)}"
        ),
        remedy=(
            "Commit before the code waits for anything but the database. Set "
            f"idle_in_transaction_session_timeout to {bound}s in server_settings (behind a pooler: "
            f"ALTER ROLE ... SET), so that the server ends such transactions after {bound} s."
        ),
    )


def _missing(reading: Reading, worker: WorkerReading) -> int:
    minutes = _by_minute(reading, worker)
    if any(len(minute) < SAMPLES_A_MINUTE for minute in minutes):
        return 0
    samples = list(chain.from_iterable(minutes))
    if all(sample.checked_out >= sample.limit > 0 for sample in samples):
        returned = any(sample.checkins for sample in samples)
        # Without other requests they may be checked out by long jobs.
        missed = any(sample.waiting or sample.rejected for sample in samples)
        return minutes[-1][-1].checked_out if missed and not returned else 0
    lowest = [min(sample.checked_out for sample in minute) for minute in minutes]
    steps = [later - earlier for earlier, later in pairwise(lowest)]
    growth = lowest[-1] - lowest[0]
    if min(steps) < 0 or sum(step > 0 for step in steps) < RISES or growth < LEAKED:
        return 0
    came_back = sum(sample.hold_seconds for sample in minutes[-1]) / len(minutes[-1])
    return growth if lowest[-1] - came_back >= max(LEAKED, growth * UNEXPLAINED) else 0


def _by_minute(reading: Reading, worker: WorkerReading) -> list[list[Sample]]:
    until = reading.moment
    minutes: list[list[Sample]] = [[] for _ in range(LEAK_MINUTES)]
    for sample in reading.recent(worker, LEAK_MINUTES * 60):
        minutes[-1 - int((until - sample.at) // 60)].append(sample)
    return minutes


def _severity(count: int, now: Sample) -> Severity:
    return Severity.CRITICAL if 0 < now.limit <= 2 * count else Severity.WARNING


def _overdue(reading: Reading) -> Finding | None:
    leases = [lease for worker in reading.workers for lease in worker.leases if lease.is_overdue]
    if not leases:
        return None
    return Finding(
        id="connection-leak",
        severity=_severity(len(leases), reading.now),
        evidence=(
            f"Possible connection leak: {len(leases)} of {reading.now.checked_out} checked-out "
            "connections exceeded leak_after."
            f"{holder(leases, reading.moment, reading.now.checked_out)}"
        ),
        remedy=(
            "The log of penstock.pool shows where each was checked out, and where its task is "
            "now. Set reclaim_leaks to true until that code is fixed, or raise leak_after if the "
            "leases are meant to last."
        ),
    )


def _past_leaks(reading: Reading) -> Finding | None:
    leaks = sum(worker.counters.leaks for worker in reading.workers)
    if not leaks:
        return None
    return Finding(
        id="connection-leak",
        severity=Severity.INFO,
        evidence=(
            f"{number_of(leaks, 'connection')} {'was' if leaks == 1 else 'were'} checked out for "
            "longer than leak_after since the workers started; none is at the moment."
        ),
        remedy=(
            "The log of penstock.pool shows where each was checked out, and for how long. Set "
            "reclaim_leaks to true if these are leaks, or raise leak_after if they are not."
        ),
    )


REPEATED = 10
"""Number of times that one request runs a statement from which it looks like a loop over rows."""
STATEMENT_WINDOW = 900.0
"""Seconds for which a statement is reported after its last call, as long as samples are kept."""
HOLD_SHARE = 0.5
"""Share of the total checkout time that one statement must take."""
HOLD_SECONDS = 60.0
"""Total checkout time in seconds from which that share is significant."""
SLOW_CALLS = 10
"""Slow calls of the statement from which that share is significant."""


def n_plus_one(reading: Reading) -> Finding | None:
    """Return a finding if a request repeats one statement, most likely for each row of another."""
    repeated = [use for use in _recent_statements(reading) if use.most_in_request >= REPEATED]
    if not repeated:
        return None
    worst = max(repeated, key=lambda use: use.most_in_request)
    others = len(repeated) - 1
    were = "was" if others == 1 else "were"
    also = f" {number_of(others, 'other statement')} {were} repeated as well." if others else ""
    return Finding(
        id="n-plus-one",
        severity=Severity.WARNING,
        evidence=(
            f"One request of {worst.route} ran the same statement {worst.most_in_request} times: "
            f"{worst.statement}.{also}"
        ),
        remedy=(
            f"Load all {worst.most_in_request} with one statement: selectinload() for a "
            "relationship, otherwise a join or WHERE ... IN."
        ),
    )


def slow_statement(reading: Reading) -> Finding | None:
    """Return a finding if slow calls of one statement take most of the total checkout time."""
    hold = sum(
        worker.histograms["hold"].seconds
        for worker in reading.workers
        if "hold" in worker.histograms
    )
    slow = [use for use in _recent_statements(reading) if use.calls >= SLOW_CALLS]
    worst = max(slow, key=lambda use: use.seconds, default=None)
    if worst is None or not (hold >= HOLD_SECONDS and worst.seconds > hold * HOLD_SHARE):
        return None
    mean = worst.seconds / worst.calls
    return Finding(
        id="slow-statement",
        severity=Severity.INFO,
        evidence=(
            f"Slow calls of one statement took {worst.seconds:.0f} s of the {hold:.0f} s for which "
            f"connections were checked out since the workers started: {worst.calls} calls on "
            f"{worst.route}, {mean:.2f} s on average, {worst.longest:.2f} s at most: "
            f"{worst.statement}."
        ),
        remedy=(
            "Look at its EXPLAIN (ANALYZE, BUFFERS); it accounts for "
            f"{min(1.0, worst.seconds / hold):.0%} of the load on the pool. To limit its duration, "
            f"set command_timeout to {bounded(worst.longest, 1, 86_400)}."
        ),
    )


def _recent_statements(reading: Reading) -> list[StatementUse]:
    since = reading.moment - STATEMENT_WINDOW
    return [use for use in reading.statements if use.last_at > since]


def holders(reading: Reading, samples: Sequence[Sample]) -> str:
    """Return which route holds most of a worker's checked-out connections now.

    Args:
        reading: Reading of the database.
        samples: Samples of the worker; at least one.

    Returns:
        A sentence with a space before it; empty when no lease is known.
    """
    worker = reading.worker_of(samples[-1])
    return holder(worker.leases, reading.moment, worker.now.checked_out)


def holder(leases: Sequence[LeaseSample], now: float, out: int) -> str:
    """Return which route holds most of some leases.

    Args:
        leases: Leases of one or more workers.
        now: Unix time.
        out: Total number of checked-out connections.

    Returns:
        A sentence with a space before it; empty without leases.
    """
    counts = Counter(lease.route for lease in leases)
    if not counts:
        return ""
    (route, count), *_ = counts.most_common(1)
    oldest = now - min(lease.since for lease in leases if lease.route == route)
    return (
        f" {route} now holds {count} of {number_of(max(out, count), 'connection')}, "
        f"the oldest for {max(0.0, oldest):.1f} s."
    )

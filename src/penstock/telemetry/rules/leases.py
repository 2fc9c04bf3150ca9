"""Rules about leases: connections that do not come back or are not used, and their statements."""

from collections.abc import Sequence
from itertools import chain, pairwise

from penstock.findings import Finding, Severity
from penstock.telemetry.reading import STATES, LeaseSample, Reading, StatementUse, WorkerReading
from penstock.telemetry.rules.rule import bounded, held_by, moment, of_workers, recent
from penstock.telemetry.schema import Sample

__all__ = ["connection_leak", "idle_in_transaction", "n_plus_one", "slow_statement"]

LEAK_MINUTES = 5
"""Minutes over which connections are missed (SPEC T20)."""

SAMPLES_A_MINUTE = 30
"""Samples that a minute needs for its lowest number to count."""

LEAKED = 2
"""Connections that have to be missing. One may be checked out for good reasons for as long as a
service
runs: to listen for notifications, or to hold an advisory lock."""

RISES = 3
"""Of the four steps from one minute to the next, those that have to lead up. One jump is a server
that hangs, or a handful of reports that began together."""

UNEXPLAINED = 0.5
"""Share of the growth that leases which came back may not explain. More traffic hands out more
connections too, but gives them back."""

LONGEST_USUAL_LEASE = 10
"""Times by which a lease is longer than 99 % of all, when it is worth reporting."""

IDLE_IN_TRANSACTION_SECONDS = 10
"""Of the last 60 seconds, those in which a transaction rested."""

_, IDLE_IN_TRANSACTION, _ = STATES

# Seconds after which a transaction counts as resting, in Sample.idle_in_transaction.
_IDLE_IN_TRANSACTION_AFTER = 5


def connection_leak(reading: Reading) -> Finding | None:
    """Checked out connections do not come back."""
    missing = [(_missing(reading, worker), worker) for worker in reading.workers]
    missing = [(count, worker) for count, worker in missing if count]
    if not missing:
        return _overdue(reading) or _past_leaks(reading)
    count, worker = max(missing, key=lambda found: found[0])
    samples = recent(reading, worker, LEAK_MINUTES * 60)
    usual = worker.histograms["hold"].quantile(0.99) if "hold" in worker.histograms else 0.0
    return Finding(
        id="connection-leak",
        severity=_severity(count, samples[-1]),
        evidence=(
            f"{of_workers(len(missing), reading)} checked-out connections do not come back: in "
            f"worker {worker.pid} {count} of {samples[-1].limit} within {LEAK_MINUTES} minutes, "
            f"with {sum(sample.checkins for sample in samples)} check-ins to "
            f"{sum(sample.checkouts for sample in samples)} checkouts."
            f"{_held_now(worker.leases, reading)}"
        ),
        remedy=(
            f"Set leak_after to {bounded(usual * LONGEST_USUAL_LEASE, 10, 60)}, which logs where "
            "each of them was checked out, and reclaim_leaks to true until that place is recovered."
        ),
    )


def idle_in_transaction(reading: Reading) -> Finding | None:
    """Transactions stay open while nothing runs in them."""
    rests = [
        [sample for sample in recent(reading, worker, 60) if sample.idle_in_transaction]
        for worker in reading.workers
    ]
    rests = [rest for rest in rests if len(rest) >= IDLE_IN_TRANSACTION_SECONDS]
    if not rests:
        return None
    worst = max(rests, key=len)
    most = max(sample.idle_in_transaction for sample in chain.from_iterable(rests))
    bound = _IDLE_IN_TRANSACTION_AFTER + IDLE_IN_TRANSACTION_SECONDS
    leases = chain.from_iterable(worker.leases for worker in reading.workers)
    resting = [lease for lease in leases if lease.state == IDLE_IN_TRANSACTION]
    return Finding(
        id="idle-in-transaction",
        severity=Severity.WARNING,
        evidence=(
            f"{of_workers(len(rests), reading)} up to {most} checked-out connection(s) were "
            f"idle in transaction for {_IDLE_IN_TRANSACTION_AFTER} s or more, in {len(worst)} of "
            f"the last 60 seconds.{_held_now(resting, reading)}"
        ),
        remedy=(
            "Commit before waiting for anything but the database. Set "
            f"idle_in_transaction_session_timeout to {bound}s in server_settings (behind a pooler: "
            f"ALTER ROLE ... SET), so that the server ends what rests for {bound} s."
        ),
    )


def _missing(reading: Reading, worker: WorkerReading) -> int:
    minutes = _by_minute(reading, worker)
    if any(len(minute) < SAMPLES_A_MINUTE for minute in minutes):
        return 0
    samples = list(chain.from_iterable(minutes))
    if all(sample.checked_out >= sample.limit > 0 for sample in samples):
        returned = any(sample.checkins for sample in samples)
        # Where nobody else asks for one, they may be checked out to jobs that take their time.
        missed = any(sample.waiting or sample.refused for sample in samples)
        return minutes[-1][-1].checked_out if missed and not returned else 0
    lowest = [min(sample.checked_out for sample in minute) for minute in minutes]
    steps = [later - earlier for earlier, later in pairwise(lowest)]
    growth = lowest[-1] - lowest[0]
    if min(steps) < 0 or sum(step > 0 for step in steps) < RISES or growth < LEAKED:
        return 0
    came_back = sum(sample.hold_seconds for sample in minutes[-1]) / len(minutes[-1])
    return growth if lowest[-1] - came_back >= max(LEAKED, growth * UNEXPLAINED) else 0


def _by_minute(reading: Reading, worker: WorkerReading) -> list[list[Sample]]:
    until = moment(reading)
    minutes: list[list[Sample]] = [[] for _ in range(LEAK_MINUTES)]
    for sample in recent(reading, worker, LEAK_MINUTES * 60):
        minutes[-1 - int((until - sample.at) // 60)].append(sample)
    return minutes


def _severity(count: int, now: Sample) -> Severity:
    return Severity.CRITICAL if 0 < now.limit <= 2 * count else Severity.WARNING


def _overdue(reading: Reading) -> Finding | None:
    leases = [lease for worker in reading.workers for lease in worker.leases if lease.is_overdue]
    if not leases:
        return None
    held = held_by(leases, moment(reading), reading.now.checked_out)
    return Finding(
        id="connection-leak",
        severity=_severity(len(leases), reading.now),
        evidence=(
            f"{len(leases)} of {reading.now.checked_out} connections that are checked out have "
            f"been for longer than leak_after: {held}."
        ),
        remedy=(
            "The log of penstock.pool says where each was checked out, and where its holder is "
            "now. Set reclaim_leaks to true until that place is fixed, or a longer leak_after if "
            "they are meant to last."
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
            f"{leaks} lease(s) lasted longer than leak_after since the workers started; none that "
            "is known does just now."
        ),
        remedy=(
            "The log of penstock.pool says where each was checked out, and for how long. Set "
            "reclaim_leaks to true if they are mistakes, or a longer leak_after if not."
        ),
    )


def _held_now(leases: Sequence[LeaseSample], reading: Reading) -> str:
    held = held_by(leases, moment(reading), reading.now.checked_out)
    return f" Now {held}." if held else ""


REPEATED = 10
"""Times that one request ran the same statement, from which it looks like a loop over rows."""

FRESH = 900.0
"""Seconds after which a statement that was not seen again is history: as long as the samples'."""

HOLD_SHARE = 0.5
"""Share of all the time that connections are checked out, which one statement takes."""

HOLD_SECONDS = 60.0
"""Seconds that connections have to be checked out, and calls, for a share to mean something."""

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
    """Slow calls of one statement take most of the time for which connections are checked out."""
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
            f"connections were checked out since the workers started: {worst.calls} calls of "
            f"{mean:.2f} s on average, {worst.longest:.2f} s at most, on "
            f"{worst.route}: {worst.statement}."
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

"""Rules about the capacity plan: whether the service runs as it was planned."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import floor, sqrt

from penstock.findings import Finding, Severity, number_of
from penstock.telemetry.reading import PlannedLoad, Reading
from penstock.telemetry.schema import Sample

BLOCK = 15
"""Seconds over which each number is taken; the newest that is over counts."""
DRIFTED = 1.25
"""Multiple of a planned number, beside chance, above which two blocks in a row are a drift."""
RETURNED = 1.1
"""Multiple down to which two blocks in a row end it. In between it stays as it was, so that a load
near the limit does not come and go."""
BLOCKS = 60
"""Blocks that are looked at: 15 minutes, for which samples are kept."""
LEAST_CHECKINS = 30
"""Returned connections of a block below which their mean hold time is not significant."""


def plan_drift(reading: Reading) -> Finding | None:
    """Return a finding if the load, the hold times or the workers are beyond the plan."""
    plan = reading.plan
    if plan is None:
        return None
    blocks, limit = _blocks(reading), DRIFTED + _noise(plan)
    drifts = [
        text
        for numbers, planned, text in (
            ([each.rate for each in blocks], plan.checkouts, "{:.1f} checkouts per second"),
            ([each.hold for each in blocks], plan.hold, "connections held for {:.4f} s on average"),
            ([each.used for each in blocks], plan.utilisation, "{:.3f} of the connections in use"),
        )
        if _is_beyond(numbers, planned, limit)
        for text in [f"{text.format(max(numbers[-2:]))} (planned: {planned:.4g})"]
    ]
    drifts += _counts(reading, plan)
    if not drifts:
        return None
    text = "; ".join(drifts)
    return Finding(
        id="plan-drift",
        severity=Severity.WARNING,
        evidence=f"The service has drifted from its plan: {text}.",
        remedy=_remedy(reading, plan, blocks),
    )


@dataclass(frozen=True, slots=True)
class _Block:
    rate: float
    hold: float
    used: float

    @classmethod
    def of(cls, samples: Sequence[Sample], connections: int) -> "_Block":
        checkins = sum(sample.checkins for sample in samples)
        held = sum(sample.hold_seconds for sample in samples)
        return cls(
            rate=sum(sample.checkouts for sample in samples) / BLOCK,
            hold=held / checkins if checkins >= LEAST_CHECKINS else 0.0,
            used=held / BLOCK / connections if connections else 0.0,
        )


def _blocks(reading: Reading) -> list[_Block]:
    """Return the blocks that are over, of all workers together, oldest first."""
    found: dict[int, list[Sample]] = {}
    for worker in reading.workers:
        for sample in worker.history:
            found.setdefault(floor(sample.at / BLOCK), []).append(sample)
    newest = floor(reading.moment / BLOCK)
    connections = sum(worker.now.limit for worker in reading.workers)
    first = min(found, default=newest)
    return [
        _Block.of(found.get(number, []), connections)
        for number in range(max(first, newest - BLOCKS), newest)
    ]


def _noise(plan: PlannedLoad) -> float:
    """Return the share by which a block of the planned load varies by chance.

    It is three standard deviations of the total hold time of Poisson arrivals with exponential
    holds, relative to its mean.
    """
    expected = plan.checkouts * BLOCK
    return 3 * sqrt(2 / expected) if expected > 0 else 0.0


def _is_beyond(numbers: Sequence[float], planned: float, limit: float) -> bool:
    is_beyond = False
    for pair in pairwise(numbers):
        if min(pair) > planned * limit:
            is_beyond = True
        elif max(pair) <= planned * RETURNED:
            is_beyond = False
    return is_beyond


def _counts(reading: Reading, plan: PlannedLoad) -> list[str]:
    # In a deployment the workers of before are there as well, for a while.
    workers = [each for each in reading.workers if reading.moment - each.started >= 2 * BLOCK]
    found = []
    if len(workers) > plan.workers:
        found.append(f"{number_of(len(workers), 'worker')} (planned: {plan.workers})")
    if plan.declared_instances > plan.instances:
        declared = number_of(plan.declared_instances, "instance")
        found.append(f"{declared} by the settings (planned: {plan.instances})")
    return found


def _remedy(reading: Reading, plan: PlannedLoad, blocks: Sequence[_Block]) -> str:
    instances = max(plan.instances, plan.declared_instances)
    rate = max((each.rate for each in blocks[-2:]), default=0.0) or plan.checkouts
    workers = max(len(reading.workers), 1)
    hold = max((each.hold for each in blocks[-2:]), default=0.0) or plan.hold
    return (
        f"Plan again for what is measured: penstock plan --rate {rate * instances:.4g} "
        f"--query-time {hold * 1000:.4g}ms --workers {workers} --instances {instances}, or find in "
        "the table of routes what uses more connections than it did."
    )

"""What the pool's own work costs: a lease of an idle connection, and a hand-off."""

import asyncio
import gc
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.lease_cpu import Subject, measure_loans
from benchmarks.ledger_cpu import measure_ledger
from benchmarks.pools import engine_on
from benchmarks.progress import progress
from benchmarks.result import Figures, Result, Target, median
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlalchemy.util import greenlet_spawn
from tests.servers.postgres import postgres_server

QUEUES = (10, 10_000)
SUBJECTS = {
    "penstock": Subject("penstock"),
    "stock": Subject("stock"),
    "leak_after": Subject("penstock", {"leak_after": 60.0}),
    "telemetry": Subject("penstock", is_counted=True),
    "penstock_rested": Subject("penstock", {"pool_size": 50}, connections=50, rest=0.002),
    "stock_rested": Subject("stock", {"pool_size": 50}, connections=50, rest=0.002),
}


@dataclass(frozen=True)
class Lengths:
    """Rounds and leases per round; hand-offs take a preparation, so that there are fewer rounds."""

    rounds: int
    leases: int
    hand_off_rounds: int


LONG = Lengths(rounds=240, leases=1000, hand_off_rounds=7)
SHORT = Lengths(rounds=2, leases=100, hand_off_rounds=1)

Rounds = dict[str, list[float]]
"""Microseconds of CPU in each round, by what was measured."""


def run(short: bool) -> Result:
    """Measure leases through SQLAlchemy on both pools, hand-offs, and the ledger alone.

    Args:
        short: Whether it is enough to see it work.

    Returns:
        Microseconds of CPU per lease and per hand-off, and their ratios; medians of the rounds.
    """
    lengths = SHORT if short else LONG
    with (
        postgres_server() as server,
        server.database() as url,
        progress("pool_cpu", lengths.rounds + lengths.hand_off_rounds) as advance,
    ):
        leases = measure_loans(url, SUBJECTS, lengths.rounds, lengths.leases, advance)
        hand_offs = asyncio.run(_hand_offs(url, lengths, advance))
    ledger = measure_ledger(lengths.rounds, lengths.leases, QUEUES)
    figures = {
        "loan_us": _compared(leases["penstock"], leases["stock"]),
        "loan_us_after_2_ms_of_rest": _compared(leases["penstock_rested"], leases["stock_rested"]),
        **_added("leak_after", leases),
        **_added("telemetry", leases),
        "ledger_loan_us": {"penstock": median(ledger["lease"], 3)},
        **_hand_off_figures("ledger_hand_off_us", ledger),
        **_hand_off_figures("pool_hand_off_us", hand_offs),
    }
    conditions = {"rounds": lengths.rounds, "loans_per_round": lengths.leases}
    return Result("pool_cpu", conditions, figures, _targets(figures))


def _targets(figures: Figures) -> dict[str, Target]:
    many = QUEUES[-1]
    return {
        "loan_us_over_stock": Target(figures["loan_us"]["ratio"], at_most=1.0),
        "leak_after_adds_us": Target(figures["leak_after_adds_us"]["penstock"], at_most=3.0),
        "telemetry_adds_us": Target(figures["telemetry_adds_us"]["penstock"], at_most=1.5),
        "ledger_loan_us": Target(figures["ledger_loan_us"]["penstock"], at_most=3.0),
        **{
            f"{who}_hand_off_10000_over_10": Target(
                figures[f"{who}_hand_off_us_{many}_waiters"]["ratio"], at_most=1.5
            )
            for who in ("ledger", "pool")
        },
    }


def _compared(ours: Sequence[float], stock: Sequence[float]) -> dict[str, Any]:
    return {"penstock": median(ours, 2), "stock": median(stock, 2), **_ratio(ours, stock)}


def _ratio(ones: Sequence[float], others: Sequence[float]) -> dict[str, Any]:
    ratios = [one / other for one, other in zip(ones, others, strict=True)]
    return {
        "ratio": median(ratios, 3),
        "ratio_quartiles": [round(ratio, 3) for ratio in statistics.quantiles(ratios, n=4)[::2]]
        if len(ratios) > 1
        else [],
    }


def _added(what: str, leases: Rounds) -> dict[str, dict[str, Any]]:
    more, plain = leases[what], leases["penstock"]
    adds = [one - other for one, other in zip(more, plain, strict=True)]
    return {
        f"loan_us_with_{what}": {"penstock": median(more, 2)},
        f"{what}_adds_us": {"penstock": median(adds, 2)},
    }


def _hand_off_figures(what: str, measured: Rounds) -> dict[str, dict[str, Any]]:
    few, many = (measured[str(waiters)] for waiters in QUEUES)
    return {
        f"{what}_{QUEUES[0]}_waiters": {"penstock": median(few, 3)},
        f"{what}_{QUEUES[1]}_waiters": {"penstock": median(many, 3), **_ratio(many, few)},
    }


async def _hand_offs(url: str, lengths: Lengths, advance: Callable[[], None]) -> Rounds:
    measured: Rounds = {str(waiters): [] for waiters in QUEUES}
    # Nobody is to be refused, however long it takes to have all of them wait.
    settings = {"pool_size": 1, "max_overflow": 0, "pool_timeout": 1e6}
    async with engine_on(url, "penstock", **settings) as engine:
        for _ in range(lengths.hand_off_rounds):
            for waiters in QUEUES:
                measured[str(waiters)].append(await _hand_off_us(engine, waiters, lengths.leases))
            advance()
    return measured


async def _hand_off_us(engine: AsyncEngine, waiters: int, leases: int) -> float:
    pool, left, wait_done = engine.sync_engine.pool, leases, 0.0

    def checkout() -> None:
        nonlocal left, wait_done
        while left > 0:  # so that as many as before go on waiting
            pool.connect().close()
            left -= 1
            if left == 0:
                wait_done = time.thread_time()

    async with asyncio.TaskGroup() as group, engine.connect():
        for _ in range(waiters):
            group.create_task(greenlet_spawn(checkout))
        await asyncio.sleep(0)  # each has its turn, and begins to wait
        gc.collect()
        begun = time.thread_time()
    return (wait_done - begun) / leases * 1e6

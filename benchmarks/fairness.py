"""Whether tasks that ask equally often are served equally often."""

import asyncio

from benchmarks.pools import POOLS, engine_on, fill, turns
from benchmarks.progress import progress
from benchmarks.result import Result, Target, medians
from sqlalchemy.ext.asyncio import AsyncEngine
from tests.servers.postgres import postgres_server

TASKS = 200
CONNECTIONS = 5
QUERY = "SELECT pg_sleep(0.002)"
ROUNDS, SECONDS = 3, 10.0
SHORT_ROUNDS, SHORT_SECONDS = 1, 0.5


def run(short: bool) -> Result:
    """Let many tasks share few connections, on both pools in turn.

    Args:
        short: Whether it is enough to see it work.

    Returns:
        How many times as many leases the busiest task had as the idlest one, the share of leases
        that a later caller had overtaken, and leases per second; medians of the rounds.
    """
    rounds, seconds = (SHORT_ROUNDS, SHORT_SECONDS) if short else (ROUNDS, SECONDS)
    with postgres_server() as server, server.database() as url:
        measured = asyncio.run(_measure(url, rounds, seconds))
    figures = medians(measured)
    return Result(
        "fairness",
        {"tasks": TASKS, "connections": CONNECTIONS, "rounds": rounds, "seconds": seconds},
        figures,
        {
            "busiest_over_idlest": Target(figures["busiest_over_idlest"]["penstock"], at_most=1.05),
        },
    )


async def _measure(url: str, rounds: int, seconds: float) -> dict[str, list[dict[str, float]]]:
    measured: dict[str, list[dict[str, float]]] = {pool: [] for pool in POOLS}
    order = turns(rounds)
    with progress("fairness", len(order)) as advance:
        for pool in order:
            async with engine_on(
                url, pool, pool_size=CONNECTIONS, max_overflow=0, pool_timeout=60.0
            ) as engine:
                await fill(engine, CONNECTIONS)
                measured[pool].append(await _share(engine, seconds))
            advance()
    return measured


async def _share(engine: AsyncEngine, seconds: float) -> dict[str, float]:
    loop = asyncio.get_running_loop()
    end = loop.time() + seconds
    leases = [0] * TASKS
    asked = granted = overtaken = 0

    async def work(task: int) -> None:
        nonlocal asked, granted, overtaken
        while loop.time() < end:
            asked += 1
            number = asked
            async with engine.connect() as connection:
                overtaken += number < granted
                granted = max(granted, number)
                await connection.exec_driver_sql(QUERY)
            leases[task] += 1

    async with asyncio.TaskGroup() as group:
        for task in range(TASKS):
            group.create_task(work(task))
    return {
        "busiest_over_idlest": max(leases) / max(1, min(leases)),
        "overtaken_share": overtaken / sum(leases),
        "loans_per_second": sum(leases) / seconds,
    }

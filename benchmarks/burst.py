"""How many connections bursts cost that come again and again."""

import asyncio
from dataclasses import dataclass, field

from benchmarks.pools import POOLS, engine_on
from benchmarks.progress import progress
from benchmarks.result import Result, Target, median
from sqlalchemy import event
from sqlalchemy.ext.asyncio import AsyncEngine
from tests.servers.postgres import postgres_server

POOL_SIZE = 5
MAX_OVERFLOW = 10
LEASES = POOL_SIZE + MAX_OVERFLOW
QUERY = "SELECT pg_sleep(0.02)"
BURSTS, EVERY = 20, 1.0
SHORT_BURSTS, SHORT_EVERY = 3, 0.2


@dataclass
class Pool:
    """One pool's bursts: connections opened up to the end of each, and the seconds it took."""

    connects: list[int] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    opened: int = 0

    def count_connect(self, *_: object) -> None:
        """Listen to the event ``connect``."""
        self.opened += 1


def run(short: bool) -> Result:
    """Hand out everything that a pool may open, once a second, on both pools half a second apart.

    Args:
        short: Whether it is enough to see it work.

    Returns:
        The connections opened by the first burst, by the later ones and by the worst later one,
        and the milliseconds that later bursts took.
    """
    bursts, every = (SHORT_BURSTS, SHORT_EVERY) if short else (BURSTS, EVERY)
    with postgres_server() as server, server.database() as url:
        pools = asyncio.run(_measure(url, bursts, every))
    later = {name: sum(pool.connects[1:]) for name, pool in pools.items()}
    milliseconds = {name: [1000 * s for s in pool.seconds[1:]] for name, pool in pools.items()}
    return Result(
        "burst",
        {"leases": LEASES, "pool_size": POOL_SIZE, "bursts": bursts, "every_seconds": every},
        {
            "connects_in_first_burst": {name: pool.connects[0] for name, pool in pools.items()},
            "connects_after_first_burst": later,
            "connects_in_worst_later_burst": {
                name: max(pool.connects[1:]) for name, pool in pools.items()
            },
            "later_burst_ms": {name: median(ms, 1) for name, ms in milliseconds.items()},
            "worst_later_burst_ms": {name: round(max(ms), 1) for name, ms in milliseconds.items()},
        },
        {"connects_after_first_burst": Target(later["penstock"], at_most=0)},
    )


async def _measure(url: str, bursts: int, every: float) -> dict[str, Pool]:
    pools = {name: Pool() for name in POOLS}
    loop = asyncio.get_running_loop()
    begun = loop.time()
    with progress("burst", bursts * len(pools)) as advance:

        async def repeat(name: str, offset: float) -> None:
            limits = {"pool_size": POOL_SIZE, "max_overflow": MAX_OVERFLOW}
            async with engine_on(url, name, **limits) as engine:
                event.listen(engine.sync_engine, "connect", pools[name].count_connect)
                for burst in range(bursts):
                    await asyncio.sleep(begun + offset + burst * every - loop.time())
                    await _burst(engine, pools[name])
                    advance()

        async with asyncio.TaskGroup() as group:
            for place, name in enumerate(pools):
                group.create_task(repeat(name, every * place / len(pools)))
    return pools


async def _burst(engine: AsyncEngine, pool: Pool) -> None:
    loop = asyncio.get_running_loop()
    # Everybody holds a connection before anybody returns one: this is what makes the burst as
    # large as it claims to be, also on a machine where opening takes longer than the query.
    everybody = asyncio.Barrier(LEASES)

    async def lease() -> None:
        async with engine.connect() as connection:
            await everybody.wait()
            await connection.exec_driver_sql(QUERY)

    begun = loop.time()
    async with asyncio.timeout(60), asyncio.TaskGroup() as group:
        for _ in range(LEASES):
            group.create_task(lease())
    pool.connects.append(pool.opened - sum(pool.connects))
    pool.seconds.append(loop.time() - begun)

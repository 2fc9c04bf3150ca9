"""HttpArena's two profiles of a database: its FastAPI entry's way, and Penstock's express lane."""

from benchmarks.contest import RATE, Lengths, contest
from benchmarks.dataset import items_database, roomy_server
from benchmarks.http_load import CLIENTS, Rotation, Traffic
from benchmarks.progress import progress
from benchmarks.result import Result
from benchmarks.service import Peer

PEERS = {
    "asyncpg_pool": Peer("httparena.asyncpg_pool"),
    "asyncpg_pool_gc": Peer("httparena.asyncpg_pool", tune_gc="all"),
    "express": Peer("httparena.express"),
}
LIMITS = (5, 10, 20, 35, 50)
READ = Traffic("/crud/items/ID", ids=50_000)
UPDATE = Traffic(
    "/crud/items/ID", "PUT", '{"name": "Updated Product", "price": 200, "quantity": 25}', ids=50_000
)
LIST = Traffic("/crud/items?category=office&page=ID&limit=10", ids=10)
CREATE = Traffic(
    "/crud/items",
    "POST",
    '{"id": NEXT, "name": "New Product", "category": "test", "price": 150, "quantity": 30}',
)
TRAFFICS = {
    "async_db": Rotation([Traffic(f"/async-db?min=10&max=50&limit={limit}") for limit in LIMITS]),
    # Of twenty requests fifteen read, three update, one lists and one creates.
    "crud": Rotation([*3 * [*5 * [READ], UPDATE], LIST, CREATE]),
}
LONG = Lengths(generations=2, rounds=3, seconds=2.0, warm_up=1.0)
SHORT = Lengths(generations=1, rounds=1, seconds=0.2, warm_up=0.1)


def run(short: bool) -> Result:
    """Measure both profiles on all peers in turn, on one database.

    Args:
        short: Whether it is enough to see it work.

    Returns:
        By profile the medians of requests per second, latency and CPU, and their ratios with the
        spread of the rounds; no targets.
    """
    lengths = SHORT if short else LONG
    with (
        roomy_server() as server,
        items_database(server) as url,
        progress("httparena", lengths.turns(len(PEERS), len(TRAFFICS))) as advance,
    ):
        measured = contest(PEERS, TRAFFICS, lengths, url, advance)
    figures = {
        profile: each.figures(
            "asyncpg_pool", "express", best_by_hand=each.fastest(p for p in PEERS if p != "express")
        )
        for profile, each in measured.items()
    }
    return Result(
        "httparena",
        {"clients": CLIENTS, "rounds": lengths.turns(1), "seconds": lengths.seconds},
        figures["async_db"],
        beside={"crud": figures["crud"]},
        charts=(RATE, "p99_ms"),
    )

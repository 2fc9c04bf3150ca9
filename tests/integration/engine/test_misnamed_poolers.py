"""What stands there counts for more than what ``proxy`` calls it."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from sqlalchemy import text
from tests.integration.engine.test_poolers import DRIVERS, database_on, found
from tests.integration.express.leftovers import CLEAN, SERVERS, leftovers
from tests.servers.pgbouncer import (
    Era,
    PgbouncerServer,
    newest_pgbouncer,
    pgbouncer_of,
    pgbouncer_server,
)
from tests.servers.postgres import PostgresServer

from penstock import Database
from penstock.base_error import PenstockError
from penstock.errors import SettingsError
from penstock.settings import PROXIES, PoolMode, Proxy

POOLERS = [proxy for proxy in Proxy if PROXIES[proxy].pool_mode is not None]
KEEPING = [proxy for proxy in POOLERS if PROXIES[proxy].pool_mode is not PoolMode.TRANSACTION]


@dataclass(frozen=True)
class Standing:
    binary: Callable[[], Path]
    mode: str
    followed: int | None = None
    tells: bool = False

    def accepts_statements(self, proxy: Proxy) -> bool:
        if self.mode == "session":
            return self.tells or proxy in KEEPING
        return bool(self.followed)


def blind() -> Path:
    return pgbouncer_of(Era.BLIND)


def following() -> Path:
    return pgbouncer_of(Era.FOLLOWING)


STANDING = {
    "before-1.21-transaction": Standing(blind, "transaction"),
    "before-1.21-session": Standing(blind, "session"),
    "since-1.21-transaction-0": Standing(following, "transaction", 0),
    "since-1.21-transaction-100": Standing(following, "transaction", 100),
    "since-1.26-transaction-0": Standing(newest_pgbouncer, "transaction", 0, tells=True),
    "since-1.26-session-0": Standing(newest_pgbouncer, "session", 0, tells=True),
}


@pytest.fixture(scope="module", params=STANDING.values(), ids=list(STANDING))
def standing(request: pytest.FixtureRequest) -> Standing:
    return request.param  # type: ignore[no-any-return]


@pytest.fixture(scope="module")
def pooler(standing: Standing, postgres: PostgresServer) -> Iterator[PgbouncerServer]:
    with pgbouncer_server(
        postgres,
        binary=standing.binary(),
        pool_mode=standing.mode,
        default_pool_size=SERVERS,
        max_prepared_statements=standing.followed,
    ) as server:
        yield server


async def check_shared(database: Database, proxy: Proxy) -> None:
    assert found(database).shares_server
    ids = [finding.id for finding in database.diagnose()]
    assert ("misnamed-pooler" in ids) == (proxy in KEEPING)
    for statement in ("SET work_mem = '5MB'", "SELECT pg_advisory_lock(1)"):
        with pytest.raises(PenstockError, match="is refused: the pooler in between"):
            await database.writer.execute(text(statement))


async def check_kept(database: Database) -> None:
    assert not found(database).shares_server
    assert "misnamed-pooler" not in [finding.id for finding in database.diagnose()]
    await database.writer.execute(text("SET work_mem = '5MB'"))


@pytest.mark.parametrize("driver", DRIVERS)
async def test_what_is_found_counts_for_every_name(
    pooler: PgbouncerServer, standing: Standing, database_url: str, driver: str
) -> None:
    url = pooler.url(database_url)
    for proxy in POOLERS if driver == "asyncpg" else KEEPING:
        for cache in (0, 100):
            database = database_on(url, driver, proxy=proxy, statement_cache_size=cache)
            if cache and not standing.accepts_statements(proxy):
                with pytest.raises(SettingsError, match="statement_cache_size=100") as refused:
                    await database.open()
                is_named = f"proxy='{proxy}'" in str(refused.value)
                assert is_named == (proxy in KEEPING), (proxy, str(refused.value))
                await database.close()
                continue
            async with database:
                if standing.mode == "transaction":
                    await check_shared(database, proxy)
                else:
                    await check_kept(database)
    kept = {thing.split()[0] for each in await leftovers(url) for thing in each}
    assert kept <= ({"prepared"} if standing.followed else set()), kept


@pytest.mark.parametrize("proxy", KEEPING)
async def test_nothing_is_refused_by_default_where_the_name_is_wrong(
    pooler: PgbouncerServer, standing: Standing, database_url: str, proxy: Proxy
) -> None:
    url = pooler.url(database_url)
    async with database_on(url, proxy=proxy) as database:
        rows = [await database.reader.scalar(text(f"SELECT {n}")) for n in range(2 * SERVERS)]
    assert rows == list(range(2 * SERVERS))
    assert standing.followed or await leftovers(url) == CLEAN

"""A role whose password changes under load: no request fails, and each change is fetched once."""

import asyncio
import secrets
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import psycopg
import pytest
from sqlalchemy import make_url, text
from tests.eventually import eventually
from tests.integration.engine.engines import with_parts
from tests.servers.postgres import PostgresServer

from penstock import Database
from penstock.credentials import Credentials

CLIENTS = 6

POOLS: dict[str, dict[str, Any]] = {
    # All connections are replaced several times between two changes.
    "production": {"environment": "production", "pool_size": 4, "max_overflow": 2, "min_idle": 2},
    "serverless": {"environment": "serverless"},  # each request connects
}


@dataclass
class Secret:
    """What a vault has for a role of the server."""

    server: PostgresServer
    url: str
    password: str = ""
    changes: int = 0

    def change(self) -> None:
        """Store another password, then have the server accept that alone."""
        role, before = make_url(self.url).username, self.password
        self.password = secrets.token_hex(8)
        self.server.execute(f"ALTER ROLE {role} PASSWORD '{self.password}'")
        self.changes += 1
        plain = with_parts(self.url, drivername="postgresql", password=before)
        with pytest.raises(psycopg.OperationalError, match="authentication failed"):
            psycopg.connect(plain)


@dataclass
class Worker:
    """One worker's database, with clients that read and write all the time."""

    secret: Secret
    database: Database = field(init=False)
    fetches: int = 0
    served: int = 0
    failures: list[str] = field(default_factory=list)

    async def credentials(self) -> Credentials:
        self.fetches += 1
        password = self.secret.password
        await asyncio.sleep(0.02)  # as far as a vault is
        return Credentials(password=password, max_age=0.3)

    async def client(self) -> None:
        while True:
            try:
                async with self.database.write() as session:
                    await session.execute(text("SELECT pg_sleep(0.002)"))
                self.served += 1
            except Exception as error:  # noqa: BLE001 - counted
                self.failures.append(repr(error))
            await asyncio.sleep(0.002)


@asynccontextmanager
async def loaded(secret: Secret, url: str, **settings: Any) -> AsyncIterator[Worker]:
    worker = Worker(secret)
    worker.database = Database.from_url(
        with_parts(url, password="of-no-use"),
        credentials=worker.credentials,
        telemetry=False,
        budget="off",
        **settings,
    )
    async with worker.database:
        clients = [asyncio.create_task(worker.client()) for _ in range(CLIENTS)]
        try:
            yield worker
        finally:
            for client in clients:
                client.cancel()
            await asyncio.gather(*clients, return_exceptions=True)


async def rotate(
    server: PostgresServer, url: str, *, changes: int, every: float, **settings: Any
) -> list[Worker]:
    """Change a password under the load of two workers, and return what they have counted."""
    secret = Secret(server, url, str(make_url(url).password))
    async with AsyncExitStack() as running:
        workers = [
            await running.enter_async_context(loaded(secret, url, **settings)) for _ in range(2)
        ]
        for _ in range(changes):
            await asyncio.sleep(every)
            await asyncio.to_thread(secret.change)
            for worker in workers:
                await eventually(lambda each=worker: each.fetches > secret.changes)  # type: ignore[misc]  # of this turn
                served = worker.served
                await eventually(lambda each=worker, least=served: each.served > least)  # type: ignore[misc]  # as above
        await asyncio.sleep(every)
        assert secret.changes == changes
    return workers


@pytest.mark.parametrize("environment", POOLS)
async def test_no_request_fails_while_passwords_change(
    postgres: PostgresServer, postgresql_url: str, environment: str
) -> None:
    workers = await rotate(postgres, postgresql_url, changes=4, every=0.6, **POOLS[environment])

    assert [worker.failures for worker in workers] == [[], []]
    assert [worker.fetches for worker in workers] == [5, 5]

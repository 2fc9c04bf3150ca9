"""All conditions are provoked side by side, once: two minutes is what one of them takes."""

import asyncio
from collections.abc import Iterator, Mapping
from contextlib import AsyncExitStack, ExitStack, contextmanager
from typing import Any, NamedTuple

import pytest
from tests.diagnosis.provocations import (
    CROWDED,
    LAGGING,
    PROVOCATIONS,
    PROVOCATIONS_OF_WORKERS,
    SETTINGS_OF_WORKERS,
    Provocation,
    Subject,
)
from tests.diagnosis.replica import replica_of
from tests.diagnosis.workers import Findings, Workers, running_workers, watched
from tests.servers.parts import require_part
from tests.servers.postgres import PostgresServer, own_postgres, postgres_programs


class Place(NamedTuple):
    """Where a condition is provoked: a database of a server, which may have a replica."""

    provocation: Provocation
    url: str
    server: PostgresServer
    replica: PostgresServer | None


@pytest.fixture(scope="session")
def provoked(postgres: PostgresServer, tmp_path_factory: pytest.TempPathFactory) -> Findings:
    """Everything that ``GET /pool/state`` of several services has ever found, by database."""
    with _places(postgres) as places, _lone_urls(postgres) as urls:
        return asyncio.run(_provoke(places, urls, tmp_path_factory))


@contextmanager
def _places(postgres: PostgresServer) -> Iterator[dict[str, Place]]:
    """Make a database for each condition, by what the service calls it; two have own servers."""
    programs = postgres_programs()
    require_part("PostgreSQL", present=programs, remedy="set TEST_POSTGRES_BIN")
    assert programs is not None
    with ExitStack() as stack:
        crowded = stack.enter_context(own_postgres(programs, {"max_connections": "20"}))
        primary = stack.enter_context(own_postgres(programs))
        replica = stack.enter_context(replica_of(primary, programs))

        def place(
            provocation: Provocation, server: PostgresServer, replica: PostgresServer | None = None
        ) -> Place:
            return Place(provocation, stack.enter_context(server.database()), server, replica)

        yield {
            **{name: place(each, postgres) for name, each in PROVOCATIONS.items()},
            "crowded": place(CROWDED, crowded),
            "lagging": place(LAGGING, primary, replica),
        }


@contextmanager
def _lone_urls(postgres: PostgresServer) -> Iterator[dict[str, str]]:
    """Make a database for each condition of workers, which takes a service of its own."""
    with ExitStack() as stack:
        yield {name: stack.enter_context(postgres.database()) for name in PROVOCATIONS_OF_WORKERS}


async def _provoke(
    places: Mapping[str, Place], urls: Mapping[str, str], directories: pytest.TempPathFactory
) -> Findings:
    async with AsyncExitStack() as stack:

        async def service(databases: dict[str, dict[str, Any]], count: int = 1) -> Workers:
            directory = directories.mktemp("service")
            return await stack.enter_async_context(running_workers(databases, directory, count))

        shared = await service(
            {name: {"url": each.url, **each.provocation.settings} for name, each in places.items()}
        )
        lone = {
            name: await service(
                {name: {"url": urls[name], **SETTINGS_OF_WORKERS.get(name, {})}}, count
            )
            for name, (_, count) in PROVOCATIONS_OF_WORKERS.items()
        }
        subjects = {
            name: Subject(shared, name, each.server, each.url, each.replica)
            for name, each in places.items()
        }
        return await watched(
            [shared, *lone.values()],
            *(places[name].provocation.act(subject) for name, subject in subjects.items()),
            *(PROVOCATIONS_OF_WORKERS[name][0](workers) for name, workers in lone.items()),
        )

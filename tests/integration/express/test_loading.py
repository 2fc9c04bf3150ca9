"""Every kind of column by every way to load it: what the express lane gives is a session's."""

import sys
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

import pytest
import pytest_asyncio
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from sqlalchemy import delete, insert, text
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import registry
from tests.integration.express.answers import in_session, picture
from tests.integration.express.general_types import GENERAL_KINDS
from tests.integration.express.loaded_kinds import World, worlds_of
from tests.integration.express.loading_ways import READS, WRITES
from tests.integration.express.postgres_types import POSTGRES_KINDS

from penstock import Database
from penstock.errors import ExpressError

EXAMPLES = settings(
    max_examples=2,
    deadline=None,
    database=None,
    derandomize=True,
    phases=[Phase.generate],  # a failure names its ways; to shrink it takes minutes
    report_multiple_bugs=False,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
pytestmark = pytest.mark.filterwarnings(
    "ignore:Type object .* OperatorClass",  # MONEY
    "ignore:relationship .* will copy column",
)
MAPPERS = registry()
WORLDS = worlds_of([*GENERAL_KINDS, *POSTGRES_KINDS], MAPPERS)
Outcomes = Counter[str]


@pytest.fixture(scope="module")
def outcomes() -> Iterator[Outcomes]:
    """How many comparisons ended in which way; shown by ``pytest -s``."""
    found: Outcomes = Counter()
    yield found
    sys.stdout.write(f"\n{len(WORLDS)} kinds x {len(READS) + len(WRITES)} ways: {dict(found)}\n")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def database(module_url: str) -> AsyncIterator[Database]:
    async with Database.from_url(module_url, environment="testing") as database:
        async with database.engine.begin() as connection:
            for extension in ("hstore", "citext"):
                await connection.execute(text(f"CREATE EXTENSION {extension}"))
            await connection.run_sync(MAPPERS.metadata.create_all)
        yield database


async def fill(database: Database, world: World, values: list[Any]) -> None:
    async with AsyncSession(database.engine) as session:
        for table in (world.further, world.children, world.parents):
            await session.execute(delete(table))
        for table, rows in world.rows(values).items():
            await session.execute(insert(table), rows)
        await session.commit()


async def by_session(database: Database, statement: Any, values: dict[str, Any]) -> Any:
    """Return what a session gives, or which error; nothing that it writes is kept."""
    async with AsyncSession(database.engine) as session:
        try:
            results = await in_session(session, statement, values)
        except Exception as error:  # noqa: BLE001 - whichever it is, the other's is to be the same
            return type(error)
        return picture(results)


async def by_express(asking: Any) -> Any:
    try:
        return picture(await asking)
    except ExpressError:
        return "refused"
    except Exception as error:  # noqa: BLE001 - as above
        return type(error)


async def streamed(reader: Any, asked: Any) -> list[Any]:
    async with reader.stream(asked).yield_per(2) as results:
        return [result async for result in results]


async def in_snapshot(reader: Any, asked: Any) -> list[Any]:
    async with reader.snapshot() as snapshot:
        return list(await snapshot.all(asked))


DELIVERIES: dict[str, Callable[[Any, Any, Any], Awaitable[Any]]] = {
    "prepared": lambda reader, prepared, _: reader.all(prepared),
    "adhoc": lambda reader, _, statement: reader.all(statement),
    "snapshot": lambda reader, _, statement: in_snapshot(reader, statement),
    "stream": lambda reader, prepared, _: streamed(reader, prepared),
}


def outcome(expected: Any, given: Any) -> str:
    if given == expected:
        return "same"
    return "refused" if isinstance(given, str) else "different"


@pytest.mark.parametrize("world", WORLDS, ids=lambda world: world.kind.name)
@pytest.mark.asyncio(loop_scope="module")
@EXAMPLES
@given(data=st.data())
async def test_a_read_gives_what_a_session_gives(
    database: Database, outcomes: Outcomes, world: World, data: st.DataObject
) -> None:
    values = [None, *data.draw(st.lists(world.kind.values, min_size=2, max_size=2))]
    await fill(database, world, values)
    different = {}
    for number, (way, make) in enumerate(READS.items(), WORLDS.index(world)):
        expected = await by_session(database, make(world), {})
        for how in ("prepared", ("adhoc", "snapshot", "stream")[number % 3]):
            prepared = world.prepared(way, make)
            given = await by_express(DELIVERIES[how](database.reader, prepared, make(world)))
            found = outcome(expected, given)
            outcomes[found] += 1
            if found == "different" or (found == "refused" and how != "stream"):
                different[way, how] = expected, given
    assert different == {}, "\n".join(f"{way}: {what}"[:900] for way, what in different.items())


@pytest.mark.parametrize("world", WORLDS, ids=lambda world: world.kind.name)
@pytest.mark.asyncio(loop_scope="module")
@EXAMPLES
@given(data=st.data())
async def test_a_write_returns_what_a_session_returns(
    database: Database, outcomes: Outcomes, world: World, data: st.DataObject
) -> None:
    stored, wanted = data.draw(st.tuples(world.kind.values, world.kind.values))
    different = {}
    for turn, (way, make) in enumerate(WRITES.items(), WORLDS.index(world)):
        number = 99 if way.endswith("insert") else 11
        values = {"number": number, "wanted": wanted}
        if way.endswith("delete"):
            del values["wanted"]
        if "composed" in way or "undefer" in way:
            values["number"] = 1
        await fill(database, world, [stored, None])
        expected = await by_session(database, make(world), values)
        asked = make(world) if turn % 2 else world.prepared(way, make)
        given = await by_express(database.writer.all(asked, values))
        found = outcome(expected, given)
        outcomes[found] += 1
        if found != "same":
            different[way] = expected, given
    assert different == {}, "\n".join(f"{way}: {what}"[:900] for way, what in different.items())

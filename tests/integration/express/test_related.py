"""Related objects that further statements load: in every shape and way as a session does."""

from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
import pytest_asyncio
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession
from tests.integration.express.answers import as_results, in_session, picture
from tests.integration.express.library import Base, rows
from tests.integration.express.related_statements import READS, WRITES

from penstock import Database, query
from penstock.express.errors import ExpressError
from penstock.express.lane import Extract
from penstock.express.query import Call
from penstock.testing import rollback_after

pytestmark = [
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.filterwarnings("ignore:Multiple rows returned with uselist=False"),
    pytest.mark.filterwarnings("ignore:The subqueryload loader option is not compatible"),
]

BATCH = 2


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def database(module_url: str) -> AsyncIterator[Database]:
    async with Database.from_url(module_url, environment="testing") as database:
        async with database.engine.begin() as connection:
            await connection.run_sync(Base.metadata.create_all)
        async with database.write() as session:
            session.add_all(rows())
        yield database


Pictures = list[Any]
"""Of what one way gives, or the name of the error's class."""


async def session_all(database: Database, statement: Any) -> Pictures:
    async with AsyncSession(database.engine) as session:
        return [picture(await in_session(session, statement))]


async def session_stream(database: Database, statement: Any) -> Pictures:
    pictures = []
    async with AsyncSession(database.engine) as session:
        options = {"yield_per": BATCH}
        result: Any = await session.stream(statement, execution_options=options)
        async for part in as_results(result).partitions(BATCH):
            for instance in session.identity_map.values():
                session.expunge(instance)
            pictures.append(picture(list(part)))
    return pictures


async def lane_all(database: Database, statement: Any) -> Pictures:
    return [picture(await database.reader.all(statement))]


async def lane_prepared(database: Database, statement: Any) -> Pictures:
    asked = query(statement)
    first = picture(await database.reader.all(asked))
    assert first == picture(await database.reader.all(asked))
    return [first]


async def lane_snapshot(database: Database, statement: Any) -> Pictures:
    async with database.reader.snapshot() as snapshot:
        return [picture(await snapshot.all(statement))]


async def lane_stream(database: Database, statement: Any) -> Pictures:
    async with database.reader.stream(statement).yield_per(BATCH) as stream:
        found = [each async for each in stream]
    parts = [found[start : start + BATCH] for start in range(0, len(found), BATCH)]
    return [picture(part) for part in parts]


async def lane_writer(database: Database, statement: Any) -> Pictures:
    return [picture(await database.writer.all(statement))]


async def lane_within(database: Database, statement: Any) -> Pictures:
    class Within:
        async def read(self, call: Call, extract: Extract) -> Any:
            return await database.lane.read_within(await session.connection(), call, extract)

    async with database.write() as session:
        return [picture(await database.reader.over(Within()).all(statement))]


async def lane_apart(database: Database, statement: Any) -> Pictures:
    class Apart:
        async def read(self, call: Call, extract: Extract) -> Any:
            async with database.lane.snapshot() as lane:
                return await lane.read_apart(call, extract)

    return [picture(await database.reader.over(Apart()).all(statement))]


Way = Callable[[Database, Any], Awaitable[Pictures]]
WAYS: dict[Way, Way] = {
    lane_all: session_all,
    lane_prepared: session_all,
    lane_snapshot: session_all,
    lane_stream: session_stream,
    lane_writer: session_all,
    lane_within: session_all,
    lane_apart: session_all,
}
"""Each with what it is compared to."""


async def outcome(database: Database, statement: Any, way: Way, other: Way) -> str:
    """Run a statement in two ways, and say how the first compares to the second, a session's."""
    expected = await tried(database, statement, other)
    actual = await tried(database, statement, way)
    if isinstance(actual, ExpressError):
        return "refused" if isinstance(expected, list) else "refused by both"
    if isinstance(actual, Exception):
        return "refused by both" if type(actual) is type(expected) else f"different: {actual!r}"
    if isinstance(expected, Exception):
        return "refused by a session"
    return "same" if actual == expected else "different"


async def tried(database: Database, statement: Any, way: Way) -> Pictures | Exception:
    try:
        return await way(database, statement)
    except Exception as error:  # noqa: BLE001 - compared
        return error


UNKNOWN_TO_A_SESSION = {"then_subquery", "by_mapping_immediate", "with_polymorphic_own_subquery"}
"""A session streams no ``subqueryload()``, be it one of a further statement."""
COUNTS = {
    way: {"same": 172, "refused by both": 10}
    if WAYS[way] is session_all
    else {"same": 128, "refused by both": 51, "refused by a session": 3}
    for way in WAYS
}


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
async def test_reads_load_what_a_session_loads(database: Database, way: Way) -> None:
    outcomes = {
        name: await outcome(database, statement, way, WAYS[way])
        for name, statement in READS.items()
    }

    counts = Counter(outcomes.values())
    assert counts == COUNTS[way], {n: found for n, found in outcomes.items() if found != "same"}


@pytest.mark.parametrize("name", sorted(UNKNOWN_TO_A_SESSION))
async def test_a_stream_loads_what_a_session_does_not_stream(database: Database, name: str) -> None:
    async with database.reader.stream(READS[name]).yield_per(1000) as stream:
        found = [each async for each in stream]

    assert [picture(found)] == await session_all(database, READS[name])


PREPARE = [
    "DELETE FROM shelves WHERE id > 100",
    "DELETE FROM printings WHERE id > 100",
    "DELETE FROM books WHERE id > 100",
    "DELETE FROM authors WHERE id > 100",
    "DELETE FROM members WHERE id > 100",
    "DELETE FROM works WHERE id > 100",
    "INSERT INTO printings VALUES (201, 1, 10), (202, NULL, NULL)",
    "INSERT INTO shelves VALUES (201, 1), (202, NULL)",
]


async def written(database: Database, statement: Any, way: Way) -> Pictures | Exception:
    async with database.engine.begin() as connection:
        for each in PREPARE:
            await connection.execute(text(each))
    return await tried(database, statement, way)


async def lane_writer_prepared(database: Database, statement: Any) -> Pictures:
    return [picture(await database.writer.all(query(statement)))]


async def lane_writer_first(database: Database, statement: Any) -> Pictures:
    return [picture(await database.writer.first(statement))]


async def session_first(database: Database, statement: Any) -> Pictures:
    async with AsyncSession(database.engine) as session:
        return [picture(next(iter(await in_session(session, statement)), None))]


WRITING: dict[Way, Way] = {
    lane_writer: session_all,
    lane_writer_prepared: session_all,
    lane_writer_first: session_first,
}


@pytest.mark.parametrize("way", WRITING, ids=lambda way: way.__name__)
@pytest.mark.parametrize("name", WRITES)
async def test_returned_instances_load_what_a_session_loads(
    database: Database, name: str, way: Way
) -> None:
    expected = await written(database, WRITES[name], WRITING[way])
    actual = await written(database, WRITES[name], way)

    if isinstance(expected, Exception):
        assert type(actual) is type(expected)
    else:
        assert actual == expected


@pytest.mark.parametrize("name", ["two", "chain", "then_joined", "by_mapping_polymorphic"])
async def test_a_lane_of_sessions_streams_the_same(database: Database, name: str) -> None:
    expected = await session_stream(database, READS[name])
    async with rollback_after(database):
        assert await lane_stream(database, READS[name]) == expected

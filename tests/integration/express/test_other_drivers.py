"""Where there is no lane of its own, the same calls give what a session gives."""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import bindparam, delete, insert, select, update
from sqlalchemy.orm import registry
from tests.integration.express.answers import by_session, picture
from tests.integration.express.entity_statements import STATEMENTS
from tests.integration.express.general_types import GENERAL_KINDS
from tests.integration.express.samples import Sample, check, samples_of
from tests.integration.express.staff import Base, Customer, User, rows

from penstock import Database, query
from penstock.express import SqlalchemyLane

EXAMPLES = settings(
    max_examples=4,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
pytestmark = [
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.filterwarnings("ignore:Dialect sqlite.aiosqlite does .not. support Decimal"),
]
MAPPERS = registry()
SAMPLES = samples_of((k for k in GENERAL_KINDS if k.name != "collated"), MAPPERS)
"""Without what is called otherwise elsewhere: a collation."""
ASKED = [
    "plain",
    "load_only",
    "undefer",
    "tuples_outer",
    "self_join",
    "entity_and_value",
    "count",
    "columns",
    "bundle",
    "joined_collection",
    "contains_many",
    "lazy_joined",
    "composite",
    "single_base",
    "with_polymorphic",
    "from_statement",
    "union_rows",
    "whole_table",
]


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=["psycopg", "aiosqlite"])
async def database(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Database]:
    if request.param == "psycopg":
        url = request.getfixturevalue("module_url").replace("asyncpg", "psycopg")
    else:
        url = f"sqlite+aiosqlite:///{tmp_path_factory.mktemp('sqlite')}/file.db"
    async with Database.from_url(url, environment="testing") as database:
        await fill(database)
        yield database


async def fill(database: Database) -> None:
    async with database.engine.begin() as connection:
        await connection.run_sync(MAPPERS.metadata.create_all)
        await connection.run_sync(Base.metadata.create_all)
    async with database.write() as session:
        for row in rows():
            session.add(row)
            await session.flush()


async def test_it_is_the_other_lane(database: Database) -> None:
    assert isinstance(database.reader.lane, SqlalchemyLane)


@pytest.mark.parametrize("sample", SAMPLES, ids=lambda sample: sample.kind.name)
@EXAMPLES
@given(data=st.data())
async def test_each_type_is_the_same_by_session_and_express(
    database: Database, sample: Sample, data: st.DataObject
) -> None:
    values = data.draw(st.lists(sample.kind.values, min_size=1, max_size=3))

    await check(database, sample, [None, *values])


@pytest.mark.parametrize("name", ASKED)
async def test_results_are_as_a_session_gives_them(database: Database, name: str) -> None:
    expected = picture(await by_session(database, STATEMENTS[name]))

    assert picture(await database.reader.all(query(STATEMENTS[name]))) == expected
    assert picture(await database.reader.all(STATEMENTS[name])) == expected
    async with database.reader.snapshot() as snapshot:
        assert picture(await snapshot.all(STATEMENTS[name])) == expected


async def test_rows_that_were_written_are_counted(database: Database) -> None:
    columns = ("id", "name")
    add = query(insert(Customer).values({name: bindparam(name) for name in columns}))
    more = [{"id": 4, "name": "x"}, {"id": 5, "name": "y"}]
    rename = query(update(Customer).where(Customer.id > 1).values(name="renamed"))

    assert await database.writer.execute(add, id=2, name="one") == 1
    assert await database.writer.execute(insert(Customer), id=3, name="two") == 1
    assert await database.writer.copy_in(Customer, more) == 2
    assert await database.writer.execute(rename) == 4
    assert await database.writer.execute(delete(Customer).where(Customer.id > 1)) == 4


async def test_no_rows_write_nothing(database: Database) -> None:
    before = await database.reader.all(select(Customer))
    add = query(insert(Customer).values(name="nobody"))
    for statement in (add, insert(Customer), update(Customer).values(name="nobody")):
        await database.writer.execute_many(statement, [])
    assert picture(await database.reader.all(select(Customer))) == picture(before)


async def test_an_open_update_sets_what_is_named_by_attribute(database: Database) -> None:
    statement = query(update(User).where(User.id == bindparam("i")))

    assert await database.writer.execute(statement, i=3, name="x", age=4) == 1
    assert await database.reader.one(select(User.name, User.age).where(User.id == 3)) == ("x", 4)

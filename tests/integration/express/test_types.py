"""Every type of column: written and read by a session and in the express lane, and all the same."""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import registry
from tests.integration.express.general_types import GENERAL_KINDS
from tests.integration.express.postgres_types import POSTGRES_KINDS
from tests.integration.express.samples import Sample, check, samples_of

from penstock import Database

EXAMPLES = settings(
    max_examples=15,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
pytestmark = pytest.mark.filterwarnings("ignore:Type object .* OperatorClass")  # MONEY
MAPPERS = registry()
SAMPLES = samples_of([*GENERAL_KINDS, *POSTGRES_KINDS], MAPPERS)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def database(module_url: str) -> AsyncIterator[Database]:
    async with Database.from_url(module_url, environment="testing") as database:
        async with database.engine.begin() as connection:
            for extension in ("hstore", "citext"):
                await connection.execute(text(f"CREATE EXTENSION {extension}"))
            await connection.run_sync(MAPPERS.metadata.create_all)
        yield database


@pytest.mark.parametrize("sample", SAMPLES, ids=lambda sample: sample.kind.name)
@pytest.mark.asyncio(loop_scope="module")
@EXAMPLES
@given(data=st.data())
async def test_each_type_is_the_same_by_session_and_express(
    database: Database, sample: Sample, data: st.DataObject
) -> None:
    values = [None, *data.draw(st.lists(sample.kind.values, min_size=1, max_size=3))]

    assert await check(database, sample, values) == sample.kind.session_cannot.keys()


@pytest.mark.asyncio(loop_scope="module")
async def test_a_copy_that_the_driver_cannot_make_says_so_and_returns_its_connection(
    module_url: str, database: Database
) -> None:
    table = MAPPERS.metadata.tables["t_hstore"]
    async with Database.from_url(module_url, environment="testing") as own:
        with pytest.raises(SQLAlchemyError):
            await own.writer.copy_in(table, [{"id": 1, "value": None}])

        assert own.pool.snapshot().checked_out == 0

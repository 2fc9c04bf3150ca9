import httpx
import pytest
from tests.integration.pytest_plugin.project.checks import check_database, check_requests

from penstock import Database

pytestmark = pytest.mark.asyncio


@pytest.mark.parametrize("turn", [1, 2])
async def test_requests(
    penstock_client: httpx.AsyncClient, penstock_database: Database, turn: int
) -> None:
    await check_requests(penstock_client, penstock_database)


@pytest.mark.parametrize("turn", [1, 2])
async def test_database(penstock_database: Database, turn: int) -> None:
    await check_database(penstock_database)


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("turn", [1, 2])
async def test_in_the_loop_of_a_module(
    penstock_client: httpx.AsyncClient, penstock_database: Database, turn: int
) -> None:
    await check_requests(penstock_client, penstock_database)


class TestClass:
    @pytest.mark.asyncio(loop_scope="class")
    async def test_in_the_loop_of_a_class(self, penstock_database: Database) -> None:
        await check_database(penstock_database)


@pytest.mark.asyncio(loop_scope="session")
async def test_in_the_loop_of_a_run(penstock_database: Database) -> None:
    await check_database(penstock_database)

"""What ``install`` does not take, and what it says then."""

from typing import Any

import pytest
from fastapi import APIRouter, Depends, FastAPI
from starlette.applications import Starlette
from tests.servers.web import client_of

from penstock import Database, PenstockError
from penstock.fastapi import install


async def test_a_second_database_needs_another_name(app: FastAPI, tables: str) -> None:
    with pytest.raises(PenstockError, match="already installed"):
        install(app, Database.from_url(tables))


@pytest.mark.parametrize("other", [APIRouter(), Starlette(), Database.from_url("sqlite://")])
async def test_what_is_no_application_is_told_so(other: Any, database: Database) -> None:
    with pytest.raises(PenstockError, match=rf"FastAPI.*\b{type(other).__name__}\b"):
        install(other, database)


@pytest.mark.parametrize("other", ["postgresql://localhost/app", Database, None])
async def test_what_is_no_database_is_told_so_and_leaves_the_application_alone(
    other: Any, database: Database
) -> None:
    app = FastAPI()
    with pytest.raises(PenstockError, match=r"Database\.from_environment"):
        install(app, other)

    install(app, database)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({"access": Depends(int)}, "access=guard, without Depends"),
        ({"readiness_timeout": "2"}, "readiness_timeout='2'"),
        ({"readiness_timeout": 0}, "readiness_timeout=0"),
        ({"drain_delay": -1}, "drain_delay=-1"),
        ({"drain_delay": "5"}, "drain_delay='5'"),
    ],
)
async def test_a_wrong_argument_is_named_and_leaves_the_application_alone(
    database: Database, arguments: dict[str, Any], told: str
) -> None:
    app = FastAPI()
    with pytest.raises(PenstockError, match=told):
        install(app, database, **arguments)

    install(app, database)
    async with client_of(app) as client:
        assert (await client.get("/health/live")).status_code == 200

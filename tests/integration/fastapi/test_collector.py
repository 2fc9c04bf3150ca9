"""The garbage collector is told that what has started will stay, for as long as it does."""

import gc
import warnings

import pytest
from fastapi import FastAPI
from tests.servers.web import client_of

from penstock import Database
from penstock.fastapi import install
from penstock.fastapi.install import THRESHOLDS

State = tuple[tuple[int, int, int], bool]


@pytest.mark.parametrize("given", [True, False])
@pytest.mark.parametrize("environment", ["development", "testing", "production"])
async def test_the_heap_is_frozen_while_the_application_runs_but_in_tests(
    tables: str, environment: str, given: bool
) -> None:
    app = FastAPI()
    install(app, Database.from_url(tables, environment=environment), tune_gc=given)
    tune_gc = given and environment != "testing"
    with warnings.catch_warnings(action="ignore"):  # of what earlier tests have left
        gc.unfreeze()
        gc.collect()
    before = gc.get_threshold()

    @app.get("/collector")
    async def collector() -> State:
        return gc.get_threshold(), gc.get_freeze_count() > 0

    async with client_of(app) as client:
        thresholds, is_frozen = (await client.get("/collector")).json()

    assert (tuple(thresholds), is_frozen) == ((THRESHOLDS if tune_gc else before), tune_gc)
    assert (gc.get_threshold(), gc.get_freeze_count()) == (before, 0)

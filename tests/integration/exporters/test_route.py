"""``/metrics`` of one process."""

import sys

import pytest
from fastapi import FastAPI
from tests.servers.web import client_of

from penstock import Database
from penstock.fastapi import install

CHECKED_OUT = "penstock_checkouts_total"


async def test_every_database_has_its_label(database_url: str) -> None:
    app = FastAPI()
    install(app, Database.from_url(database_url, environment="testing"))
    install(app, Database.from_url(database_url, environment="testing"), name="reports")

    async with client_of(app) as client:
        text = (await client.get("/metrics")).text

    for name in ("default", "reports"):
        assert f'penstock_workers{{db_client_connection_pool_name="{name}"}} ' in text


async def test_without_access_only_open_databases_are_reported_of(database_url: str) -> None:
    app = FastAPI()
    install(app, Database.from_url(database_url, environment="testing"))
    hidden = Database.from_url(database_url, environment="production", tls="disable")
    install(app, hidden, name="hidden")

    async with client_of(app) as client:
        text = (await client.get("/metrics")).text

    assert f'{CHECKED_OUT}{{db_client_connection_pool_name="default"}} ' in text
    assert "hidden" not in text


async def test_a_database_without_telemetry_is_left_out(database_url: str) -> None:
    app = FastAPI()
    install(app, Database.from_url(database_url, environment="testing", telemetry=False))

    async with client_of(app) as client:
        answer = await client.get("/metrics")

    assert answer.status_code == 200
    assert "db_client_connection_pool_name=" not in answer.text


async def test_without_the_package_it_says_how_to_install_it(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    monkeypatch.delitem(sys.modules, "penstock.exporters.prometheus", raising=False)
    app = FastAPI()
    install(app, Database.from_url(database_url, environment="testing"))

    async with client_of(app) as client:
        answer = await client.get("/metrics")

    assert answer.status_code == 501
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["code"] == "metrics_unavailable"
    assert "pip install 'penstock[prometheus]'" in answer.json()["detail"]
    assert answer.headers["cache-control"] == "no-store"

"""What the server says of itself, which one worker asks for all."""

import os
from math import isnan
from pathlib import Path

import pytest
from tests.eventually import eventually

from penstock import Database
from penstock.telemetry import Reading


def database_of(url: str, directory: Path) -> Database:
    return Database.from_url(url, environment="testing", telemetry_dir=directory)


async def test_the_servers_own_numbers_are_asked_for_without_a_checkout(
    database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("penstock.telemetry.telemetry.FIRST_QUERY_DELAY", 0.1)
    async with database_of(database_url, tmp_path) as database:
        leases = database.telemetry.read().counters.checkouts

        await eventually(lambda: database.telemetry.read().now.server_limit > 0)
        now = database.telemetry.read().now

        assert now.server_connections >= 1
        assert database.telemetry.read().counters.checkouts == leases


async def test_a_server_that_did_not_say_its_numbers_is_asked_again(
    database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("penstock.telemetry.telemetry.FIRST_QUERY_DELAY", 0.0)
    monkeypatch.setattr("penstock.telemetry.telemetry.QUERY_INTERVAL", 0.01)
    database = database_of(database_url, tmp_path)
    ask, answers = database.telemetry.ask_server, iter([KeyError("unforeseen"), None])
    assert ask is not None

    async def fail_first() -> tuple[float, float, float, float] | None:
        if isinstance(answer := next(answers, ask), Exception):
            raise answer
        return await ask() if answer is ask else None

    database.telemetry.ask_server = fail_first
    async with database:
        await eventually(lambda: database.telemetry.read().now.server_limit > 0)


async def test_a_server_that_says_nothing_any_more_is_not_known(
    database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, seconds in {
        "FIRST_QUERY_DELAY": 0.0,
        "QUERY_INTERVAL": 0.01,
        "SERVER_NUMBERS_LIFETIME": 1.5,
    }.items():
        monkeypatch.setattr(f"penstock.telemetry.telemetry.{name}", seconds)
    database = database_of(database_url, tmp_path)
    answers = iter([(95.0, 100.0, 0.0, 0.0)])

    async def say_it_once() -> tuple[float, float, float, float] | None:
        return next(answers, None)

    database.telemetry.ask_server = say_it_once
    async with database:
        await eventually(lambda: database.telemetry.read().now.server_connections == 95)
        await eventually(lambda: isnan(database.telemetry.read().now.server_connections))


async def test_an_answer_of_the_server_is_forgotten_when_another_worker_asks(
    database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("penstock.telemetry.telemetry.FIRST_QUERY_DELAY", 0.0)
    monkeypatch.setattr("penstock.telemetry.telemetry.QUERY_INTERVAL", 0.01)

    def connections(reading: Reading) -> float:
        return reading.now.server_connections

    async def many() -> tuple[float, float, float, float]:
        return 95.0, 100.0, 0.0, 0.0

    async def few() -> tuple[float, float, float, float]:
        return 5.0, 100.0, 0.0, 0.0

    async with database_of(database_url, tmp_path) as before:
        before.telemetry.ask_server = many
        await eventually(lambda: connections(before.telemetry.read()) == 95)
        after = database_of(database_url, tmp_path)
        after.telemetry.ask_server = few
        monkeypatch.setattr(os, "getpid", lambda: 1)  # its file comes first
        async with after:
            await eventually(lambda: connections(after.telemetry.read()) == 5)

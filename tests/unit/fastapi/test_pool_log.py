"""The warning of a pool that runs short: once for each shortage, and no more than one a minute."""

import logging
from collections.abc import AsyncIterator

import pytest
from sqlalchemy.ext.asyncio import AsyncConnection

from penstock import Database
from penstock.fastapi.middleware import WARNING_PAUSE, PoolLog

SCOPE = {"method": "GET", "path": "/"}
START = {"type": "http.response.start", "status": 200}


class Responses:
    """Starts of responses at given times, and what they made the log say."""

    def __init__(self, database: Database, caplog: pytest.LogCaptureFixture) -> None:
        self._database = database
        self._caplog = caplog
        self._log = PoolLog(database, "default")
        self._lent: AsyncConnection | None = None

    async def short(self) -> None:
        """Hand out the only connection."""
        self._lent = await self._database.engine.connect()

    async def well(self) -> None:
        """Take it back."""
        if self._lent is not None:
            await self._lent.close()
            self._lent = None

    def at(self, *moments: float) -> int:
        """Start a response to a request that arrived then, for each; count the warnings."""
        self._caplog.clear()
        for moment in moments:
            self._log(SCOPE, START, moment)
        return sum(record.levelno == logging.WARNING for record in self._caplog.records)


@pytest.fixture
async def responses(caplog: pytest.LogCaptureFixture) -> AsyncIterator[Responses]:
    """Of a pool of one connection."""
    async with Database.from_url(
        "sqlite://", pool_size=1, max_overflow=0, telemetry=False
    ) as database:
        responses = Responses(database, caplog)
        yield responses
        await responses.well()


async def test_the_first_response_of_a_shortage_is_told_whenever_the_clock_began(
    responses: Responses,
) -> None:
    assert responses.at(-5.0) == 0
    await responses.short()

    assert responses.at(-4.0) == 1


async def test_a_shortage_that_lasts_for_hours_is_one_line(responses: Responses) -> None:
    await responses.short()

    assert responses.at(*(float(second) for second in range(10_000))) == 1


async def test_one_that_comes_and_goes_is_one_line_a_minute(responses: Responses) -> None:
    warnings = 0
    for second in range(181):
        await responses.short()
        warnings += responses.at(second, second + 0.1)
        await responses.well()
        warnings += responses.at(second + 0.5)

    assert warnings == 1 + 180 // WARNING_PAUSE


async def test_one_that_began_too_soon_is_told_when_the_minute_is_over_and_it_still_lasts(
    responses: Responses,
) -> None:
    await responses.short()
    assert responses.at(0.0) == 1
    await responses.well()
    assert responses.at(1.0) == 0
    await responses.short()

    assert responses.at(30.0, WARNING_PAUSE - 0.01) == 0
    assert responses.at(WARNING_PAUSE) == 1
    assert responses.at(WARNING_PAUSE + 1, 2 * WARNING_PAUSE, 3 * WARNING_PAUSE) == 0


async def test_one_that_is_over_by_then_is_not_told(responses: Responses) -> None:
    await responses.short()
    assert responses.at(0.0) == 1
    await responses.well()
    assert responses.at(1.0) == 0
    await responses.short()
    assert responses.at(30.0) == 0
    await responses.well()

    assert responses.at(WARNING_PAUSE, 2 * WARNING_PAUSE) == 0

"""The live document is read at most once a second, and rendered once for viewers that keep up."""

from pathlib import Path

import pytest

from penstock import Database
from penstock.fastapi.live_document import LiveDocument
from penstock.fastapi.routes import Access


class Clock:
    """Seconds that the test lets pass."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def document(clock: Clock, tmp_path: Path) -> LiveDocument:
    database = Database.from_url(
        "postgresql+asyncpg://u:p@127.0.0.1:1/none", environment="testing", telemetry_dir=tmp_path
    )
    return LiveDocument({"default": database}, Access([], shows_all=True), clock)


def test_within_a_second_it_is_rendered_once(document: LiveDocument, clock: Clock) -> None:
    assert document.kept(0) is None
    first = document.render(0)

    clock.now += 0.9
    assert document.kept(0) is first
    assert document.render(0) is first


def test_after_a_second_it_is_rendered_anew(document: LiveDocument, clock: Clock) -> None:
    first = document.render(0)

    clock.now += 1.0
    assert document.kept(0) is None
    second = document.render(0)
    assert second is not first
    assert second.tag != first.tag


def test_each_since_has_its_own(document: LiveDocument) -> None:
    assert document.render(5) is not document.render(6)
    assert document.kept(5) is document.render(5)
    assert document.kept(7) is None


def test_a_since_far_ahead_is_a_clock_that_was_put_back(document: LiveDocument) -> None:
    whole = document.render(0)

    assert document.render(10**12) is whole


def test_no_more_than_a_few_are_kept_of_one_second(document: LiveDocument) -> None:
    for since in range(1, 1000):
        document.render(since)

    assert sum(document.kept(since) is not None for since in range(1, 1000)) == 16

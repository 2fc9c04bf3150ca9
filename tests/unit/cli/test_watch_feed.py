"""A source that is read in a thread: it may be stuck, or have a fault."""

import threading
from collections.abc import Iterator

import pytest

from penstock.watch import Feed, Lost, WatchError
from penstock.watch.document import Part


class Endless:
    """A source that never says anything until it is cut."""

    timeout = 0.01

    def __init__(self) -> None:
        self.is_cut = threading.Event()

    def documents(self) -> Iterator[Part]:
        self.is_cut.wait(10)
        yield from ()
        raise WatchError("Cut.")

    def cut(self) -> None:
        self.is_cut.set()


def test_a_first_document_that_does_not_come_is_not_waited_for() -> None:
    with Feed(Endless()) as feed, pytest.raises(WatchError, match=r"no answer within 0\.01 s"):
        feed.first()


def test_a_source_that_says_nothing_for_too_long_is_cut() -> None:
    times = iter((0.0, 1.0, 100.0))
    with Feed(Endless(), clock=lambda: next(times, 100.0)) as feed:
        assert feed.next(0.01) is None
        assert feed.next(0.01) is None
        lost = feed.next(5)

        assert isinstance(lost, Lost)
        assert str(lost.error) == "Cut."


class Broken:
    """A source with a fault."""

    timeout = 1.0

    def documents(self) -> Iterator[Part]:
        yield from ()
        raise LookupError("a fault")

    def cut(self) -> None:
        """Nothing is open."""


def test_a_fault_is_raised_where_it_is_seen() -> None:
    with Feed(Broken()) as feed, pytest.raises(LookupError, match="a fault"):
        feed.first()

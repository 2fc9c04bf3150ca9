"""A service's documents as they come, connected to again and again."""

import queue
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import Protocol, Self

from penstock.watch.document import Part
from penstock.watch.errors import WatchError

__all__ = ["Feed", "Lost", "Source"]

PAUSES = (1.0, 2.0, 4.0, 8.0, 15.0)
"""Seconds before each further attempt to connect, the last before all that follow."""

_MOST_WAITING = 8


class Source(Protocol):
    """Where documents are from."""

    timeout: float

    def documents(self) -> Iterator[Part]:
        """Yield documents, and raise :class:`WatchError` when there are no more."""

    def cut(self) -> None:
        """End a wait for the next, from another thread."""


@dataclass(frozen=True, slots=True)
class Lost:
    """The connection is lost.

    Args:
        error: Why.
        pause: Seconds until the next attempt.
    """

    error: WatchError
    pause: float


class Feed:
    """Reads a source in a thread of its own, within a ``with`` block.

    So whoever draws can do so each second, and be interrupted, whatever the network does.

    Args:
        source: Where documents are from.
        pauses: Seconds before each further attempt, begun anew once a stream goes on.
        clock: Monotonic time in seconds.
    """

    def __init__(
        self,
        source: Source,
        pauses: tuple[float, ...] = PAUSES,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._source = source
        self._pauses = pauses
        self._clock = clock
        self._news: queue.Queue[Part | Lost | Exception] = queue.Queue(_MOST_WAITING)
        self._closed = threading.Event()
        self._heard = clock()
        # A look-up of a name cannot be interrupted, and must not keep the process.
        self._thread = threading.Thread(target=self._run, name="penstock-watch", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._closed.set()
        self._source.cut()
        self._thread.join(timeout=1.0)

    def first(self) -> Part:
        """Return the first document.

        Raises:
            WatchError: There is none, or not within the source's timeout.
        """
        news = self.next(self._source.timeout)
        if news is None:
            raise WatchError(
                f"There is no answer within {self._source.timeout:g} s. If the service is only "
                "slow, give it longer by --timeout."
            )
        if isinstance(news, Lost):
            raise news.error
        return news

    def next(self, seconds: float) -> Part | Lost | None:
        """Return what is new; None if nothing is within so many seconds."""
        try:
            news = self._news.get(timeout=seconds)
        except queue.Empty:
            # Each read has its own bound, but one byte now and then would satisfy it for ever.
            if self._clock() - self._heard > 3 * self._source.timeout + max(self._pauses):
                self._source.cut()
            return None
        self._heard = self._clock()
        if isinstance(news, Exception):
            raise news
        return news

    def _run(self) -> None:
        failures = 0
        while not self._closed.is_set():
            try:
                for number, document in enumerate(self._source.documents()):
                    # The first answers a request of its own, and says nothing about the stream.
                    failures = 0 if number else failures
                    self._tell(document)
                    if self._closed.is_set():
                        return
            except WatchError as error:
                pause = self._pauses[min(failures, len(self._pauses) - 1)]
                failures += 1
                self._tell(Lost(error, pause))
                self._closed.wait(pause)
            except Exception as error:  # noqa: BLE001 - it is raised where it is seen
                self._tell(error)
                return

    def _tell(self, news: Part | Lost | Exception) -> None:
        while not self._closed.is_set():
            try:
                self._news.put(news, timeout=0.2)
            except queue.Full:
                continue
            return

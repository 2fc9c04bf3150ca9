"""Which connections the server has closed: one question to the kernel for all of a pool's."""

import contextlib
import math
import select
from typing import Protocol

__all__ = ["LOOK_EVERY", "Hangups", "Watched"]

LOOK_EVERY = 0.001
"""Seconds. The event loop sees a hang-up by itself in each of its rounds; this is for those that
came during the present round, so that to look more often would be for nothing."""


class Watched(Protocol):
    """Whatever is told that its server has hung up."""

    fileno: int | None
    hung_up: bool


class Hangups:
    """Watches the sockets of one pool, on Linux; elsewhere the event loop has to notice.

    ``POLLIN`` is not asked for: a notification that waits to be read is no hang-up.
    """

    __slots__ = ("_epoll", "_watched", "looked_at")

    def __init__(self) -> None:
        self._epoll = select.epoll() if hasattr(select, "epoll") else None
        self._watched: dict[int, Watched] = {}
        self.looked_at = -math.inf

    def watch(self, watched: Watched, fileno: int | None) -> None:
        """Begin to watch a socket; None for a connection that has none.

        Args:
            watched: Whose ``hung_up`` will be set.
            fileno: The socket's number.
        """
        watched.hung_up = False
        watched.fileno = fileno
        if self._epoll is None or fileno is None:
            return
        self._watched[fileno] = watched
        try:
            self._epoll.register(fileno, select.EPOLLRDHUP)
        except FileExistsError:  # of a closed one, of which somebody still has a duplicate
            self._epoll.modify(fileno, select.EPOLLRDHUP)

    def forget(self, watched: Watched) -> None:
        """Watch its socket no more; the number may be another's by now, who is left alone."""
        fileno, watched.fileno = watched.fileno, None
        if fileno is not None and self._watched.get(fileno) is watched:
            del self._watched[fileno]
            self._unregister(fileno)

    def look(self, now: float) -> None:
        """Ask the kernel, which takes a microsecond at most, if it has not just been asked."""
        if self._epoll is None or now - self.looked_at <= LOOK_EVERY:
            return
        self.looked_at = now
        for fileno, _ in self._epoll.poll(0, len(self._watched) + 1):
            watched = self._watched.pop(fileno, None)
            if watched is not None:
                watched.hung_up = True
            self._unregister(fileno)

    def _unregister(self, fileno: int) -> None:
        with contextlib.suppress(OSError, ValueError):
            assert self._epoll is not None  # noqa: S101 - nothing is watched without
            self._epoll.unregister(fileno)

"""Whether the machine itself stood still, as one with busy neighbours does now and then."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from tests.diagnosis.workers import Findings

__all__ = ["blameless", "standstills"]

_EVERY = 0.05
_LATE = 0.2
"""Seconds by which this process woke up too late: the limit of the rule."""


@contextmanager
def standstills() -> Iterator[list[float]]:
    """Note by how many seconds a thread that only sleeps was late, where it was."""
    late: list[float] = []
    is_over = threading.Event()

    def watch() -> None:
        due = time.monotonic() + _EVERY
        while not is_over.wait(_EVERY):
            now = time.monotonic()
            if now - due > _LATE:
                late.append(now - due)
            due = now + _EVERY

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield late
    finally:
        is_over.set()
        thread.join()


def blameless(found: Findings, late: list[float], *, but: frozenset[str] = frozenset()) -> Findings:
    """Leave out that event loops were blocked where everything on the machine was.

    Args:
        found: By the database's name.
        late: From :func:`standstills`.
        but: Databases whose service blocked its loop by itself.
    """
    if not late:
        return found
    return {
        name: {
            each: said for each, said in seen.items() if each != "event-loop-blocked" or name in but
        }
        for name, seen in found.items()
    }

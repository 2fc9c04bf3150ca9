"""Ending on Ctrl-C, SIGTERM and SIGHUP, once and in good order."""

import asyncio
import signal
from collections.abc import Coroutine
from typing import Any, Self

__all__ = ["Interruption"]

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Interruption:
    """Turns the first signal into the cancellation of one task; later signals do nothing.

    What is put away after that task cannot be interrupted: not by a second Ctrl-C, and not by a
    first one that comes when the task has ended already.

    Attributes:
        signal: The first signal; None while there was none.
    """

    def __init__(self) -> None:
        self.signal: signal.Signals | None = None
        self._task: asyncio.Task[None] | None = None

    def __enter__(self) -> Self:
        loop = asyncio.get_running_loop()
        for number in _SIGNALS:
            loop.add_signal_handler(number, self._note, number)
        return self

    def __exit__(self, *_: object) -> None:
        loop = asyncio.get_running_loop()
        for number in _SIGNALS:
            loop.remove_signal_handler(number)

    async def guard(self, work: Coroutine[Any, Any, None]) -> None:
        """Run ``work`` until it ends or a signal comes; raise what it raises."""
        self._task = asyncio.create_task(work)
        await asyncio.wait([self._task])
        if not (self.signal and self._task.cancelled()):
            self._task.result()

    def _note(self, number: signal.Signals) -> None:
        if self.signal is None:
            self.signal = number
            if self._task is not None:
                self._task.cancel()

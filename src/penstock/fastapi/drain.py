"""From SIGTERM to the end of the process: not ready any more, and still serving for a while."""

import asyncio
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from starlette.types import Message, Scope

_SETTLE = 0.25
"""Seconds for what was accepted to send its request; uvicorn closes connections without one."""


class Drain:
    """Delays what the server does on SIGTERM, so that balancers see first that it will go.

    Servers close their listener at once: what a balancer has sent by then, or sends until it looks
    again, is refused.

    Args:
        delay: Seconds from SIGTERM to the server's own handler.
        on_begin: Called in the signal handler.

    Attributes:
        is_on: Whether SIGTERM has come.
    """

    def __init__(self, delay: float, on_begin: Callable[[], object]) -> None:
        self.is_on = False
        self._delay = delay
        self._on_begin = on_begin

    @contextmanager
    def handling_sigterm(self) -> Iterator[None]:
        """Stand in front of the server's handler for a block, which runs in an event loop.

        A second SIGTERM ends the delay. Where the server has no handler, or runs in a thread, as a
        test client does, nothing is changed.
        """
        server: Any = signal.getsignal(signal.SIGTERM)
        if not callable(server) or threading.current_thread() is not threading.main_thread():
            yield
            return
        loop = asyncio.get_running_loop()

        def begin(number: int, frame: FrameType | None) -> None:
            if self.is_on:
                server(number, frame)
                return
            self.is_on = True
            self._on_begin()
            loop.call_soon_threadsafe(loop.call_later, self._delay, finish, number)

        def finish(number: int) -> None:
            _stop_accepting(server)
            loop.call_later(_SETTLE if self._delay else 0, server, number, None)

        signal.signal(signal.SIGTERM, begin)
        try:
            yield
        finally:
            if signal.getsignal(signal.SIGTERM) is begin:
                signal.signal(signal.SIGTERM, server)


def _stop_accepting(handler: Any) -> None:
    """Close the listeners of a uvicorn, which another process may go on with.

    Args:
        handler: Its method; of another server nothing is known, and nothing done.
    """
    for listener in getattr(getattr(handler, "__self__", None), "servers", ()):
        listener.close()


def close_connection(_: Scope, message: Message, __: float) -> None:
    """Have the client's next request come by a new connection: to another process.

    Args:
        message: The start of a response.
    """
    headers = [*message.get("headers", ())]
    if not any(name.lower() == b"connection" for name, _ in headers):
        message["headers"] = [*headers, (b"connection", b"close")]

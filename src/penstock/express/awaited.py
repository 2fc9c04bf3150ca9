"""Functions that return another one's coroutine, known as what they are to whoever asks."""

import asyncio
import inspect
import sys
from collections.abc import Callable
from typing import Any

__all__ = ["mark_as_awaited"]


def mark_as_awaited(function: Callable[..., Any]) -> None:
    """Have a function taken for a coroutine function, as by Starlette's background tasks.

    What is not taken for one is run in a thread, and its coroutine is awaited by nobody.
    """
    if sys.version_info >= (3, 12):
        inspect.markcoroutinefunction(function)
    else:
        function._is_coroutine = asyncio.coroutines._is_coroutine  # type: ignore[attr-defined]  # noqa: SLF001 - what later versions made public

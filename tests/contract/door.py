"""A door before the driver's connect, which a test shuts, or walls up."""

import asyncio
from typing import Any

from sqlalchemy import event
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlalchemy.util import await_


class WalledUpError(Exception):
    """What a connect raises that ran into a wall."""


class Door:
    """Stands in the way of every connect of an engine.

    Args:
        engine: Any engine, whatever its driver.
    """

    def __init__(self, engine: AsyncEngine) -> None:
        self.arrivals = 0
        self.walled_up = False
        self._stopping = 0
        self._into_a_wall = False
        self._opened = asyncio.Event()
        event.listen(engine.sync_engine, "do_connect", self._pass)

    def shut(self, connects: int = 1000) -> None:
        """Let the next connects wait.

        Args:
            connects: How many; those after them pass.
        """
        self._stopping = connects

    def open(self, *, into_a_wall: bool = False) -> None:
        """Let all of them go on.

        Args:
            into_a_wall: Whether those who waited get no further.
        """
        self._stopping = 0
        self._into_a_wall = into_a_wall
        self._opened.set()

    def _pass(self, _dialect: Any, _record: Any, _args: Any, _arguments: Any) -> None:
        self.arrivals += 1
        if self.walled_up:
            raise WalledUpError
        if self._stopping:
            self._stopping -= 1
            await_(self._opened.wait())
            if self._into_a_wall:
                raise WalledUpError

"""A server and the processes of a fleet on it, on a virtual clock, as bad as they may be."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from heapq import heappop, heappush
from itertools import count
from random import Random

from penstock.fleet.division import divide
from penstock.fleet.member import Member
from penstock.fleet.share import Share
from penstock.fleet.view import View
from penstock.planner import ServerLimits

RESERVE, SURGE = 0.25, 0.1
LIMITS = ServerLimits(max_connections=40, reserved=3)
ALLOWED = 27
"""Of 37, with a quarter kept in reserve."""
DIVIDED = 24
"""Nine tenths of them."""
LONGEST_ANSWER = 1.0
LONGEST_HOLD = 1.0
"""Seconds for which a connection above the share stays checked out, or outlives its process."""


@dataclass
class Process:
    """One process, which has as many connections open as it may."""

    share: Share
    open: int = 1
    is_alive: bool = True
    joined_at: float = 0.0

    @property
    def member(self) -> Member:
        return self.share.member

    @property
    def limit(self) -> int:
        return self.share.snapshot.share


@dataclass
class Server:
    """The server, and what happens on it."""

    random: Random
    outside: int = 0
    now: float = 0.0
    processes: list[Process] = field(default_factory=list)
    _events: list[tuple[float, int, Callable[[], None]]] = field(default_factory=list)
    _numbers: Iterator[int] = field(default_factory=count)

    @property
    def alive(self) -> list[Process]:
        return [process for process in self.processes if process.is_alive]

    @property
    def open(self) -> int:
        """Connections of the fleet."""
        return sum(process.open for process in self.processes)

    @property
    def budget(self) -> int:
        """What the fleet may have; each member has one at least."""
        return max(ALLOWED - self.outside, len(self.alive))

    def due(self) -> dict[str, int]:
        """What each member is due where nothing changes any more."""
        divided = int((ALLOWED - self.outside) * (1 - SURGE))
        return divide(divided, [process.member for process in self.alive])

    def view(self) -> View:
        seen = {each.member: each.open for each in self.processes if each.open}
        return View(LIMITS, seen, self.outside)

    def later(self, seconds: float, work: Callable[[], None]) -> None:
        heappush(self._events, (self.now + seconds, next(self._numbers), work))

    def run(self, seconds: float, check: Callable[[], None] = lambda: None) -> None:
        """Let time pass, with a check after whatever happens."""
        ends_at = self.now + seconds
        while self._events and self._events[0][0] <= ends_at:
            self.now, _, work = heappop(self._events)
            work()
            check()
        self.now = ends_at

    # What happens.

    def join(self, weight: int, most: int) -> None:
        member = Member(f"{next(self._numbers):08x}", weight, most)
        process = Process(Share(member, reserve=RESERVE, surge=SURGE), joined_at=self.now)
        self.processes.append(process)
        self._look(process)

    def leave(self, process: Process) -> None:
        process.is_alive = False
        process.open = 0

    def kill(self, process: Process) -> None:
        """End a process whose statements run on for a while."""
        process.is_alive = False
        self.later(self.random.uniform(0, LONGEST_HOLD), lambda: self.leave(process))

    def blink(self, process: Process) -> None:
        """Have a process without a connection for a moment, as while it replaces its only one."""
        process.open = 0

        def reopen() -> None:
            if process.is_alive:
                process.open = process.limit

        self.later(self.random.uniform(0, LONGEST_HOLD), reopen)

    def _look(self, process: Process) -> None:
        if not process.is_alive:
            return
        # The server answers at some moment between the question and the arrival of the answer.
        asked_at = self.now
        wait = self.random.uniform(0, LONGEST_ANSWER)

        def answer() -> None:
            view = self.view()
            rest = self.random.uniform(0, LONGEST_ANSWER - wait)
            self.later(rest, lambda: self._apply(process, view, asked_at))

        self.later(wait, answer)

    def _apply(self, process: Process, view: View, asked_at: float) -> None:
        if not process.is_alive:
            return
        process.share.update(view, asked_at, self.now)
        if process.open < process.limit:
            process.open = process.limit
        else:
            self.later(self.random.uniform(0, LONGEST_HOLD), lambda: self._release(process))
        self.later(self.random.uniform(0.8, 1.2), lambda: self._look(process))

    def _release(self, process: Process) -> None:
        process.open = min(process.open, process.limit)

"""When housekeeping is due: each job looks at the ledger and orders what has to be done."""

import math
from collections import deque
from collections.abc import Container
from dataclasses import dataclass

from penstock.pool.ledger import Ledger
from penstock.pool.slot import CHECKED_OUT, CHECKING, CLOSING, IDLE, OPENING, CloseReason, Slot

__all__ = ["Housekeeper", "HousekeeperPolicy"]

REPLACEMENTS_AT_ONCE = 2
"""Connections whose replacement is being opened at most: the others go on working."""
INTERVAL, SHORTEST_INTERVAL = 1.0, 0.02
"""Seconds between two runs: usually, and where many connections live for a short time."""
SPREAD = 0.75
"""Share of a lifetime over which connections of one age are replaced, if it takes that long."""
LOOKS_PER_WINDOW = 4
"""Into so many parts ``overflow_idle`` is cut: a surplus goes when it has lasted for all."""


@dataclass(frozen=True, slots=True)
class HousekeeperPolicy:
    """What housekeeping aims at.

    Args:
        min_idle: Connections that are kept ready, as far as the pool's size allows.
        overflow_idle: Seconds after which connections above the size are closed if nobody needed
            them.
        keepalive: Seconds of idleness after which a connection is pinged; 0 for never.
    """

    min_idle: int = 0
    overflow_idle: float = 60.0
    keepalive: float = 120.0


class Housekeeper:
    """The jobs of one pool, to be run each :meth:`interval`.

    Args:
        ledger: Whose slots are looked after.
        policy: What to aim at.
    """

    def __init__(self, ledger: Ledger, policy: HousekeeperPolicy) -> None:
        self._ledger = ledger
        self._policy = policy
        self._least_idle: deque[int] = deque(maxlen=LOOKS_PER_WINDOW)
        self._looked_at = 0.0
        self.resting = False
        """Whether connections are no longer opened but for those who wait."""
        self._owed = 0
        """Retired for want of room before their replacement was opened."""
        self._next_leaves_at = -math.inf
        """When the next may be retired so; a checked-out one leaves room only at its return."""

    def interval(self) -> float:
        """Return for how many seconds nothing has to be looked at.

        It is so short that connections of one age can be replaced one by one, before they expire.
        """
        ledger, recycle = self._ledger, self._ledger.lifetime.recycle
        if recycle <= 0 or not ledger.open:
            return INTERVAL
        shortest = SPREAD * recycle / (ledger.open * self._runs_per_replacement())
        return min(INTERVAL, max(SHORTEST_INTERVAL, shortest))

    def _runs_per_replacement(self) -> int:
        """Without overflow a connection is closed in one run, and opened in another."""
        return 1 if self._ledger.limit > self._ledger.size else 2

    def run(self, now: float) -> None:
        """Order whatever is due."""
        self.retire(now)
        self.shrink(now)
        self.keep_alive(now)
        if not self.resting:
            self.fill(now)
        self._ledger.open_for_waiters(now)

    def retire(self, now: float) -> None:
        """Replace what has lived its time: the new one is opened before the old one goes.

        Where more will be due soon than can be replaced by then one by one, the first goes now.
        """
        ledger = self._ledger
        if ledger.closed:
            return
        replaced = {slot.replaces for slot in ledger if slot.state is OPENING} - {None}
        due = self._due(now, replaced)
        staying = self._staying()
        for slot in due[: REPLACEMENTS_AT_ONCE - len(replaced)]:
            if ledger.size and staying > ledger.size:
                ledger.retire(slot)
                staying -= 1
            elif ledger.open < ledger.limit:
                if ledger.opening < ledger.connects_at_once:
                    ledger.request_open(now, for_housekeeping=True, replaces=slot)
            elif now >= self._next_leaves_at and not self._is_room_coming():
                ledger.retire(slot)
                staying -= 1
                self._owed += 1
                self._next_leaves_at = now + self.interval()

    def _due(self, now: float, replaced: Container[Slot | None]) -> list[Slot]:
        slots = [slot for slot in self._ledger if slot.eviction is None and slot not in replaced]
        slots = [slot for slot in slots if slot.state in (IDLE, CHECKED_OUT)]
        slots.sort(key=lambda slot: slot.retire_at)
        pace = self.interval() * self._runs_per_replacement()
        is_late = any(slot.retire_at <= now + turn * pace for turn, slot in enumerate(slots))
        due = [slot for slot in slots if slot.retire_at <= now]
        return due or slots[: int(is_late)]

    def shrink(self, now: float) -> None:
        """Close connections above the size that nobody needed for ``overflow_idle``."""
        ledger = self._ledger
        if now - self._looked_at < self._policy.overflow_idle / LOOKS_PER_WINDOW:
            return
        self._looked_at = now
        self._least_idle.append(ledger.least_idle)
        ledger.least_idle = ledger.idle
        if len(self._least_idle) < LOOKS_PER_WINDOW:
            return
        surplus = min(*self._least_idle, self._staying() - ledger.size) if ledger.size else 0
        if surplus > 0:
            for slot in self._idle()[:surplus]:
                ledger.retire(slot, CloseReason.SURPLUS)
            self._least_idle.clear()
            ledger.least_idle = ledger.idle

    def keep_alive(self, now: float) -> None:
        """Ping what nobody has used for a while, so that no proxy or firewall forgets it."""
        if not self._policy.keepalive:
            return
        due = [slot for slot in self._idle() if now - slot.since >= self._policy.keepalive]
        for slot in due[: self._ledger.connects_at_once]:
            self._ledger.request_ping(slot)

    def fill(self, now: float) -> None:
        """Open what is missing for ``min_idle`` and for what was retired in advance."""
        ledger = self._ledger
        if ledger.closed:
            return
        most = ledger.size or ledger.limit
        ready = ledger.count(IDLE, CHECKING) + ledger.opening
        wanted = max(self._owed, self._policy.min_idle - ready)
        while wanted > 0 and ledger.open < most and ledger.opening < ledger.connects_at_once:
            if not ledger.request_open(now, for_housekeeping=True):
                return
            wanted -= 1
            self._owed = max(0, self._owed - 1)

    def _is_room_coming(self) -> bool:
        """Return whether it is better to wait until something that is under way is done.

        In a pool without overflow one has to go first; the next goes when it has been closed.
        """
        ledger = self._ledger
        if ledger.opening or ledger.count(CLOSING):
            return True
        return ledger.limit > ledger.size and self._staying() < ledger.open

    def _staying(self) -> int:
        """Number of slots that will still be there when all that is under way is done."""
        return sum(
            slot.state is not CLOSING and slot.eviction is None and slot.replaces is None
            for slot in self._ledger
        )

    def _idle(self) -> list[Slot]:
        idle = [slot for slot in self._ledger if slot.state is IDLE]
        return sorted(idle, key=lambda slot: slot.since)

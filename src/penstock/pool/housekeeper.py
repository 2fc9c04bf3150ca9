"""Housekeeping: which connections are replaced, closed, pinged and opened, and when."""

import math
from collections import deque
from collections.abc import Container
from dataclasses import dataclass, field
from functools import partial

from penstock.pool.ledger import Ledger
from penstock.pool.slot import CHECKED_OUT, CHECKING, CLOSING, IDLE, OPENING, CloseReason, Slot

REPLACEMENTS_AT_ONCE = 2
"""Replacements opened in parallel at most: the other connections stay in use."""
INTERVAL, SHORTEST_INTERVAL = 1.0, 0.02
"""Seconds between two runs: usually, and where many connections have a short lifetime."""
SPREAD = 0.75
"""Share of ``pool_recycle`` over which connections of one age are replaced at most."""
SAMPLES_PER_WINDOW = 4
"""Samples in ``overflow_idle``: a surplus is closed if it was there in all of them."""


@dataclass(frozen=True, slots=True)
class HousekeeperPolicy:
    """What housekeeping keeps to.

    Args:
        min_idle: Connections that are kept ready, as far as the pool's size allows.
        overflow_idle: Seconds after which connections above the size that were not needed are
            closed.
        keepalive: Seconds of idleness after which a connection is pinged; 0 for never.
    """

    min_idle: int = 0
    overflow_idle: float = 60.0
    keepalive: float = 120.0


@dataclass(eq=False)
class Housekeeper:
    """The jobs of one pool, which run once in each :meth:`interval`.

    Args:
        ledger: Has the slots.
        policy: What the jobs keep to.
    """

    ledger: Ledger
    policy: HousekeeperPolicy
    is_paused: bool = field(default=False, init=False)
    """Whether connections are opened for waiters only."""
    _least_idle: deque[int] = field(
        default_factory=partial(deque, maxlen=SAMPLES_PER_WINDOW), init=False
    )
    _sampled_at: float = field(default=0.0, init=False)
    _missing_replacements: int = field(default=0, init=False)
    """Replacements to open for connections that were evicted first, for lack of room."""
    _next_eviction_at: float = field(default=-math.inf, init=False)
    """When the next may be evicted first; a checked-out one makes room only on release."""

    @property
    def fills(self) -> bool:
        """Whether ``min_idle`` connections are kept ready."""
        return self.policy.min_idle > 0 and not self.is_paused

    def interval(self) -> float:
        """Return the seconds until the next run.

        They are short enough to replace connections of one age one by one before they expire.
        """
        ledger, lifetime = self.ledger, self.ledger.lifetime()
        if not 0 < lifetime < math.inf or not ledger.open:
            return INTERVAL
        shortest = SPREAD * lifetime / (ledger.open * self._runs_per_replacement())
        return min(INTERVAL, max(SHORTEST_INTERVAL, shortest))

    def _runs_per_replacement(self) -> int:
        """Without overflow a connection is closed in one run and opened in another."""
        return 1 if self.ledger.limit > self.ledger.size else 2

    def run(self, now: float) -> None:
        """Run every job.

        Args:
            now: The time.
        """
        self.replace(now)
        self.shrink(now)
        self.keep_alive(now)
        if not self.is_paused:
            self.fill(now)
        self.ledger.open_for_waiters(now)

    def replace(self, now: float) -> None:
        """Replace connections that are due: the new one is opened before the old one is closed.

        Where more are due soon than can be replaced one by one, the first is replaced now. What was
        not needed for ``overflow_idle`` is closed without replacement in a pool that neither keeps
        connections ready nor pings them: its database may sleep when it is not used.

        Args:
            now: The time.
        """
        ledger = self.ledger
        if ledger.closed:
            return
        replaced = {slot.replaces for slot in ledger if slot.state is OPENING} - {None}
        due = self._due(now, replaced)
        staying = self._staying()
        for slot in due[: REPLACEMENTS_AT_ONCE - len(replaced)]:
            if (ledger.size and staying > ledger.size) or self._is_unneeded(slot, now):
                ledger.evict(slot)
                staying -= 1
            elif ledger.open < ledger.limit:
                if ledger.opening < ledger.connects_at_once:
                    ledger.add_connection(now, for_housekeeping=True, replaces=slot)
            elif now >= self._next_eviction_at and not self._makes_room():
                ledger.evict(slot)
                staying -= 1
                self._missing_replacements += 1
                self._next_eviction_at = now + self.interval()

    def _due(self, now: float, replaced: Container[Slot | None]) -> list[Slot]:
        slots = [slot for slot in self.ledger if slot.eviction is None and slot not in replaced]
        slots = [slot for slot in slots if slot.state in (IDLE, CHECKED_OUT)]
        slots.sort(key=lambda slot: slot.retire_at)
        pace = self.interval() * self._runs_per_replacement()
        is_late = any(slot.retire_at <= now + turn * pace for turn, slot in enumerate(slots))
        due = [slot for slot in slots if slot.retire_at <= now]
        return due or slots[: int(is_late)]

    def shrink(self, now: float) -> None:
        """Close connections above the size that were not needed for ``overflow_idle``.

        Args:
            now: The time.
        """
        ledger = self.ledger
        if now - self._sampled_at < self.policy.overflow_idle / SAMPLES_PER_WINDOW:
            return
        self._sampled_at = now
        self._least_idle.append(ledger.least_idle)
        ledger.least_idle = ledger.idle
        if len(self._least_idle) < SAMPLES_PER_WINDOW:
            return
        surplus = min(*self._least_idle, self._staying() - ledger.size) if ledger.size else 0
        if surplus > 0:
            for slot in self._idle()[:surplus]:
                ledger.evict(slot, CloseReason.SURPLUS)
            self._least_idle.clear()
            ledger.least_idle = ledger.idle

    def keep_alive(self, now: float) -> None:
        """Ping idle connections, so that no proxy or firewall drops them.

        Args:
            now: The time.
        """
        if not self.policy.keepalive:
            return
        due = [slot for slot in self._idle() if now - slot.since >= self.policy.keepalive]
        for slot in due[: self.ledger.connects_at_once]:
            self.ledger.ping(slot)

    def fill(self, now: float) -> None:
        """Open connections for ``min_idle`` and for those that were evicted before replacement.

        Args:
            now: The time.
        """
        ledger = self.ledger
        if ledger.closed:
            return
        most = ledger.size or ledger.limit
        ready = ledger.count(IDLE, CHECKING) + ledger.opening
        wanted = max(self._missing_replacements, self.policy.min_idle - ready)
        while wanted > 0 and ledger.open < most and ledger.opening < ledger.connects_at_once:
            if not ledger.add_connection(now, for_housekeeping=True):
                return
            wanted -= 1
            self._missing_replacements = max(0, self._missing_replacements - 1)

    def _is_unneeded(self, slot: Slot, now: float) -> bool:
        if self.policy.min_idle or self.policy.keepalive:
            return False
        return slot.state is IDLE and now - slot.since >= self.policy.overflow_idle

    def _makes_room(self) -> bool:
        """Return whether an action under way makes room.

        In a pool without overflow a connection is closed first; the next one waits for that.
        """
        ledger = self.ledger
        if ledger.opening or ledger.count(CLOSING):
            return True
        return ledger.limit > ledger.size and self._staying() < ledger.open

    def _staying(self) -> int:
        """Return the number of slots that remain once the actions under way are done."""
        return sum(
            slot.state is not CLOSING and slot.eviction is None and slot.replaces is None
            for slot in self.ledger
        )

    def _idle(self) -> list[Slot]:
        idle = [slot for slot in self.ledger if slot.state is IDLE]
        return sorted(idle, key=lambda slot: slot.since)

"""Which callers may wait, and which are rejected at once because waiting is of no use."""

import math
from collections import deque
from dataclasses import dataclass

from penstock.pool.refusal import Refused

__all__ = ["Admission", "AdmissionPolicy", "QueueClock"]

PACE_SAMPLES = 32
"""Hand-overs from which the pace of the queue is told: enough that one late one says little."""
PARTS = 4
"""Of an interval. Where in one of them hardly anybody came, the others were bursts."""
SUSTAINED_SHARE = 0.9
"""A queue that loses less than a tenth of what is served in a while does not drain: it stands."""


@dataclass(frozen=True, slots=True)
class AdmissionPolicy:
    """How a queue of waiters is kept short.

    Args:
        max_waiting: Waiters at most; None for no bound.
        codel_target: Seconds that a hand-over may come late, again and again, before waiters are
            shed; None to shed nobody. The method is CoDel's (RFC 8289) as Facebook uses it for
            requests: B. Maurer, "Fail at Scale", ACM Queue 13(8), 2015.
        codel_interval: Seconds that the shortest wait has to stay above the target.
    """

    max_waiting: int | None = None
    codel_target: float | None = None
    codel_interval: float = 0.1

    @property
    def heartbeat_interval(self) -> float:
        """Seconds between two reports that the event loop runs, while anybody waits.

        A quarter of a second is little for a request and costs nothing; with a short
        ``codel_interval`` an equally short standstill has to be seen.
        """
        return 0.25 if self.codel_target is None else min(0.25, self.codel_interval / 4)


class QueueClock:
    """The time that a queue has had: without what the event loop stood still.

    While the loop is blocked nobody can be served, and nothing follows from how long it took.

    Args:
        heartbeat_interval: Seconds after which it is told the time again at the latest.
    """

    __slots__ = ("_heartbeat_interval", "_longest", "_lost", "_told_at")

    def __init__(self, heartbeat_interval: float) -> None:
        self._heartbeat_interval = heartbeat_interval
        self._longest = 2 * heartbeat_interval
        self._told_at = math.inf
        self._lost = 0.0

    def start(self, now: float) -> float:
        """Return the queue's time; that the clock was not told the time before means nothing."""
        self._told_at = now
        return now - self._lost

    def at(self, now: float) -> float:
        """Return the queue's time."""
        gap = now - self._told_at
        if gap > self._longest:
            self._lost += gap - self._heartbeat_interval
        self._told_at = now
        return now - self._lost


class _Demand:
    """Whether more keep coming than are served, or bursts are being worked off.

    Args:
        interval: Seconds that are looked at, each of their parts by itself.
    """

    __slots__ = ("_came", "_part", "_parts", "_served", "_since")

    def __init__(self, interval: float) -> None:
        self._part = interval / PARTS
        self._parts: deque[float] = deque(maxlen=PARTS)
        """How many came for each that was served, in the newest parts."""
        self.begin(0.0)

    def begin(self, now: float) -> None:
        """Forget what was."""
        self._since = now
        self._came = self._served = 0
        self._parts.clear()

    def came(self, now: float) -> None:
        """Count a caller that wants to wait, whether it is let in or not."""
        self._turn(now)
        self._came += 1

    def served(self, now: float) -> None:
        """Count a waiter that got a connection."""
        self._turn(now)
        self._served += 1

    def excess(self, now: float) -> int:
        """Return how many have to go for each that is served; 0 where the queue drains."""
        self._turn(now)
        if len(self._parts) < PARTS or min(self._parts) < SUSTAINED_SHARE:
            return 0
        return max(1, int(sorted(self._parts)[PARTS // 2]))  # the median: bursts do not count

    def _turn(self, now: float) -> None:
        passed = (now - self._since) // self._part
        if passed < 1:
            return
        self._parts.append(self._came / max(1, self._served))
        if passed > 1:
            self._parts.append(0.0)
        self._came = self._served = 0
        self._since += passed * self._part


class Admission:
    """Applies a policy to one queue; times in seconds, on the queue's clock."""

    __slots__ = ("_demand", "_good_at", "_handed_over_at", "_target", "policy")

    def __init__(self, policy: AdmissionPolicy) -> None:
        self.policy = policy
        self._target = math.inf if policy.codel_target is None else policy.codel_target
        self._demand = _Demand(policy.codel_interval)
        self._good_at = 0.0
        """When a waiter was last served within the target, or nobody waited."""
        self._handed_over_at: deque[float] = deque(maxlen=PACE_SAMPLES)
        """The newest hand-overs since the queue began to fill."""

    def refuses(self, waiting: float, now: float, patience: float) -> Refused | None:
        """Return why a caller is rejected; None where it may wait.

        Args:
            waiting: How many wait already; below 0 where a new connection can be opened for it.
            now: The time.
            patience: Seconds until the caller gives up.

        Returns:
            ``FULL`` where too many wait, ``HOPELESS`` where at the pace of this busy period the
            caller's turn would come too late.
        """
        self._demand.came(now)
        if waiting < 0:
            return None
        most = self.policy.max_waiting
        if most is not None and waiting >= most:
            return Refused.FULL
        if len(self._handed_over_at) == PACE_SAMPLES:
            pace = (now - self._handed_over_at[0]) / (PACE_SAMPLES - 1)
            if (waiting + 1) * pace > patience:
                return Refused.HOPELESS
        return None

    def busy(self, now: float) -> None:
        """Note that the queue was empty and now begins to fill."""
        self._good_at = now
        self._demand.begin(now)
        self.forget_pace()

    def forget_pace(self) -> None:
        """Let the pace be learnt anew."""
        self._handed_over_at.clear()

    def sheds(self, waited: float, now: float) -> int:
        """Return how many of the oldest waiters are shed when a connection is handed over.

        Nobody, unless the queue stands: for an interval no waiter was served within the target,
        and in each quarter of it about as many callers came as were served, or more. So a burst,
        whose waiters all become late, is worked off. Who sheds more at once than come in excess
        empties the queue with one hand-over.

        Args:
            waited: Seconds that the oldest has waited.
            now: The time.
        """
        if not self.is_late(waited) or now - self._good_at <= self.policy.codel_interval:
            return 0
        return self._demand.excess(now)

    def is_late(self, waited: float) -> bool:
        """Return whether somebody who has waited for so long may be shed."""
        return waited > 2 * self._target

    def handed_over(self, waited: float, now: float) -> None:
        """Note that a waiter got a connection, from which the pace of the queue is learnt.

        Args:
            waited: Seconds that it has waited.
            now: The time.
        """
        self._demand.served(now)
        self._handed_over_at.append(now)
        if waited <= self._target:
            self._good_at = now

"""Who may wait, and who is told at once that waiting is of no use."""

import math
from dataclasses import dataclass

from penstock.pool.refusal import Refused

__all__ = ["Admission", "AdmissionPolicy"]

PACE_WEIGHT = 0.1
"""Share of the newest interval in the smoothed one: about the last twenty count."""
PACE_SAMPLES = 10
"""Hand-overs within one busy period before its pace says anything."""


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


class Admission:
    """Applies a policy to one queue; times in seconds, on the caller's clock."""

    __slots__ = (
        "_handed_over_at",
        "_interval_end",
        "_overloaded",
        "_pace",
        "_samples",
        "_shortest",
        "policy",
    )

    def __init__(self, policy: AdmissionPolicy) -> None:
        self.policy = policy
        self._overloaded = False
        self._shortest = 0.0
        self._interval_end = -math.inf
        self._pace = 0.0
        self._samples = 0
        self._handed_over_at = 0.0

    def refuses(self, waiting: float, patience: float) -> Refused | None:
        """Tell whether somebody who asks now is turned away.

        Args:
            waiting: How many wait already.
            patience: Seconds until the asker gives up.

        Returns:
            ``FULL`` where too many wait, ``HOPELESS`` where at the pace of this busy period the
            asker's turn would come too late, None where it may wait.
        """
        most = self.policy.max_waiting
        if most is not None and waiting >= most:
            return Refused.FULL
        if self._samples >= PACE_SAMPLES and (waiting + 1) * self._pace > patience:
            return Refused.HOPELESS
        return None

    def busy(self, now: float) -> None:
        """Note that the queue was empty and now begins to fill."""
        self._shortest = 0.0
        self._samples = 0
        self._handed_over_at = now

    def sheds(self, waited: float, now: float) -> bool:
        """Tell whether the oldest waiter, whose turn it is, is shed instead.

        Args:
            waited: Seconds that it has waited.
            now: The time.
        """
        target = self.policy.codel_target
        if target is None:
            return False
        if now >= self._interval_end:
            self._overloaded = self._shortest > target
            self._shortest = waited
            self._interval_end = now + self.policy.codel_interval
        elif waited < self._shortest:
            self._shortest = waited
        return self._overloaded and waited > 2 * target

    def handed_over(self, now: float) -> None:
        """Note that a waiter got a connection, from which the pace of the queue is learnt."""
        interval = now - self._handed_over_at
        self._handed_over_at = now
        self._samples += 1
        if self._samples == 1:
            self._pace = interval
        else:
            self._pace += PACE_WEIGHT * (interval - self._pace)

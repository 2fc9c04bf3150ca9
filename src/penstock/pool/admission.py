"""Who may wait, and who is told at once that waiting is of no use."""

from collections import deque
from dataclasses import dataclass

from penstock.pool.refusal import Refused

__all__ = ["Admission", "AdmissionPolicy"]

PACE_SAMPLES = 32
"""Hand-overs from which the pace of the queue is told: enough that one late one says little."""


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

    __slots__ = ("_good_at", "_handed_over_at", "policy")

    def __init__(self, policy: AdmissionPolicy) -> None:
        self.policy = policy
        self._good_at = 0.0
        """When a waiter was last served within the target, or nobody waited."""
        self._handed_over_at: deque[float] = deque(maxlen=PACE_SAMPLES)
        """The newest hand-overs since the queue began to fill."""

    def refuses(self, waiting: float, now: float, patience: float) -> Refused | None:
        """Tell whether somebody who asks now is turned away.

        Args:
            waiting: How many wait already.
            now: The time.
            patience: Seconds until the asker gives up.

        Returns:
            ``FULL`` where too many wait, ``HOPELESS`` where at the pace of this busy period the
            asker's turn would come too late, None where it may wait.
        """
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
        self.forget_pace()

    def forget_pace(self) -> None:
        """Let the pace be learnt anew."""
        self._handed_over_at.clear()

    def sheds(self, waited: float, now: float) -> bool:
        """Tell whether the oldest waiter, whose turn it is, is shed instead.

        Args:
            waited: Seconds that it has waited.
            now: The time.
        """
        target = self.policy.codel_target
        if target is None:
            return False
        if waited <= target:
            self._good_at = now
            return False
        return now - self._good_at > self.policy.codel_interval and waited > 2 * target

    def handed_over(self, now: float) -> None:
        """Note that a waiter got a connection, from which the pace of the queue is learnt."""
        self._handed_over_at.append(now)

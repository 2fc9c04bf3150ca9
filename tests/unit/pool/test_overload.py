"""What the queue that ships does under overload and in a burst, on a clock of its own."""

import heapq
from collections import Counter
from itertools import count
from random import Random

import pytest
from tests.unit.pool.callers import NOW, Caller, dispatch, new_ledger, refused

from penstock.pool.queue import AdmissionPolicy, RejectReason
from penstock.pool.slot import Slot

CONNECTIONS = 10
SERVICE = 0.02
"""Seconds for which each connection is held."""
CAPACITY = CONNECTIONS / SERVICE
GOAL = AdmissionPolicy(codel_target=0.005, codel_interval=0.1)
GUARD = AdmissionPolicy(codel_target=0.5, codel_interval=5.0)
"""The production profile's."""


class _Caller(Caller):
    """One that remembers when it was answered."""

    __slots__ = ("began", "queue")

    def __init__(self, queue: "_Queue", patience: float) -> None:
        super().__init__(queue.now + patience)
        self.queue = queue
        self.began = queue.now

    def accept(self, slot: Slot) -> bool:
        self.queue.hold(slot, self.queue.now - self.began)
        return super().accept(slot)


class _Queue:
    """A pool whose connections are open and held for ``SERVICE``, and what became of callers.

    Args:
        policy: How its queue is kept short.
        patience: Seconds that each caller waits at most.
    """

    def __init__(self, policy: AdmissionPolicy, patience: float) -> None:
        self.ledger = new_ledger(CONNECTIONS, admission=policy)
        self.now = NOW
        self.waits: list[float] = []
        self.refused: Counter[RejectReason] = Counter()
        self._patience = patience
        self._heartbeat = policy.heartbeat_interval
        self._heartbeat_at = NOW
        self._number = count()
        self._held: list[tuple[float, int, Slot]] = []
        self._waiting: list[_Caller] = []

    def come(self) -> None:
        """Let one ask."""
        caller = _Caller(self, self._patience)
        slot = self.ledger.acquire(self.now)
        if slot is not None:
            caller.accept(slot)
            return
        why = refused(self.ledger.wait(caller, self.now))
        dispatch(self.ledger, self.now)
        if why is None:
            self._waiting.append(caller)
        else:
            self.refused[why] += 1

    def hold(self, slot: Slot, waited: float) -> None:
        """Note that a connection is held from now on, by one that has waited."""
        self.waits.append(waited)
        heapq.heappush(self._held, (self.now + SERVICE, next(self._number), slot))

    def run_until(self, end: float) -> None:
        """Let connections come back, and deadlines pass."""
        while self._held and self._held[0][0] <= end:
            self._run_loop_until(self._held[0][0])
            self.ledger.release(heapq.heappop(self._held)[2], self.now)
        self._run_loop_until(end)

    def _run_loop_until(self, moment: float) -> None:
        moment = max(self.now, moment)
        self._heartbeat_at = max(self.now, self._heartbeat_at)
        while self._heartbeat_at < moment:
            self.ledger.waiters.heartbeat(self._heartbeat_at)
            self._heartbeat_at += self._heartbeat
        self.now = moment
        for waiter in list(self.ledger.waiters.queue):
            if waiter.deadline > moment:
                break
            self.ledger.expire(waiter)

    def settle(self) -> None:
        """Work off what is left, and count who was refused."""
        while self._held:
            self.run_until(self._held[0][0])
        for caller in self._waiting:
            if not isinstance(caller.answers[0], Slot):
                self.refused[caller.why] += 1


def offer(policy: AdmissionPolicy, patience: float, times: float, seconds: float) -> _Queue:
    """Offer so many times the capacity, in a stream that chance makes."""
    queue, random = _Queue(policy, patience), Random(1)
    due = NOW
    while (due := due + random.expovariate(times * CAPACITY)) < NOW + seconds:
        queue.run_until(due)
        queue.come()
    return queue


def p99(waits: list[float]) -> float:
    return sorted(waits)[int(0.99 * len(waits))]


@pytest.mark.parametrize("times", [1.2, 1.5, 3.0, 6.0])
def test_under_overload_all_of_the_capacity_is_used_and_waits_stay_short(times: float) -> None:
    queue = offer(GOAL, 0.5, times, 10.0)

    assert len(queue.waits) >= 0.98 * CAPACITY * 10.0
    assert p99(queue.waits) < 0.08
    queue.settle()
    assert queue.refused[RejectReason.SHED] > 0.9 * queue.refused.total()


@pytest.mark.parametrize(("policy", "share"), [(GOAL, 0.015), (GUARD, 0.0)])
def test_below_the_capacity_hardly_anybody_is_shed(policy: AdmissionPolicy, share: float) -> None:
    queue = offer(policy, 30.0, 0.9, 20.0)
    queue.settle()

    assert queue.refused.total() <= share * len(queue.waits)


@pytest.mark.parametrize("policy", [GOAL, GUARD])
@pytest.mark.parametrize("bursts", [1, 2])
def test_a_burst_is_worked_off(policy: AdmissionPolicy, bursts: int) -> None:
    queue = _Queue(policy, 30.0)
    for burst in range(bursts):
        queue.run_until(NOW + 4.0 * burst)
        for _ in range(5000):
            queue.come()
    queue.settle()

    assert (len(queue.waits), queue.refused.total()) == (5000 * bursts, 0)


@pytest.mark.parametrize("policy", [GOAL, GUARD])
def test_who_came_while_the_loop_did_nothing_else_is_served(policy: AdmissionPolicy) -> None:
    queue = _Queue(policy, 60.0)
    for _ in range(5000):
        queue.now += 0.002
        queue.come()
    queue.settle()

    assert (len(queue.waits), queue.refused.total()) == (5000, 0)


@pytest.mark.slow
def test_where_more_come_for_long_the_guard_keeps_the_wait_at_about_a_second() -> None:
    queue = offer(GUARD, 30.0, 1.5, 60.0)

    assert len(queue.waits) >= 0.98 * CAPACITY * 60.0
    assert p99(queue.waits) < 4.0
    assert sorted(queue.waits[-5000:])[2500] < 2.0
